/**
 * The source check: an allowlist on the host's end of each link, in a netdev ingress chain, so that it sees every frame a
 * vserver can make, whatever it made it with (design §5: the same rules inside the vserver leaked every spoofed packet).
 * A link's chain lets through what is plain and its own; the rest is judged by chains that all links share.
 */
import type { LinkPlan } from './address-plan.ts'
import { COUNT_MARKED_DROP, dropCountsRemoval, dropCountsSet, markedBy } from './drop-counts.ts'
import { GRE_CHECK, greCheckLines } from './gre-keys.ts'
import { EXTENSIONS, linkRules6, sharedChains6 } from './source-check6.ts'

export const SOURCE_CHECK_TABLE = 'netdev slicenet'

/** Why a frame was refused; each is counted for each link. docs/operating.md says what each means. */
export const REFUSALS = [
  'source',
  'mac',
  'arp',
  'vlan',
  'ipv6',
  'ra',
  'extension',
  'protocol',
  'fragment',
  'options',
  'length',
  'multicast',
  'broadcast',
  'dhcp',
  'other'
] as const
export type Refusal = (typeof REFUSALS)[number]
/** Of the set that counts them. */
export const REFUSAL_KEYS = markedBy(REFUSALS)

/** The shortest piece of a datagram but its last: what every host takes in one (RFC 791). Shorter ones serve evasion. */
export const PIECE_BYTES_MIN = 576
/** Pieces of datagrams that one vserver may send; what waits for its other pieces takes memory that all share. */
const PIECES_PER_SECOND_MAX = 4000

/** Types of the first IP option: end, nothing, record route, timestamp, router alert. */
export const ALLOWED_OPTIONS: readonly number[] = [0, 1, 7, 68, 148]

/** What a chain says of a packet that is refused for this; the last that is said counts. Packets come with no mark. */
const mark = (refusal: Refusal): string => `meta mark set ${markNumber(refusal)}`
const markNumber = (refusal: Refusal): string => REFUSAL_KEYS.write(refusal)
/**
 * A shared chain's verdict. What no chain accepts goes back to the link's own, and from there to where it is counted: were there
 * a way to that from each rule, the kernel would look at it for each of them, for each link, whenever any rule is changed.
 */
const refuse = (refusal: Refusal): string => `${mark(refusal)} return`
/** First rules of a shared chain, for what the link's own chain has judged. */
function atOnce(foreign: string): string[] {
  return [`meta mark ${markNumber('mac')} return`, `meta mark ${markNumber('source')} goto ${foreign}`]
}

/** Chains that judge what the links' own did not let through; a packet comes back from them only to be refused. */
const SHARED_CHAINS: Readonly<Record<string, readonly string[]>> = {
  refuse: [COUNT_MARKED_DROP, 'drop'],
  // Who asks for an address has none yet. All else is refused for its source.
  foreign: [`ip saddr 0.0.0.0 udp sport 68 udp dport 67 ${refuse('dhcp')}`],
  judge: [
    ...atOnce('foreign'),
    // The frame's type is compared, not the packet's, so that a VLAN tag in front of IPv4 does not pass.
    `ether type { 0x8100, 0x88a8 } ${refuse('vlan')}`,
    `ether type arp ${refuse('arp')}`,
    'ether type ip6 goto judge_ipv6',
    `ether type != ip ${refuse('other')}`,
    // Only where version, header length and total length fit the frame does nft know what the packet carries.
    'meta l4proto <= 255 goto judge_ipv4',
    refuse('length')
  ],
  judge_ipv6: [
    `ip6 nexthdr ${EXTENSIONS} ${refuse('extension')}`,
    `icmpv6 type nd-router-advert ${refuse('ra')}`,
    refuse('ipv6')
  ],
  judge_ipv4: [
    `udp sport . udp dport { 67 . 67, 67 . 68, 68 . 67 } ${refuse('dhcp')}`,
    `ip protocol != { icmp, tcp, udp, gre } ${refuse('protocol')}`,
    `ether daddr ff:ff:ff:ff:ff:ff ${refuse('broadcast')}`,
    `ip daddr 255.255.255.255 ${refuse('broadcast')}`,
    `ip daddr 224.0.0.0/4 ${refuse('multicast')}`,
    `ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 ${refuse('multicast')}`,
    `${GRE_CHECK} goto judge_options`,
    `ip protocol gre ${refuse('protocol')}`,
    `ip frag-off & 0x8000 != 0 ${refuse('fragment')}`,
    'ip frag-off & 0x3fff != 0 goto judge_piece',
    `ip length < 28 ${refuse('length')}`,
    `ip protocol tcp ip length < 40 ${refuse('length')}`,
    `tcp doff < 5 ${refuse('length')}`,
    `udp length < 8 ${refuse('length')}`,
    'goto judge_options'
  ],
  // Connection tracking puts datagrams together before the node's table judges them; what it cannot never leaves.
  judge_piece: [
    // TCP cuts its own segments; pieces of those hide flags and ports.
    `ip protocol tcp ${refuse('fragment')}`,
    `ip frag-off & 0x2000 != 0 ip length < ${PIECE_BYTES_MIN} ${refuse('fragment')}`,
    `update @pieces { iifname limit rate over ${PIECES_PER_SECOND_MAX}/second burst ${PIECES_PER_SECOND_MAX} packets } ${refuse('fragment')}`,
    'goto judge_options'
  ],
  // Source routes lead past every check of the destination; of the rest, what is in use (RFC 7126).
  judge_options: [
    `ip option lsrr exists ${refuse('options')}`,
    `ip option ssrr exists ${refuse('options')}`,
    `ip hdrlength > 5 @nh,160,8 != { ${ALLOWED_OPTIONS.join(', ')} } ${refuse('options')}`,
    'accept'
  ],
  ...sharedChains6(refuse, atOnce('foreign_six'))
}

