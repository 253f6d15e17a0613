/**
 * Advertisements: what a node offers, and what an agent serves (paper §2.2). They are hints: the node decides at
 * redemption. They live minutes, so that who is gone is soon forgotten.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { byteString } from '../wire/codec.ts'
import { acceptsSchema } from './accepts.ts'
import { coordinateSchema } from './coordinate.ts'
import { imageIdSchema, resourcesSchema, rightsSchema } from './resource-schema.ts'
import { principalSchema } from './principal.ts'
import { EGRESS_SHARE } from './shaping.ts'
import { amountSchema, defineObject, signedEntries } from './signed-object.ts'

const multiaddrsSchema = v.pipe(v.array(v.pipe(v.string(), v.maxLength(256))), v.maxLength(16))
const nameSchema = v.pipe(
  v.string(),
  v.maxLength(64),
  v.regex(/^[\w.-]+$/, 'expected letters, digits, . _ -')
)

/** Facts by dotted-free names, such as `region`, `site`, `organisation`, `kernel`: text or integers. */
const attributesSchema = v.pipe(
  v.record(
    v.pipe(v.string(), v.regex(/^[a-z][a-zA-Z0-9_]{0,31}$/)),
    v.union([v.pipe(v.string(), v.maxLength(128)), v.pipe(v.number(), v.integer())])
  ),
  v.check((attributes) => Object.keys(attributes).length <= 32, 'expected at most 32 attributes')
)

/** Envelopes of memberships that a principal shows. */
export const membershipsSchema = v.pipe(
  v.array(byteString(1, LIMITS.membershipBytesMax)),
  v.maxLength(LIMITS.membershipsShownMax)
)

const common = {
  ...signedEntries,
  /** A name for people; it proves nothing. */
  name: nameSchema,
  /** Counts restarts: a larger epoch is a node that began anew. */
  epoch: amountSchema,
  multiaddrs: multiaddrsSchema,
  attributes: attributesSchema,
  /** Whom it serves; everybody when absent. */
  accepts: v.exactOptional(acceptsSchema),
  /** Envelopes of memberships: the organisations that vouch for it. */
  memberships: v.exactOptional(membershipsSchema),
  /** It goes away in order: whoever hears this counts it no more, until it says something newer. */
  leaving: v.exactOptional(v.literal(true))
}

const imageNameSchema = v.pipe(v.string(), v.regex(/^[a-z0-9][a-z0-9.-]{0,63}$/))

/** Whether adverts can tell of an image of that name; the store of a node takes others as well. */
export function canAdvertiseImage(name: string): boolean {
  return v.is(imageNameSchema, name) && name !== 'constructor' && name !== 'prototype'
}

const nodeSchema = v.strictObject({
  ...common,
  role: v.literal('node'),
  capacity: resourcesSchema,
  /** What no lease holds now. */
  free: resourcesSchema,
  /**
   * How much of its capacity the node has delegated to all agents together, at most, in percent: above 100 it overbooks
   * itself, and says so.
   */
  delegatedPercent: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(100_000)),
  /** Images that it has: content ids by name. */
  images: v.pipe(
    v.record(imageNameSchema, imageIdSchema),
    v.check((images) => Object.keys(images).length <= 16, 'expected at most 16 images')
  ),
  /** The agents that this node delegates to. */
  agents: v.pipe(v.array(principalSchema), v.maxLength(LIMITS.agentsPerNodeMax)),
  /** Rights that it leases; none when absent. */
  rights: v.exactOptional(rightsSchema),
  /** The largest share of what is left on its uplink that it leases; 1 when absent. */
  egressShare: v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(EGRESS_SHARE.max))),
  /** Who may hold administrative slices on it, whatever its agents grant; nobody when absent. */
  administrators: v.exactOptional(
    v.pipe(v.array(principalSchema), v.maxLength(LIMITS.administratorsPerNodeMax))
  ),
  /** Where it is in the network, by its own measurements. */
  coordinate: v.exactOptional(coordinateSchema)
})

const agentSchema = v.strictObject({
  ...common,
  role: v.literal('agent'),
  /** Nodes whose delegation it holds now. */
  nodes: amountSchema,
  /** Values of `region` and `organisation` among the nodes it serves, so that others know what to listen to. */
  regions: v.pipe(v.array(v.pipe(v.string(), v.maxLength(64))), v.maxLength(64)),
  organisations: v.pipe(v.array(v.pipe(v.string(), v.maxLength(64))), v.maxLength(64))
})

/** The attribute of a node that fetches what images it lacks when a ticket is redeemed: `yes`. */
export const FETCHES_IMAGES = 'fetchesImages'

export type NodeAdvertisement = v.InferOutput<typeof nodeSchema>
export type AgentAdvertisement = v.InferOutput<typeof agentSchema>
export type Advertisement = NodeAdvertisement | AgentAdvertisement

export const advertisementObject = defineObject<Advertisement>(
  'advertisement',
  v.variant('role', [nodeSchema, agentSchema])
)
