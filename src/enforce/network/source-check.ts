/**
 * The source check: an allowlist on the host's end of each link, at netdev ingress, so that it sees every frame a vserver
 * can make, whatever it made it with (design §5: the same rules inside the vserver leaked every spoofed packet). All links
 * share its chains, of which the first lets through what is plain and the sender's own; whose is what stands in sets.
 */
import type { LinkPlan } from './address-plan.ts'
import { COUNT_MARKED_DROP, dropCountsRemoval, dropCountsSet, markedBy } from './drop-counts.ts'
import { GRE_CHECK, greCheckLines } from './gre-keys.ts'
import { chains6, EXTENSIONS, OWN_SETS_6, ownElements6, type SixRules, sixRules } from './source-check6.ts'

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
/** A verdict. What no chain accepts goes back to the first, and from there to where it is counted. */
const refuse = (refusal: Refusal): string => `${mark(refusal)} return`
/** First rules of a chain, for what the first chain has judged. */
function atOnce(foreign: string): string[] {
  return [`meta mark ${markNumber('mac')} return`, `meta mark ${markNumber('source')} goto ${foreign}`]
}

/** Where every frame of a link begins. */
export const FIRST_CHAIN = 'check'

/** What belongs to each link, beside its addresses of IPv6. */
const OWN_SETS = {
  macs: 'ifname . ether_addr',
  addresses: 'ifname . ipv4_addr',
  // As most frames have it: from whom, to the node's end.
  plain: 'ifname . ether_addr . ether_addr . ipv4_addr'
}

function ownElements({
  device,
  address,
  insideMac,
  hostMac
}: LinkPlan): Record<keyof typeof OWN_SETS, string> {
  return {
    macs: `"${device}" . ${insideMac}`,
    addresses: `"${device}" . ${address}`,
    plain: `"${device}" . ${hostMac} . ${insideMac} . ${address}`
  }
}

/** The first chain lets through what is plain: from its sender's own addresses to one host, without options and in one piece. */
function firstChain(six: SixRules): string[] {
  return [
    'ether type ip @nh,0,8 0x45 ip frag-off & 0xbfff == 0 ip daddr < 224.0.0.0 iifname . ether daddr . ether saddr . ip saddr @plain jump plain_ipv4',
    ...six.plain,
    // Requests and replies.
    'ether type arp iifname . ether saddr @macs iifname . arp saddr ether @macs iifname . arp saddr ip @addresses arp operation 1-2 accept',
    `ether type ip iifname . ip saddr != @addresses ${mark('source')}`,
    ...six.foreign.map((match) => `${match} ${mark('source')}`),
    `iifname . ether saddr != @macs ${mark('mac')}`,
    ...six.judged,
    'goto refuse'
  ]
}

/** Chains of what is plain, and those that judge the rest; a packet comes back from these only to be refused. */
const CHAINS: Readonly<Record<string, readonly string[]>> = {
  plain_ipv4: [
    'ip length >= 40 tcp doff >= 5 accept',
    'ip length >= 28 udp length >= 8 udp sport != 67-68 accept'
  ],
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
  ...chains6(refuse, atOnce('foreign_six'))
}

/**
 * Lines for nft that put the check in place for links that are told of next, or renew it without a gap; counts stay. Without
 * `hasSix` no IPv6 passes.
 */
export function checkLines(hasSix: boolean): string[] {
  const chains = { ...CHAINS, [FIRST_CHAIN]: firstChain(sixRules(hasSix)) }
  const names = Object.keys(chains)
  return [
    `add table ${SOURCE_CHECK_TABLE}`,
    ...greCheckLines(SOURCE_CHECK_TABLE),
    `add set ${SOURCE_CHECK_TABLE} ${dropCountsSet(REFUSALS.length, REFUSAL_KEYS)}`,
    `add set ${SOURCE_CHECK_TABLE} pieces { type ifname; flags dynamic; size 65535; }`,
    ...Object.entries({ ...OWN_SETS, ...OWN_SETS_6 }).flatMap(([name, type]) => [
      `add set ${SOURCE_CHECK_TABLE} ${name} { type ${type}; }`,
      `flush set ${SOURCE_CHECK_TABLE} ${name}`
    ]),
    ...names.flatMap((name) => [
      `add chain ${SOURCE_CHECK_TABLE} ${name}`,
      `flush chain ${SOURCE_CHECK_TABLE} ${name}`
    ]),
    ...Object.entries(chains).flatMap(([name, rules]) =>
      rules.map((rule) => `add rule ${SOURCE_CHECK_TABLE} ${name} ${rule}`)
    )
  ]
}

/** Lines for nft that say what belongs to a link; adding it again changes nothing. */
export function ownLines(verb: 'add' | 'delete', plan: LinkPlan): string[] {
  return Object.entries({ ...ownElements(plan), ...ownElements6(plan) }).map(
    ([set, element]) => `${verb} element ${SOURCE_CHECK_TABLE} ${set} { ${element} }`
  )
}

/** Lines for nft that forget a link, whether or not it is known; adding first makes deleting certain. */
export function ownRemoval(plan: LinkPlan): string[] {
  return [
    ...ownLines('add', plan),
    ...ownLines('delete', plan),
    ...dropCountsRemoval(SOURCE_CHECK_TABLE, plan.device, REFUSALS, REFUSAL_KEYS)
  ]
}
