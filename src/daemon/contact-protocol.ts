/** What the control socket has for the peers that this one is connected to, and for pinging one. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { emptySchema } from '../protocol/agent-protocol.ts'
import { principalSchema } from '../ticket/principal.ts'
import { amountSchema, timeSchema } from '../ticket/signed-object.ts'

const pathEntries = {
  /** Whether through a relay. */
  relayed: v.boolean(),
  address: v.string()
}
const rolesSchema = v.array(v.picklist(['node', 'agent']))

export const contactViewSchema = v.strictObject({
  principal: principalSchema,
  /** As its advert says; absent when there is none. */
  name: v.exactOptional(v.string()),
  /** Those that it has adverts for. */
  roles: rolesSchema,
  /** Who dialed. */
  direction: v.picklist(['inbound', 'outbound']),
  ...pathEntries,
  connectedAt: timeSchema
})
export type ContactView = v.InferOutput<typeof contactViewSchema>

export const pingItemSchema = v.variant('event', [
  /** How the peer is reached, first and whenever that changes. */
  v.strictObject({ event: v.literal('path'), ...pathEntries }),
  /** One ping; without a time when it was lost. */
  v.strictObject({ event: v.literal('ping'), rttMicros: v.exactOptional(amountSchema) })
])
export type PingItem = v.InferOutput<typeof pingItemSchema>

export const pingViewSchema = v.strictObject({
  principal: principalSchema,
  name: v.exactOptional(v.string()),
  /** How it was reached in the end. */
  ...pathEntries,
  sent: amountSchema,
  /** Microseconds of those that were answered, in order. */
  rttMicros: v.array(amountSchema)
})
export type PingView = v.InferOutput<typeof pingViewSchema>

export const contactMethods = {
  peers: { params: emptySchema, result: v.strictObject({ peers: v.array(contactViewSchema) }) },
  /**
   * Pings a peer, named by its principal, the name of a node or agent, the beginning of either, or an address. Throws
   * `NOT_FOUND`, `AMBIGUOUS_ID`, `USAGE` for this peer itself and for an address that names no peer, `PEER_UNREACHABLE`.
   */
  ping: {
    params: v.strictObject({
      peer: v.pipe(v.string(), v.minLength(1), v.maxLength(512)),
      count: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(LIMITS.pingsMax))
    }),
    item: pingItemSchema,
    result: pingViewSchema
  }
} as const
