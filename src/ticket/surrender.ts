/**
 * Surrenders: the holder of a lease gives it up before its end. The node keeps the holder's word and shows it with the
 * next lease of the same ports, so that nobody can take the two for one port leased twice.
 */
import * as v from 'valibot'
import { principalSchema } from './principal.ts'
import { defineObject, idSchema, signedEntries } from './signed-object.ts'

const schema = v.strictObject({
  // The interval in which it may be presented.
  ...signedEntries,
  node: principalSchema,
  /** Id of the lease, or of any that it renews or that renews it. */
  lease: idSchema,
  /** Name of its virtual machine: every lease of the issuer's for that one is given up. */
  vserver: v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,40}$/))
})

export type Surrender = v.InferOutput<typeof schema>
export const surrenderObject = defineObject<Surrender>('surrender', schema)
