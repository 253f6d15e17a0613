/**
 * What a ticket or lease says of the network beyond amounts: how much its holder may send of what raises alarms elsewhere,
 * and its share of what nobody is guaranteed (paper §3.3, design §5). All of it may be absent; from link to link of a chain
 * it only narrows. Pure.
 */

/**
 * In the order they are printed. `…Bps` are bits a second. `icmpBps`, `optionsBps` (packets with IP options),
 * `newDestinationsBps` (first packets to destinations that are new) and `destinationsPerMinute` (how many may be new) bound
 * what the node's policy allows. `egressShare` weighs who gets how much of what is left on a full uplink.
 */
export const SHAPING_NAMES = [
  'icmpBps',
  'optionsBps',
  'newDestinationsBps',
  'destinationsPerMinute',
  'egressShare'
] as const
export type ShapingName = (typeof SHAPING_NAMES)[number]
/** An absent bound is the node's policy's, an absent share is 1. */
export type Shaping = Readonly<Partial<Record<ShapingName, number>>>

/** The least rate: HTB knows none of zero. */
export const SHAPING_BPS_MIN = 8000
/** The least and most new destinations that can be allowed. */
export const DESTINATIONS_PER_MINUTE = { min: 8, max: 1_000_000 } as const
/** Of who says nothing, and the most. */
export const EGRESS_SHARE = { usual: 1, max: 32 } as const

/** What an amount comes to: where nothing is said, no bound at all, and the usual share. */
function meant(shaping: Shaping | undefined, name: ShapingName): number {
  return shaping?.[name] ?? (name === 'egressShare' ? EGRESS_SHARE.usual : Number.POSITIVE_INFINITY)
}

/** The names of which `a` allows more than `b`; empty when `a` fits within `b`. */
export function shapingExceeding(a: Shaping | undefined, b: Shaping | undefined): ShapingName[] {
  return SHAPING_NAMES.filter((name) => meant(a, name) > meant(b, name))
}

/** The names of which the two say something else. */
export function shapingDiffering(a: Shaping | undefined, b: Shaping | undefined): ShapingName[] {
  return SHAPING_NAMES.filter((name) => meant(a, name) !== meant(b, name))
}

/** `asked`, with the bounds of `limits` where nothing is asked; the tightest of several. A share is never more than asked for. */
export function shapingWithin(
  asked: Shaping | undefined,
  ...limits: readonly (Shaping | undefined)[]
): Shaping | undefined {
  const entries = SHAPING_NAMES.flatMap((name): [ShapingName, number][] => {
    const wanted = asked?.[name]
    if (wanted !== undefined) return [[name, wanted]]
    if (name === 'egressShare') return []
    const least = Math.min(...limits.map((limit) => meant(limit, name)))
    return Number.isFinite(least) ? [[name, least]] : []
  })
  return entries.length === 0 ? undefined : Object.fromEntries(entries)
}

/** What `a` allows of `name` where `b` allows less, in words; for refusals. */
export function shapingExcess(name: ShapingName, a: Shaping | undefined, b: Shaping | undefined): string {
  const [has, had] = [meant(a, name), meant(b, name)]
  return `${name} is ${Number.isFinite(has) ? has : 'not bounded'} where ${had} is allowed`
}
