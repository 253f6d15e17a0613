/** Redemptions: the holder's signed demand that a node turn a ticket into a lease, or renew one with it. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { byteString } from '../wire/codec.ts'
import { principalSchema } from './principal.ts'
import { imageIdSchema } from './resource-schema.ts'
import { defineObject, idSchema, signedEntries } from './signed-object.ts'

/** One line of an `authorized_keys` file. */
export const sshKeySchema = v.pipe(
  v.string(),
  v.maxLength(1024),
  v.regex(/^[\x20-\x7e]+$/, 'expected one line of text')
)
export const sshKeysSchema = v.pipe(v.array(sshKeySchema), v.maxLength(LIMITS.keysPerLeaseMax))

const schema = v.strictObject({
  // The interval in which the demand may be presented.
  ...signedEntries,
  /** Id of the last ticket of the chain; through `parent` it names all of it. */
  ticket: idSchema,
  /** Id of the lease that is to go on with this ticket; absent for a new one. */
  renews: v.exactOptional(idSchema),
  node: principalSchema,
  /** The same nonce asks for the same lease again; another one is another redemption. */
  nonce: byteString(16, 16),
  image: imageIdSchema,
  keys: sshKeysSchema
})

export type Redeem = v.InferOutput<typeof schema>
export const redeemObject = defineObject<Redeem>('redeem', schema)
