/**
 * How peers exchange adverts and proofs of fraud directly (design §4): one names what it knows, the other sends what is
 * newer and says what it lacks itself. Gossip alone loses peers that were away.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { FRAUD_KINDS } from '../ticket/fraud-proof.ts'
import { amountSchema } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'
import { emptySchema } from './agent-protocol.ts'

/** So many of the largest fit in one message. */
export const ADVERTS_PER_PUSH = 12

const advertBytes = byteString(1, LIMITS.objectBytesMax)

/** An advert's place in a directory: `<peer id>/<role>`. Exchanges run through these in their byte order. */
const advertKeySchema = v.pipe(
  v.string(),
  v.regex(/^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}\/(node|agent)$/, 'expected <peer id>/<role>')
)

/** A fraud that there is a proof of: `<kind>/<peer id of the accused>`. */
const proofKeySchema = v.pipe(
  v.string(),
  v.regex(
    new RegExp(`^(?:${FRAUD_KINDS.join('|')})/12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$`),
    'expected <kind>/<peer id>'
  )
)
const bundleBytes = byteString(1, LIMITS.proofBytesMax)

/** The topics whose adverts a peer gathers; everything when absent. */
const topicsSchema = v.exactOptional(
  v.pipe(v.array(v.pipe(v.string(), v.maxLength(LIMITS.topicCharsMax))), v.maxLength(LIMITS.topicsPerPeerMax))
)

const pullParamsSchema = v.strictObject({
  /** Only keys after this one; empty for the beginning. */
  after: v.union([v.literal(''), advertKeySchema]),
  /** The last key this page covers; null when it covers all that follow. */
  through: v.nullable(advertKeySchema),
  /** What the caller has in that range: key and sequence number, in the order of the keys. */
  digest: v.pipe(
    v.array(v.strictTuple([advertKeySchema, amountSchema])),
    v.maxLength(LIMITS.digestEntriesMax)
  ),
  /** What the caller would like to have, beside what nodes say that delegate to it. */
  topics: topicsSchema
})

const pullResultSchema = v.strictObject({
  /** The last key that the answer covers; null when it covers the page. The caller goes on after it. */
  through: v.nullable(advertKeySchema),
  /** Keys of the digest that the callee would like to have, as far as the answer covers. */
  wants: v.pipe(v.array(advertKeySchema), v.maxLength(LIMITS.digestEntriesMax))
})

export const directoryProtocol = {
  id: '/slicenet/directory/1.0.0',
  methods: {
    /** How much there is to pull, so that nobody sends a long digest to a peer that has one advert. */
    about: {
      params: emptySchema,
      result: v.strictObject({
        /** Whether it gathers the adverts of others: an agent or a broker. */
        collects: v.boolean(),
        adverts: amountSchema,
        /** What it gathers. */
        topics: topicsSchema
      })
    },
    /** Streams the adverts (envelopes) that the caller lacks or has older, at most `advertsPerMessageMax`. */
    pull: {
      params: pullParamsSchema,
      item: v.strictObject({ advert: advertBytes }),
      result: pullResultSchema
    },
    /** Hands adverts over. Those that are not valid, not new or too many are passed over. */
    publish: {
      params: v.strictObject({
        adverts: v.pipe(v.array(advertBytes), v.minLength(1), v.maxLength(ADVERTS_PER_PUSH))
      }),
      /** How many were news to the callee. */
      result: v.strictObject({ accepted: amountSchema })
    },
    /** The frauds that the callee has a proof of. */
    proofs: {
      params: emptySchema,
      result: v.strictObject({ keys: v.pipe(v.array(proofKeySchema), v.maxLength(LIMITS.proofsKeptMax)) })
    },
    /** Streams the proofs (bundles) of these, as far as the callee has them. */
    getProofs: {
      params: v.strictObject({
        keys: v.pipe(v.array(proofKeySchema), v.minLength(1), v.maxLength(LIMITS.proofsPerMessageMax))
      }),
      item: v.strictObject({ bundle: bundleBytes }),
      result: emptySchema
    },
    /** Hands a proof over that is too large for gossip. Throws `PROOF_INVALID`. */
    giveProof: {
      params: v.strictObject({ bundle: bundleBytes }),
      /** Whether it was news to the callee. */
      result: v.strictObject({ accepted: v.boolean() })
    }
  }
} as const
