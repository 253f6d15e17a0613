/**
 * Who a vserver talks to for the first time: what a scan is made of. Such packets have a bucket of their own, and beyond a
 * number of new destinations a minute they are dropped.
 */
import { LIMITS } from '../../base/limits.ts'

/**
 * How long a destination is known after it was new. It is not kept for longer when there are more connections to it: so what
 * a vserver has in the set follows from how fast it may add to it.
 */
const KNOWN_FOR = '1h'
/** What may be added at once to those that a vserver has known, and in an hour beside it: of all that it may have. */
const KNOWN_AT_ONCE = 0.5
/** The part of a minute's worth that may come at once. */
const AT_ONCE = 0.25

/**
 * Sets and the chain `destinations`, for nft, within the table of vservers. `drop`: the verdict on what is too much; `classify`: rules that
 * put what is new in its class. There is room for what all vservers may have known; of one that knows as many as it may, others count
 * as new: they pass, as slowly and as rarely as new ones do.
 */
export function destinationRules(
  { destinationsPerMinute, knownDestinationsMax }: DestinationBounds,
  { drop, classify }: { readonly drop: string; readonly classify: readonly string[] }
): string {
  const room = knownDestinationsMax * LIMITS.linksPerNodeMax
  const known = (type: string): string =>
    `{ type ${type} . ${type}; flags dynamic, timeout; timeout ${KNOWN_FOR}; size ${room}; }`
  return `
  set destinations ${known('ipv4_addr')}
  set destinations6 ${known('ipv6_addr')}
  set known_rates { type ifname; flags dynamic, timeout; timeout ${KNOWN_FOR}; }
  # Whose lease allows less than the policy does.
  map fewer_destinations { type ifname : verdict; }
  set destination_rates { type ifname; flags dynamic, timeout; timeout 2m; }
  chain destinations {
    ip saddr . ip daddr @destinations return
    ip6 saddr . ip6 daddr @destinations6 return
    iifname vmap @fewer_destinations
    update @destination_rates { iifname ${rateOver(destinationsPerMinute)} } ${drop}
    # What is allowed counts as new whether or not it is remembered.
    ${classify.join('\n    ')}
    update @known_rates { iifname ${knownOver(knownDestinationsMax)} } return
    add @destinations { ip saddr . ip daddr }
    add @destinations6 { ip6 saddr . ip6 daddr }
  }`
}

/** What a vserver may have, for itself. */
export interface DestinationBounds {
  readonly destinationsPerMinute: number
  /** That it began to talk to within the last hour and that count as known. */
  readonly knownDestinationsMax: number
}

/** Of what was added in any hour, and so of what is there, this is never less than all. */
function knownOver(max: number): string {
  const atOnce = Math.floor(max * KNOWN_AT_ONCE)
  return `limit rate over ${max - atOnce}/hour burst ${atOnce} packets`
}

/** What may come at once and what is added in a minute are never more than the minute's worth together. */
function rateOver(perMinute: number): string {
  const atOnce = Math.floor(perMinute * AT_ONCE)
  return `limit rate over ${perMinute - atOnce}/minute burst ${atOnce} packets`
}

/** Lines for nft that hold a vserver to fewer new destinations a minute than the policy allows; none where it may have all. */
export function fewerDestinationsLines(
  { table, device, drop }: { readonly table: string; readonly device: string; readonly drop: string },
  perMinute: number | undefined
): string[] {
  if (perMinute === undefined) return []
  const chain = `${table} ${chainOf(device)}`
  return [
    `add chain ${chain}`,
    `flush chain ${chain}`,
    `add rule ${chain} ${rateOver(perMinute)} ${drop}`,
    `add element ${table} ${fewerOf(device)}`
  ]
}

/** Lines for nft that take this away again; adding first makes deleting certain. */
export function fewerDestinationsRemoval(
  table: string,
  device: string,
  perMinute: number | undefined
): string[] {
  if (perMinute === undefined) return []
  const chain = `${table} ${chainOf(device)}`
  return [
    `add chain ${chain}`,
    `add element ${table} ${fewerOf(device)}`,
    `delete element ${table} ${fewerOf(device)}`,
    `flush chain ${chain}`,
    `delete chain ${chain}`
  ]
}

function fewerOf(device: string): string {
  return `fewer_destinations { "${device}" : jump ${chainOf(device)} }`
}

function chainOf(device: string): string {
  return `new_of_${device}`
}

/** Lines for nft that forget how much a vserver has used of its minute and its hour; adding first makes deleting certain. */
export function destinationRateRemoval(
  table: string,
  device: string,
  { destinationsPerMinute, knownDestinationsMax }: DestinationBounds
): string[] {
  return [
    ['destination_rates', rateOver(destinationsPerMinute)],
    ['known_rates', knownOver(knownDestinationsMax)]
  ].flatMap(([set, limit]) => [
    `add element ${table} ${set} { "${device}" ${limit} }`,
    `delete element ${table} ${set} { "${device}" }`
  ])
}
