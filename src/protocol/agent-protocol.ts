/** What is said to agents (paper §4.2.2): nodes delegate to them, brokers ask what they have and for tickets. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { PORT_PROTOCOLS } from '../ticket/ports.ts'
import { principalSchema } from '../ticket/principal.ts'
import { resourcesSchema, rightsSchema, sliceNameSchema } from '../ticket/resource-schema.ts'
import { amountSchema, idSchema, timeSchema } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'

const objectBytes = byteString(1, LIMITS.objectBytesMax)
export const emptySchema = v.strictObject({})

/** A port asked for: a number, or any that is free when absent. */
export const portWishSchema = v.strictObject({
  protocol: v.picklist(PORT_PROTOCOLS),
  port: v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535)))
})
export type PortWish = v.InferOutput<typeof portWishSchema>

const ticketRequestSchema = v.strictObject({
  node: principalSchema,
  resources: resourcesSchema,
  ports: v.pipe(v.array(portWishSchema), v.maxLength(LIMITS.portRangesPerTicketMax)),
  rights: rightsSchema,
  durationMs: v.pipe(amountSchema, v.minValue(1000), v.maxValue(LIMITS.leaseMsMax))
})
export type TicketRequest = v.InferOutput<typeof ticketRequestSchema>

const offerSchema = v.strictObject({
  /** The node's advertisement, an envelope. */
  advert: objectBytes,
  /** What this agent may still grant of the node. */
  available: resourcesSchema,
  /** UTC ms at which its delegation ends. */
  until: timeSchema
})
export type Offer = v.InferOutput<typeof offerSchema>

const grantSchema = v.strictObject({
  node: principalSchema,
  /** Envelopes, the node's delegation first; the last is the ticket granted. Absent when it was refused. */
  chain: v.exactOptional(v.pipe(v.array(objectBytes), v.minLength(2), v.maxLength(LIMITS.chainLinksMax + 1))),
  /** Envelope of the refusal. */
  refusal: v.exactOptional(objectBytes)
})
export type Grant = v.InferOutput<typeof grantSchema>

export const agentProtocol = {
  id: '/slicenet/agent/1.0.0',
  methods: {
    /** A node hands the agent a delegation; a later one replaces the earlier. */
    delegate: { params: v.strictObject({ delegation: objectBytes }), result: emptySchema },
    /** Streams what the agent holds: one offer a node. */
    getAds: { params: emptySchema, item: offerSchema, result: emptySchema },
    /** Grants or refuses each request by itself; one grant a request, in order. */
    getTickets: {
      params: v.strictObject({
        slice: sliceNameSchema,
        requests: v.pipe(
          v.array(ticketRequestSchema),
          v.minLength(1),
          v.maxLength(LIMITS.ticketsPerMessageMax)
        )
      }),
      result: v.strictObject({
        grants: v.pipe(v.array(grantSchema), v.maxLength(LIMITS.ticketsPerMessageMax))
      })
    },
    /** The holder gives holds back that it will not redeem; the agent cancels them at their nodes. */
    releaseTickets: {
      params: v.strictObject({
        tickets: v.pipe(v.array(idSchema), v.maxLength(LIMITS.ticketsPerMessageMax))
      }),
      result: emptySchema
    }
  }
} as const
