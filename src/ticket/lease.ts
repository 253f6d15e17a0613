/** Leases: a node's signed word that a slice has a virtual machine on it for a term (paper §2.2, figure 2). */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { byteString } from '../wire/codec.ts'
import { principalSchema } from './principal.ts'
import {
  imageIdSchema,
  portsSchema,
  resourcesSchema,
  rightsSchema,
  shapingSchema,
  sliceNameSchema
} from './resource-schema.ts'
import { amountSchema, defineObject, idSchema, signedEntries } from './signed-object.ts'

const schema = v.strictObject({
  // The interval is the term.
  ...signedEntries,
  ticket: idSchema,
  holder: principalSchema,
  slice: sliceNameSchema,
  image: imageIdSchema,
  resources: resourcesSchema,
  ports: portsSchema,
  rights: rightsSchema,
  /** As in the ticket. */
  shaping: v.exactOptional(shapingSchema),
  /** The node's address at which the owned ports lead to this virtual machine. */
  address: v.pipe(v.string(), v.maxLength(45)),
  /** Name of the virtual machine on its node. */
  vserver: v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,40}$/)),
  /** The epoch of the node's adverts when the lease was made. */
  epoch: amountSchema,
  /** Id of the lease that this one renews. */
  prev: v.exactOptional(idSchema),
  /** Envelopes of the surrenders by which holders before gave these ports up. */
  released: v.exactOptional(
    v.pipe(
      v.array(byteString(1, LIMITS.surrenderBytesMax)),
      v.minLength(1),
      v.maxLength(LIMITS.surrendersPerLeaseMax)
    )
  )
})

export type Lease = v.InferOutput<typeof schema>
export const leaseObject = defineObject<Lease>('lease', schema)
