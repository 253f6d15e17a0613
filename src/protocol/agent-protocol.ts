/** What is said to agents (paper §4.2.2): nodes delegate to them, brokers ask what they have and for tickets. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { membershipsSchema } from '../ticket/advertisement.ts'
import { portMax, PORT_PROTOCOLS } from '../ticket/ports.ts'
import { principalSchema } from '../ticket/principal.ts'
import { resourcesSchema, rightsSchema, shapingSchema, sliceNameSchema } from '../ticket/resource-schema.ts'
import { amountSchema, idSchema, timeSchema } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'

const objectBytes = byteString(1, LIMITS.objectBytesMax)
export const emptySchema = v.strictObject({})
/** CEL over one advertisement. */
export const querySchema = v.pipe(v.string(), v.maxLength(LIMITS.queryCharsMax))

const portNumberSchema = v.pipe(v.number(), v.integer(), v.minValue(1))

/** A port asked for: a number, or any that is free when absent; with `last`, all from `port` to that. */
export const portWishSchema = v.pipe(
  v.strictObject({
    protocol: v.picklist(PORT_PROTOCOLS),
    port: v.exactOptional(portNumberSchema),
    last: v.exactOptional(portNumberSchema)
  }),
  v.check(
    ({ port, last }) => last === undefined || (port !== undefined && port < last),
    'expected last to be larger than port'
  ),
  v.check(
    ({ protocol, port = 1, last = port }) => last <= portMax(protocol),
    'expected a number that the protocol has'
  )
)
export type PortWish = v.InferOutput<typeof portWishSchema>

const ticketRequestSchema = v.strictObject({
  node: principalSchema,
  resources: resourcesSchema,
  ports: v.pipe(v.array(portWishSchema), v.maxLength(LIMITS.portRangesPerTicketMax)),
  rights: rightsSchema,
  /** What it asks to be held to; of the rest the agent says what is the most. */
  shaping: v.exactOptional(shapingSchema),
  durationMs: v.pipe(amountSchema, v.minValue(1000), v.maxValue(LIMITS.leaseMsMax)),
  /** Id of the first ticket of the line that this one is to go on with, to renew its lease: ports stay as they are. */
  supersedes: v.exactOptional(idSchema),
  /** Whether the holder, another agent, wants to cut tickets from it. */
  canDelegate: v.exactOptional(v.boolean())
})
export type TicketRequest = v.InferOutput<typeof ticketRequestSchema>

const permilleSchema = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(1000))

const ratingSchema = v.strictObject({ agent: principalSchema, reliability: permilleSchema })
export type Rating = v.InferOutput<typeof ratingSchema>

/** What became of a ticket: the holder's demand, and the node's lease or signed refusal. */
const receiptSchema = v.strictObject({
  redeem: objectBytes,
  lease: v.exactOptional(objectBytes),
  refusal: v.exactOptional(objectBytes)
})
export type Receipt = v.InferOutput<typeof receiptSchema>

const offerSchema = v.strictObject({
  /** The node's advertisement, an envelope. */
  advert: objectBytes,
  /** What this agent may still grant of the node. */
  available: resourcesSchema,
  /** UTC ms at which its delegation ends. */
  until: timeSchema,
  /** How often, by the receipts that this agent has seen, the node kept to tickets of late: 0 to 1000 of 1000. */
  reliability: permilleSchema
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
  signsRefusals: true,
  methods: {
    /**
     * A node hands the agent a delegation; a later one replaces the earlier. The agent takes it only if it counts every
     * ticket that still counts, and none that the agent does not know; else it says which, and the node makes another.
     */
    delegate: {
      params: v.strictObject({ delegation: objectBytes }),
      result: v.strictObject({
        taken: v.boolean(),
        /** Envelopes of tickets that it must count as well. */
        lacking: v.pipe(v.array(objectBytes), v.maxLength(LIMITS.ticketsPerMessageMax)),
        /** Ids that it must not count. */
        unknown: v.pipe(v.array(idSchema), v.maxLength(LIMITS.countedTicketsMax))
      })
    },
    /**
     * Streams what the agent holds of the nodes that match, all without a query: one offer a node. Then what it thinks
     * of other agents whose tickets it had. Throws `QUERY_INVALID`.
     */
    getAds: {
      params: v.strictObject({ query: v.exactOptional(querySchema) }),
      item: offerSchema,
      result: v.strictObject({ ratings: v.pipe(v.array(ratingSchema), v.maxLength(LIMITS.ratingsMax)) })
    },
    /** Grants or refuses each request by itself; one grant a request, in order. */
    getTickets: {
      params: v.strictObject({
        /** Absent where every request is for a ticket to cut others from. */
        slice: v.exactOptional(sliceNameSchema),
        /** Who vouches for the caller, for agents whose policy asks. */
        memberships: v.exactOptional(membershipsSchema),
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
    /** A holder tells what became of tickets of this agent, so that it knows how far its nodes can be relied on. */
    report: {
      params: v.strictObject({
        receipts: v.pipe(v.array(receiptSchema), v.minLength(1), v.maxLength(LIMITS.receiptsPerMessageMax))
      }),
      result: emptySchema
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
