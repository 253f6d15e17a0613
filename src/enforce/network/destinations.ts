/**
 * Who a vserver talks to for the first time: what a scan is made of. Such packets have a bucket of their own, and beyond a
 * number of new destinations a minute they are dropped.
 */
import { LIMITS } from '../../base/limits.ts'
import { NODE_TABLE } from './owned-ports.ts'

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
 * Sets and the chain `destinations`, for nft, within the node's table. `drop`: the verdict on what is too much. There is
 * room for what all vservers may have known; of one that knows as many as it may, others count as new: they pass, as slowly
 * and as rarely as new ones do.
 */
export function destinationRules(
  { destinationsPerMinute, knownDestinationsMax }: DestinationBounds,
  drop: string,
  ip: 'ip' | 'ip6' = 'ip'
): string {
  const type = ip === 'ip' ? 'ipv4_addr' : 'ipv6_addr'
  const room = knownDestinationsMax * LIMITS.linksPerNodeMax
  return `
  set destinations { type ${type} . ${type}; flags dynamic, timeout; timeout ${KNOWN_FOR}; size ${room}; }
  set known_rates { type ${type}; flags dynamic, timeout; timeout ${KNOWN_FOR}; }
  # Whose lease allows less than the policy does.
  map fewer_destinations { type ${type} : verdict; }
  set destination_rates { type ${type}; flags dynamic, timeout; timeout 2m; }
  chain destinations {
    ${ip} saddr . ${ip} daddr @destinations return
    ${ip} saddr vmap @fewer_destinations
    update @destination_rates { ${ip} saddr ${rateOver(destinationsPerMinute)} } ${drop}
    # What is allowed counts as new whether or not it is remembered.
    meta priority set ${ip} saddr map @new_class
    update @known_rates { ${ip} saddr ${knownOver(knownDestinationsMax)} } return
    add @destinations { ${ip} saddr . ${ip} daddr }
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

/** Whose new destinations are counted, and in which table. */
export interface DestinationHolder {
  readonly device: string
  /** Of the table's family. */
  readonly address: string
  readonly table: string
}

/** Lines for nft that hold a vserver to fewer new destinations a minute than the policy allows; none where it may have all. */
export function fewerDestinationsLines(
  { device, address, table }: DestinationHolder,
  perMinute: number | undefined,
  drop: string
): string[] {
  if (perMinute === undefined) return []
  const chain = `${table} ${chainOf(device)}`
  return [
    `add chain ${chain}`,
    `flush chain ${chain}`,
    `add rule ${chain} ${rateOver(perMinute)} ${drop}`,
    `add element ${table} fewer_destinations { ${address} : jump ${chainOf(device)} }`
  ]
}

/** Lines for nft that take this away again; adding first makes deleting certain. */
export function fewerDestinationsRemoval(
  { device, address, table }: DestinationHolder,
  perMinute: number | undefined
): string[] {
  if (perMinute === undefined) return []
  const chain = `${table} ${chainOf(device)}`
  const element = `element ${table} fewer_destinations { ${address} : jump ${chainOf(device)} }`
  return [
    `add chain ${chain}`,
    `add ${element}`,
    `delete ${element}`,
    `flush chain ${chain}`,
    `delete chain ${chain}`
  ]
}

function chainOf(device: string): string {
  return `new_of_${device}`
}

/** Lines for nft that forget how much a vserver has used of its minute and its hour; adding first makes deleting certain. */
export function destinationRateRemoval(
  address: string,
  { destinationsPerMinute, knownDestinationsMax }: DestinationBounds,
  table = NODE_TABLE
): string[] {
  return [
    ['destination_rates', rateOver(destinationsPerMinute)],
    ['known_rates', knownOver(knownDestinationsMax)]
  ].flatMap(([set, limit]) => [
    `add element ${table} ${set} { ${address} ${limit} }`,
    `delete element ${table} ${set} { ${address} }`
  ])
}
