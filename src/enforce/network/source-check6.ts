/**
 * The source check of IPv6, on links of nodes that have it: from its own addresses a vserver sends TCP, UDP, echoes and ICMPv6
 * errors to one host, right behind a header without extensions. It asks for no neighbour and hears of no router, as
 * both ends of its link are fixed.
 */
import type { LinkPlan } from './address-plan.ts'

/** Headers behind which others may hide: of hop-by-hop and destination options, routes, fragments, AH, and rarer ones. */
export const EXTENSION_HEADERS: readonly number[] = [0, 43, 44, 51, 60, 135, 139, 140]
export const EXTENSIONS = `{ ${EXTENSION_HEADERS.join(', ')} }`
/** Unreachable, packet too big, time exceeded, parameter problem; echo request and reply. */
const ICMP_TYPES = '{ 1, 2, 3, 4, 128, 129 }'

type Refuse = (
  refusal: 'dhcp' | 'ra' | 'ipv6' | 'extension' | 'protocol' | 'length' | 'multicast' | 'broadcast'
) => string

/**
 * Chains that judge what the first did not let through: who comes back from one is refused. `atOnce`: first rules for what the
 * first chain has judged.
 */
export function chains6(
  refuse: Refuse,
  atOnce: readonly string[]
): Readonly<Record<string, readonly string[]>> {
  // What says something of routers, neighbours or groups, whoever sends it, and what hides something.
  const anybody = [
    // Kernels tell which groups they listen to behind such a header.
    `ip6 nexthdr 0 icmpv6 type { 130, 131, 132, 143 } ${refuse('ipv6')}`,
    `ip6 nexthdr ${EXTENSIONS} ${refuse('extension')}`,
    `icmpv6 type nd-router-advert ${refuse('ra')}`,
    `icmpv6 type { 130-133, 135-143 } ${refuse('ipv6')}`
  ]
  return {
    plain_six: [
      'ip6 nexthdr tcp ip6 length >= 20 tcp doff >= 5 accept',
      'ip6 nexthdr udp ip6 length >= 8 udp length >= 8 udp sport != 546-547 accept'
    ],
    foreign_six: anybody,
    judge_six: [
      ...atOnce,
      ...anybody,
      // Only where version and length fit the frame does nft know what the packet carries.
      'meta l4proto <= 255 goto judge_whole_six',
      refuse('length')
    ],
    judge_whole_six: [
      `ip6 nexthdr != { tcp, udp, icmpv6 } ${refuse('protocol')}`,
      `udp sport . udp dport { 546 . 547, 547 . 546, 547 . 547 } ${refuse('dhcp')}`,
      `ether daddr ff:ff:ff:ff:ff:ff ${refuse('broadcast')}`,
      `ip6 daddr ff00::/8 ${refuse('multicast')}`,
      `ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 ${refuse('multicast')}`,
      `ip6 length < 8 ${refuse('length')}`,
      `ip6 nexthdr tcp ip6 length < 20 ${refuse('length')}`,
      `tcp doff < 5 ${refuse('length')}`,
      `udp length < 8 ${refuse('length')}`,
      `icmpv6 type != ${ICMP_TYPES} ${refuse('ipv6')}`,
      'accept'
    ]
  }
}

/** What belongs to each link. */
export const OWN_SETS_6 = {
  addresses_six: 'ifname . ipv6_addr',
  plain_six: 'ifname . ether_addr . ether_addr . ipv6_addr'
}

export function ownElements6({
  device,
  address6,
  insideMac,
  hostMac
}: LinkPlan): Record<keyof typeof OWN_SETS_6, string> {
  return {
    addresses_six: `"${device}" . ${address6}`,
    plain_six: `"${device}" . ${hostMac} . ${insideMac} . ${address6}`
  }
}

/** For the first chain: rules for what is plain, a match of what has a foreign source, and rules that have the rest judged. */
export interface SixRules {
  readonly plain: readonly string[]
  readonly foreign: readonly string[]
  readonly judged: readonly string[]
}

export function sixRules(hasSix: boolean): SixRules {
  if (!hasSix) return { plain: [], foreign: [], judged: ['jump judge'] }
  return {
    plain: [
      'ether type ip6 ip6 daddr != ff00::/8 iifname . ether daddr . ether saddr . ip6 saddr @plain_six jump plain_six'
    ],
    foreign: ['ether type ip6 iifname . ip6 saddr != @addresses_six'],
    judged: ['ether type ip6 jump judge_six', 'ether type != ip6 jump judge']
  }
}
