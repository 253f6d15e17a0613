/**
 * Tickets: an agent's promise that their holder may redeem them at one node for a lease (paper §2.2). Bound to node,
 * holder and slice, so that a stolen one is worth nothing; good for one redemption.
 */
import * as v from 'valibot'
import { principalSchema } from './principal.ts'
import { portsSchema, resourcesSchema, rightsSchema, sliceNameSchema } from './resource-schema.ts'
import { defineObject, idSchema, signedEntries, timeSchema } from './signed-object.ts'

const schema = v.strictObject({
  // The interval is the term of the lease that the ticket is good for.
  ...signedEntries,
  /** Id of the delegation or ticket that this one is cut from. */
  parent: idSchema,
  node: principalSchema,
  holder: principalSchema,
  slice: sliceNameSchema,
  resources: resourcesSchema,
  ports: portsSchema,
  rights: rightsSchema,
  /** Whether the holder may issue tickets below this one. */
  canDelegate: v.boolean(),
  /** UTC ms: a ticket is a hold, and lapses at this instant unless it was redeemed. */
  redeemBefore: timeSchema,
  /** Id of the ticket that this one replaces; the two are never counted beside each other. */
  supersedes: v.exactOptional(idSchema)
})

export type Ticket = v.InferOutput<typeof schema>
export const ticketObject = defineObject<Ticket>('ticket', schema)
