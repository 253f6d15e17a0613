/** What is said to brokers (paper §2.2): which nodes match, and which of them would make a slice, without taking any. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { principalSchema } from '../ticket/principal.ts'
import { resourcesSchema, rightsSchema, shapingSchema } from '../ticket/resource-schema.ts'
import { amountSchema } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'
import { emptySchema, portWishSchema, querySchema } from './agent-protocol.ts'

export const attributeNameSchema = v.pipe(
  v.string(),
  v.regex(/^[a-z][a-zA-Z0-9_]{0,31}$/, 'expected the name of an attribute')
)
export const DISTINCT_MAX = 4

/** How the members of a slice are to lie to one another. */
export const placementEntries = {
  /** No two members have the same value of any of these attributes. */
  distinct: v.exactOptional(v.pipe(v.array(attributeNameSchema), v.minLength(1), v.maxLength(DISTINCT_MAX))),
  /** Members are spread as evenly as can be over the values of this attribute. */
  spread: v.exactOptional(attributeNameSchema),
  /** CEL over one advertisement that gives a number: nodes with more are preferred. */
  rank: v.exactOptional(querySchema),
  /** CEL that holds for every two members: over `a` and `b`, each as `node` in a query, and `rtt_ms` between them. */
  pairwise: v.exactOptional(querySchema)
}

/** What a slice needs of nodes. */
export const wantSchema = v.strictObject({
  count: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(LIMITS.sliceMembersMax)),
  minimum: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(LIMITS.sliceMembersMax)),
  query: v.exactOptional(querySchema),
  ...placementEntries,
  resources: resourcesSchema,
  ports: v.pipe(v.array(portWishSchema), v.maxLength(LIMITS.portRangesPerTicketMax)),
  rights: rightsSchema,
  shaping: v.exactOptional(shapingSchema),
  durationMs: v.pipe(amountSchema, v.minValue(1000), v.maxValue(LIMITS.leaseMsMax)),
  /** A name that nodes know, or `sha256:<hex>`. */
  image: v.exactOptional(v.pipe(v.string(), v.minLength(1), v.maxLength(128)))
})
export type Want = v.InferOutput<typeof wantSchema>

/** A condition that does not hold, and what was there instead; no value where there is none. */
export const failedClauseSchema = v.strictObject({
  clause: v.pipe(v.string(), v.maxLength(LIMITS.queryCharsMax + 64)),
  value: v.exactOptional(v.pipe(v.string(), v.maxLength(256)))
})
export type FailedClause = v.InferOutput<typeof failedClauseSchema>

const nodeEntries = { node: principalSchema, name: v.pipe(v.string(), v.maxLength(64)) }

export const plannedMemberSchema = v.strictObject({
  ...nodeEntries,
  /** From whom a ticket would be asked. */
  agent: principalSchema,
  /** What `rank` gave, as text: messages have integers only. */
  rank: v.exactOptional(v.pipe(v.string(), v.maxLength(64)))
})
export type PlannedMember = v.InferOutput<typeof plannedMemberSchema>

/** A node that is not a member, with every clause that fails; none when it is only not needed. */
export const rejectionSchema = v.strictObject({
  ...nodeEntries,
  failed: v.pipe(v.array(failedClauseSchema), v.maxLength(LIMITS.failedClausesMax))
})
export type Rejection = v.InferOutput<typeof rejectionSchema>

export const planResultSchema = v.strictObject({
  /** Whether there are as many members as the slice needs at least. */
  satisfiable: v.boolean(),
  /** Why it is not, in a sentence. */
  reason: v.exactOptional(v.pipe(v.string(), v.maxLength(1024)))
})

export interface Plan extends v.InferOutput<typeof planResultSchema> {
  readonly members: readonly PlannedMember[]
  readonly rejections: readonly Rejection[]
}

export const brokerProtocol = {
  id: '/slicenet/broker/1.0.0',
  methods: {
    /** Streams the adverts (envelopes) of the nodes that match. Throws `QUERY_INVALID`. */
    getAds: {
      params: v.strictObject({ query: v.exactOptional(querySchema) }),
      item: v.strictObject({ advert: byteString(1, LIMITS.objectBytesMax) }),
      result: emptySchema
    },
    /** Streams the members that a slice would have, and the nodes that it would not. Nothing is held. Throws `QUERY_INVALID`. */
    plan: {
      params: v.strictObject({ want: wantSchema }),
      item: v.strictObject({
        member: v.exactOptional(plannedMemberSchema),
        rejection: v.exactOptional(rejectionSchema)
      }),
      result: planResultSchema
    }
  }
} as const
