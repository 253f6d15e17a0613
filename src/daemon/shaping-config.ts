/** What a node's configuration says of the rates at which packets leave it, and whether they fit together. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { rateUnit } from '../base/units.ts'
import { DEFAULT_SHAPING, RATE_BPS_MIN, type ShapingPolicy } from '../enforce/network/rates.ts'
import { DESTINATIONS_PER_MINUTE } from '../enforce/network/destinations.ts'
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

/** Of each vserver: what may raise alarms elsewhere, at most. */
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
  )
})
type ShapingConfig = v.InferOutput<typeof shapingSchema>

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
    destinationsPerMinute: shaping.destinationsPerMinute ?? DEFAULT_SHAPING.destinationsPerMinute
  }
}
