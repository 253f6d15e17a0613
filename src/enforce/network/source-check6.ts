/**
 * The source check of IPv6, on links of nodes that have it: from its own addresses a vserver sends TCP, UDP, echoes and ICMPv6
 * errors to one host, right behind a header without extensions. It asks for no neighbour and hears of no router, as
 * both ends of its link are fixed.
 */
import type { LinkPlan } from './address-plan.ts'

/** Headers behind which others may hide: of hop-by-hop and destination options, routes, fragments, AH, and rarer ones. */
export const EXTENSIONS = '{ 0, 43, 44, 51, 60, 135, 139, 140 }'
/** Unreachable, packet too big, time exceeded, parameter problem; echo request and reply. */
const ICMP_TYPES = '{ 1, 2, 3, 4, 128, 129 }'
const refuse = (refusal: string): string => `goto refuse_${refusal}`

/** What says something of routers, neighbours or groups, whoever sends it, and what hides something. */
const ANYBODY = [
  // Kernels tell which groups they listen to behind such a header.
  `ip6 nexthdr 0 icmpv6 type { 130, 131, 132, 143 } ${refuse('ipv6')}`,
  `ip6 nexthdr ${EXTENSIONS} ${refuse('extension')}`,
  `icmpv6 type nd-router-advert ${refuse('ra')}`,
  `icmpv6 type { 130-133, 135-143 } ${refuse('ipv6')}`
]

/** Chains that judge what the links' own did not let through; each ends every packet. */
export const SHARED_CHAINS_6: Readonly<Record<string, readonly string[]>> = {
  foreign_six: [...ANYBODY, refuse('source')],
  judge_six: [
    ...ANYBODY,
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

/** Rules of a link's own chain: what is plain, and what is to be judged; behind the check of the source's MAC. */
export function linkRules6({ address6, insideMac, hostMac }: LinkPlan): {
  plain: string[]
  judged: string[]
} {
  const plain = `ether daddr ${hostMac} ether saddr ${insideMac} ether type ip6 ip6 saddr ${address6} ip6 daddr != ff00::/8`
  return {
    plain: [
      `${plain} ip6 nexthdr tcp ip6 length >= 20 tcp doff >= 5 accept`,
      `${plain} ip6 nexthdr udp ip6 length >= 8 udp length >= 8 udp sport != 546-547 accept`
    ],
    judged: [`ether type ip6 ip6 saddr != ${address6} goto foreign_six`, 'ether type ip6 goto judge_six']
  }
}
