/** What a node's configuration says of the rates at which packets leave it, and whether they fit together. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { rateUnit } from '../base/units.ts'
import { DEFAULT_SHAPING, RATE_BPS_MIN, type ShapingPolicy } from '../enforce/network/rates.ts'
import { DESTINATIONS_PER_MINUTE, EGRESS_SHARE, type Shaping } from '../ticket/shaping.ts'
import { amount } from './amount-schema.ts'

const rate = v.pipe(
  amount(rateUnit),
  v.minValue(RATE_BPS_MIN, `expected at least ${rateUnit.format(RATE_BPS_MIN)}`),
  v.maxValue(LIMITS.rateBpsMax, `expected at most ${rateUnit.format(LIMITS.rateBpsMax)}`)
)

export const uplinkSchema = v.pipe(
  v.strictObject({
    /** Default: the device of the default route. */
    device: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(128))),
    /** The administrator's cap on all that leaves the node, and what its own traffic is guaranteed of it. */
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
  readonly uplink: { readonly rate: number }
  readonly shaping: ShapingConfig
}

/** Whether one kind of packets may have more than there is. */
export function isAboveRoot(
  { uplink, shaping }: Rated,
  field: 'icmp' | 'options' | 'newDestinations'
): boolean {
  return (shaping[field] ?? 0) > uplink.rate
}

/** Whether more is to be leased than there is beside what the node keeps. */
export function leasesTooMuch(node: {
  readonly uplink: { readonly rate: number; readonly own: number }
  readonly capacity: { readonly egress?: number | undefined }
}): boolean {
  return (node.capacity.egress ?? 0) > node.uplink.rate - node.uplink.own
}

export function shapingPolicy({ uplink, shaping }: Rated): ShapingPolicy {
  const bounded = (bps: number): number => Math.min(bps, uplink.rate)
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
