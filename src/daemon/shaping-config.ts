/** What a node's configuration says of the rates at which packets leave it, and whether they fit together. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { rateUnit } from '../base/units.ts'
import { DEFAULT_SHAPING, RATE_BPS_MIN, type ShapingPolicy } from '../enforce/network/rates.ts'
import type { UplinkInit } from '../enforce/network/uplink.ts'
import { DESTINATIONS_PER_MINUTE, EGRESS_SHARE, type Shaping } from '../ticket/shaping.ts'
import { amount } from './amount-schema.ts'

const rate = v.pipe(
  amount(rateUnit),
  v.minValue(RATE_BPS_MIN, `expected at least ${rateUnit.format(RATE_BPS_MIN)}`),
  v.maxValue(LIMITS.rateBpsMax, `expected at most ${rateUnit.format(LIMITS.rateBpsMax)}`)
)

const device = v.pipe(v.string(), v.minLength(1), v.maxLength(128))

/** An IPv6 address of the node, or that it has none. */
export const address6Schema = v.union([v.literal('none'), v.pipe(v.string(), v.ipv6())])

export interface UplinkConfig {
  readonly device?: string | undefined
  readonly address?: string | undefined
  readonly address6?: string | undefined
  /** Bits a second, both. */
  readonly rate: number
  readonly own: number
}

const uplinkFields = v.pipe(
  v.strictObject({
    /** Default: the device of the default route. */
    device: v.optional(device),
    /** The IPv4 address by which the world knows the node there. Default: the device's. */
    address: v.optional(v.pipe(v.string(), v.ipv4())),
    /** The same of IPv6; default: the first that the device has on the internet. */
    address6: v.optional(address6Schema),
    /** The administrator's cap on all that leaves by it, and what the node's own traffic is guaranteed of that. */
    rate: v.optional(rate, '100Mbps'),
    own: v.optional(rate)
  }),
  v.forward(
    v.check(({ rate, own }) => own === undefined || own <= rate, 'expected no more than rate'),
    ['own']
  ),
  v.transform(({ own, ...uplink }) => ({ ...uplink, own: own ?? Math.min(OWN_BPS, uplink.rate) }))
)

const OWN_BPS = 10_000_000

/** A name, or what is to hold of the uplink. */
const oneUplink = v.lazy((input): v.GenericSchema<unknown, UplinkConfig> =>
  typeof input === 'string'
    ? v.pipe(
        device,
        v.transform((name) => v.parse(uplinkFields, { device: name }))
      )
    : uplinkFields
)

const manyUplinks = v.pipe(
  v.array(oneUplink),
  v.minLength(1),
  v.maxLength(LIMITS.uplinksPerNodeMax),
  v.check(
    (uplinks) => areDistinct(uplinks.map((uplink) => uplink.device ?? '')),
    'expected every device once, and one at most without a device'
  ),
  v.check((uplinks) => {
    const six = uplinks.flatMap(({ address6 }) => (address6 === 'none' ? [] : (address6 ?? [])))
    return areDistinct([...uplinks.flatMap(({ address }) => address ?? []), ...six])
  }, 'expected every address once')
)

/** One or several, the first being that whose address the node is known by. */
export const uplinksSchema = v.lazy((input): v.GenericSchema<unknown, readonly UplinkConfig[]> =>
  Array.isArray(input)
    ? manyUplinks
    : v.pipe(
        oneUplink,
        v.transform((uplink) => [uplink])
      )
)

function areDistinct(values: readonly string[]): boolean {
  return new Set(values).size === values.length
}

interface Addressed {
  readonly uplink: readonly UplinkConfig[]
  readonly address?: string | undefined
  readonly address6?: string | undefined
}

/** Whether the node's address, which is the first uplink's, is another than that one has, or what a further one has. */
export function contradictsUplinks(node: Addressed, field: 'address' | 'address6'): boolean {
  const [first, ...others] = node.uplink
  const said = node[field]
  if (said === undefined) return false
  const isOthers = said !== 'none' && others.some((each) => each[field] === said)
  return isOthers || (first?.[field] ?? said) !== said
}