/** Lines for nft that put what all links share in place, or renew it without a gap; links and counts stay. */
export function sharedCheckLines(): string[] {
  const names = Object.keys(SHARED_CHAINS)
  return [
    `add table ${SOURCE_CHECK_TABLE}`,
    ...greCheckLines(SOURCE_CHECK_TABLE),
    `add set ${SOURCE_CHECK_TABLE} ${dropCountsSet(REFUSALS.length, REFUSAL_KEYS)}`,
    `add set ${SOURCE_CHECK_TABLE} pieces { type ifname; flags dynamic; size 65535; }`,
    ...names.flatMap((name) => [
      `add chain ${SOURCE_CHECK_TABLE} ${name}`,
      `flush chain ${SOURCE_CHECK_TABLE} ${name}`
    ]),
    ...names.flatMap((name) =>
      (SHARED_CHAINS[name] ?? []).map((rule) => `add rule ${SOURCE_CHECK_TABLE} ${name} ${rule}`)
    )
  ]
}

/**
 * Lines for nft that put the check on a link, or renew it without a gap. The device must exist. Without `hasSix` no IPv6
 * passes.
 */
export function sourceCheckLines(plan: LinkPlan, hasSix: boolean): string[] {
  const { device, address, insideMac, hostMac } = plan
  const six = hasSix ? linkRules6(plan) : { plain: [], foreign: [], judged: ['jump judge'] }
  const chain = `${SOURCE_CHECK_TABLE} ${device}`
  const rule = (text: string): string => `add rule ${chain} ${text}`
  // From its own addresses to one host, without options and in one piece.
  const plain = `ether daddr ${hostMac} ether saddr ${insideMac} ether type ip @nh,0,8 0x45 ip saddr ${address} ip frag-off & 0xbfff == 0 ip daddr < 224.0.0.0`
  return [
    `add chain ${chain} { type filter hook ingress device "${device}" priority -500; policy drop; }`,
    `flush chain ${chain}`,
    rule(`${plain} ip length >= 40 tcp doff >= 5 accept`),
    rule(`${plain} ip length >= 28 udp length >= 8 udp sport != 67-68 accept`),
    ...six.plain.map(rule),
    // Requests and replies, as a range: a set of each link would be read, and passed over, by whoever changes any rule.
    rule(
      `ether saddr ${insideMac} ether type arp arp saddr ether ${insideMac} arp saddr ip ${address} arp operation 1-2 accept`
    ),
    rule(`ether type ip ip saddr != ${address} ${mark('source')}`),
    ...six.foreign.map((match) => rule(`${match} ${mark('source')}`)),
    rule(`ether saddr != ${insideMac} ${mark('mac')}`),
    ...six.judged.map(rule),
    rule('goto refuse')
  ]
}

/** Lines for nft that take the check away, whether or not it is there. The device must be gone before. */
export function sourceCheckRemoval(device: string): string[] {
  const chain = `${SOURCE_CHECK_TABLE} ${device}`
  return [
    // The kernel may have removed the chain with its device; adding first makes deleting certain.
    `add chain ${chain}`,
    `flush chain ${chain}`,
    `delete chain ${chain}`,
    ...dropCountsRemoval(SOURCE_CHECK_TABLE, device, REFUSALS, REFUSAL_KEYS)
  ]
}
