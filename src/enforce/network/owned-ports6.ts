/**
 * The owner table of IPv6: who owns a port or ICMP identifier of the node's IPv4 address owns it of its IPv6 address, too. GRE
 * keys are of IPv4 alone.
 */
import { SHAPING_MAJOR } from './address-plan.ts'
import { elementLine, interval, mergeRanges, protocolNumber, type Ownership } from './owned-ports.ts'
import type { PortRange } from '../../ticket/ports.ts'

export const NODE_TABLE_6 = 'ip6 slicenet'

/** As in `OWNER_SETS`; the packet that an ICMPv6 error is about begins with a header of 40 bytes. */
export const OWNER_SETS_6 = `
  map owner { type inet_proto . inet_service : ipv6_addr; flags interval; }
  map inner_owner { typeof @th,112,8 . @th,384,16 : ip6 daddr; flags interval; }
  map icmp_owner { typeof icmpv6 id : ip6 daddr; flags interval; }
  set owned { type ipv6_addr . inet_proto . inet_service; flags interval; }
  set icmp_owned { typeof ip6 saddr . icmpv6 id; flags interval; }
  set taken { type inet_proto . inet_service; flags interval; }
  set icmp_taken { typeof icmpv6 id; flags interval; }
  set inside { type ipv6_addr; }
  set itself { type ipv6_addr . ipv6_addr; }
  map class { typeof ip6 saddr : meta priority; }
  map icmp_class { typeof ip6 saddr : meta priority; }`

const element = (verb: 'add' | 'delete', set: string, key: string, value?: string): string =>
  elementLine(verb, set, key, value, NODE_TABLE_6)

/** Lines for nft that `add` or `delete` all elements of a link. */
export function ownershipLines6(verb: 'add' | 'delete', ownership: Ownership): string[] {
  const { address6, dataClass, icmpClass } = ownership.plan
  return [
    element(verb, 'inside', address6),
    element(verb, 'itself', `${address6} . ${address6}`),
    element(verb, 'class', address6, `${SHAPING_MAJOR}:${dataClass}`),
    element(verb, 'icmp_class', address6, `${SHAPING_MAJOR}:${icmpClass}`),
    ...portLines6(verb, ownership)
  ]
}

/** Lines for nft that `add` or `delete` the elements of a link's ports alone. */
export function portLines6(verb: 'add' | 'delete', { plan, ports }: Ownership): string[] {
  const { address6 } = plan
  return mergeRanges(ports).flatMap((range) => {
    const numbers = interval(range)
    if (range.protocol === 'gre') return []
    if (range.protocol === 'icmp') {
      return [
        element(verb, 'icmp_owner', numbers, address6),
        element(verb, 'icmp_owned', `${address6} . ${numbers}`),
        element(verb, 'icmp_taken', numbers)
      ]
    }
    return [
      element(verb, 'owner', `${range.protocol} . ${numbers}`, address6),
      element(verb, 'inner_owner', `${protocolNumber(range)} . ${numbers}`, address6),
      element(verb, 'owned', `${address6} . ${range.protocol} . ${numbers}`),
      element(verb, 'taken', `${range.protocol} . ${numbers}`)
    ]
  })
}

/** Lines for nft that keep vservers from sending from the node's own ports. */
export function reservedLines6(reserved: readonly PortRange[]): string[] {
  return mergeRanges(reserved).flatMap((range) => {
    if (range.protocol === 'gre') return []
    return range.protocol === 'icmp'
      ? [element('add', 'icmp_taken', interval(range))]
      : [element('add', 'taken', `${range.protocol} . ${interval(range)}`)]
  })
}
