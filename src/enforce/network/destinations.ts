/**
 * Who a vserver talks to for the first time: what a scan is made of. Such packets have a bucket of their own, and beyond a
 * number of new destinations a minute they are dropped.
 */
import { NODE_TABLE } from './owned-ports.ts'

/** How long a destination is known after the last connection to it was begun. */
const KNOWN_FOR = '1h'
/**
 * Pairs of vserver and destination that the node remembers, some 30 MB of the kernel's memory. When it is full, destinations
 * are taken for new that are not: they pass, as slowly and as rarely as new ones do.
 */
const KNOWN_MAX = 262_144
/** The part of a minute's worth that may come at once. */
const AT_ONCE = 0.25

/** Sets and the chain `destinations`, for nft, within the node's table. `drop`: the verdict on what is too much. */
export function destinationRules(perMinute: number, drop: string, ip: 'ip' | 'ip6' = 'ip'): string {
  const type = ip === 'ip' ? 'ipv4_addr' : 'ipv6_addr'
  return `
  set destinations { type ${type} . ${type}; flags dynamic, timeout; timeout ${KNOWN_FOR}; size ${KNOWN_MAX}; }
  # Whose lease allows less than the policy does.
  map fewer_destinations { type ${type} : verdict; }
  set destination_rates { type ${type}; flags dynamic, timeout; timeout 2m; }
  chain destinations {
    ${ip} saddr . ${ip} daddr @destinations update @destinations { ${ip} saddr . ${ip} daddr } return
    ${ip} saddr vmap @fewer_destinations
    update @destination_rates { ${ip} saddr ${rateOver(perMinute)} } ${drop}
    # What is allowed counts as new whether or not there is room to remember it.
    add @destinations { ${ip} saddr . ${ip} daddr }
    meta priority set ${ip} saddr map @new_class
  }`
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

/** Lines for nft that forget how much a vserver has used of its minute; adding first makes deleting certain. */
export function destinationRateRemoval(address: string, perMinute: number, table = NODE_TABLE): string[] {
  const set = `element ${table} destination_rates`
  return [`add ${set} { ${address} limit rate over ${perMinute}/minute }`, `delete ${set} { ${address} }`]
}