/** As the node's network takes them. */
export function uplinkInits({ uplink, ...node }: Addressed): readonly UplinkInit[] {
  return uplink.map(({ rate: rootBps, own: nodeBps, ...each }, at) => ({
    device: each.device,
    address: each.address ?? (at === 0 ? node.address : undefined),
    address6: each.address6 ?? (at === 0 || node.address6 === 'none' ? node.address6 : undefined),
    rootBps,
    nodeBps
  }))
}

/** What may be leased in all: every guarantee must fit on each uplink, beside what the node keeps for itself there. */
export function leasableBps({ uplink }: Pick<Addressed, 'uplink'>): number {
  return Math.min(...uplink.map(({ rate: root, own }) => root - own))
}

/** What one vserver can have at most by one of them. */
export function largestRootBps({ uplink }: Pick<Addressed, 'uplink'>): number {
  return Math.max(...uplink.map(({ rate: root }) => root))
}

function leastRootBps({ uplink }: Pick<Addressed, 'uplink'>): number {
  return Math.min(...uplink.map(({ rate: root }) => root))
}

/** Of each vserver: what may raise alarms elsewhere, at most, and its share of what is left. */
export const shapingSchema = v.strictObject({
  icmp: v.optional(rate),
  options: v.optional(rate),
  newDestinations: v.optional(rate),
  destinationsPerMinute: v.optional(
    v.pipe(
      v.number(),
      v.integer(),
      v.minValue(DESTINATIONS_PER_MINUTE.min),
      v.maxValue(DESTINATIONS_PER_MINUTE.max)
    )
  ),
  egressShare: v.optional(
    v.pipe(v.number(), v.integer(), v.minValue(EGRESS_SHARE.usual), v.maxValue(EGRESS_SHARE.max))
  )
})
export type ShapingConfig = v.InferOutput<typeof shapingSchema>

interface Rated {
  readonly uplink: readonly UplinkConfig[]
  readonly shaping: ShapingConfig
}

/** Whether one kind of packets may have more than there is. */
export function isAboveRoot(node: Rated, field: 'icmp' | 'options' | 'newDestinations'): boolean {
  return (node.shaping[field] ?? 0) > leastRootBps(node)
}

/** Whether more is to be leased than there is beside what the node keeps. */
export function leasesTooMuch(node: {
  readonly uplink: readonly UplinkConfig[]
  readonly capacity: { readonly egress?: number | undefined }
}): boolean {
  return (node.capacity.egress ?? 0) > leasableBps(node)
}

export function shapingPolicy(node: Rated): ShapingPolicy {
  const { shaping } = node
  const bounded = (bps: number): number => Math.min(bps, leastRootBps(node))
  return {
    icmpBps: shaping.icmp ?? bounded(DEFAULT_SHAPING.icmpBps),
    optionsBps: shaping.options ?? bounded(DEFAULT_SHAPING.optionsBps),
    newDestinationsBps: shaping.newDestinations ?? bounded(DEFAULT_SHAPING.newDestinationsBps),
    destinationsPerMinute: shaping.destinationsPerMinute ?? DEFAULT_SHAPING.destinationsPerMinute,
    egressShareMax: shaping.egressShare ?? DEFAULT_SHAPING.egressShareMax
  }
}

/** What is delegated to an agent: no larger share than the node keeps to itself. */
export function delegatedShaping(of: ShapingConfig | undefined, node: ShapingConfig): Shaping | undefined {
  const most = node.egressShare ?? EGRESS_SHARE.usual
  const egressShare = Math.min(of?.egressShare ?? most, most)
  const { egressShare: _said, ...bounds } = of ?? {}
  return shapingOf({ ...bounds, ...(egressShare > EGRESS_SHARE.usual ? { egressShare } : {}) })
}

/** As signed objects say it; `undefined` where nothing is said. */
export function shapingOf(config: ShapingConfig = {}): Shaping | undefined {
  const { icmp, options, newDestinations, destinationsPerMinute, egressShare } = config
  const amounts = {
    icmpBps: icmp,
    optionsBps: options,
    newDestinationsBps: newDestinations,
    destinationsPerMinute,
    egressShare
  }
  const said = Object.entries(amounts).filter(([, amount]) => amount !== undefined)
  return said.length === 0 ? undefined : Object.fromEntries(said)
}
