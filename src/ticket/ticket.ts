/**
 * Tickets: an agent's promise that their holder may redeem them at one node for a lease (paper §2.2). Bound to node,
 * holder and slice, so that a stolen one is worth nothing; good for one redemption.
 *
 * A ticket and those that supersede it are a line: one claim, of which the node honours one at a time. The tickets of a
 * line are never counted beside each other.
 */
import * as v from 'valibot'
import { principalSchema } from './principal.ts'
import {
  portsSchema,
  resourcesSchema,
  rightsSchema,
  shapingSchema,
  sliceNameSchema
} from './resource-schema.ts'
import { defineObject, idSchema, signedEntries, timeSchema, type Identified } from './signed-object.ts'

const schema = v.strictObject({
  // The interval is the term of the lease that the ticket is good for.
  ...signedEntries,
  /** Id of the delegation or ticket that this one is cut from. */
  parent: idSchema,
  node: principalSchema,
  holder: principalSchema,
  /** Absent in a wholesale ticket, which another agent cuts tickets for any slice from; it is not redeemed itself. */
  slice: v.exactOptional(sliceNameSchema),
  resources: resourcesSchema,
  ports: portsSchema,
  rights: rightsSchema,
  /** Absent: what the policy of the node allows, and the usual share. */
  shaping: v.exactOptional(shapingSchema),
  /** Whether the holder may issue tickets below this one. */
  canDelegate: v.boolean(),
  /** UTC ms: a ticket is a hold, and lapses at this instant unless it was redeemed. */
  redeemBefore: timeSchema,
  /** Id of the first ticket of its line; absent in that one itself. */
  supersedes: v.exactOptional(idSchema)
})

export type Ticket = v.InferOutput<typeof schema>
export const ticketObject = defineObject<Ticket>('ticket', schema)

/** Names the line of a ticket: the same for tickets of one holder, node and slice that supersede the same first one. */
export function lineOf({ id, body }: Identified<Ticket>): string {
  return [body.supersedes ?? id, body.holder, body.node, body.slice ?? ''].join(' ')
}
