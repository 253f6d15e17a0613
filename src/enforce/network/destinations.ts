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

/** The least and most that a node can allow. */
export const DESTINATIONS_PER_MINUTE = { min: 8, max: 1_000_000 } as const

/** Sets and the chain `destinations`, for nft, within the node's table. `drop`: the verdict on what is too much. */
export function destinationRules(perMinute: number, drop: string, ip: 'ip' | 'ip6' = 'ip'): string {
  const type = ip === 'ip' ? 'ipv4_addr' : 'ipv6_addr'
  // What may come at once and what is added in a minute are never more than the minute's worth together.
  const atOnce = Math.floor(perMinute * AT_ONCE)
  return `
  set destinations { type ${type} . ${type}; flags dynamic, timeout; timeout ${KNOWN_FOR}; size ${KNOWN_MAX}; }
  set destination_rates { type ${type}; flags dynamic, timeout; timeout 2m; }
  chain destinations {
    ${ip} saddr . ${ip} daddr @destinations update @destinations { ${ip} saddr . ${ip} daddr } return
    update @destination_rates { ${ip} saddr limit rate over ${perMinute - atOnce}/minute burst ${atOnce} packets } ${drop}
    # What is allowed counts as new whether or not there is room to remember it.
    add @destinations { ${ip} saddr . ${ip} daddr }
    meta priority set ${ip} saddr map @new_class
  }`
}

/** Lines for nft that forget how much a vserver has used of its minute; adding first makes deleting certain. */
export function destinationRateRemoval(address: string, perMinute: number, table = NODE_TABLE): string[] {
  const set = `element ${table} destination_rates`
  return [`add ${set} { ${address} limit rate over ${perMinute}/minute }`, `delete ${set} { ${address} }`]
}
