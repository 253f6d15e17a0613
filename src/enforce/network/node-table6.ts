/**
 * The node's nft table of IPv6: as that of IPv4 (node-table.ts), for a node that has an IPv6 address.
 * There are no IP options, and no GRE.
 */
import { isIPv6 } from 'node:net'
import { SHARED_PORTS, VSERVER_POOL_6 } from './address-plan.ts'
import { drop, dropChains, FAMILY_DROP_REASONS } from './drop-chains.ts'
import { familyChains, type Family } from './family-chains.ts'
import type { NodeTableInit } from './node-table.ts'
import { NODE_TABLE_6, OWNER_SETS_6 } from './owned-ports6.ts'
import { uplinkMarks } from './uplink-rules.ts'

/**
 * Not on the internet (RFC 6890), or on another one: all but 2000::/3, and of that the protocols' own ranges, examples, and
 * 6to4, in which addresses of IPv4 hide.
 */
export const DENIED_6 = [
  '::/3',
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
  '4000::/2',
  '8000::/1'
]
const FAMILY: Family = {
  ip: 'ip6',
  pool: VSERVER_POOL_6,
  questions: 'icmpv6 type echo-request',
  answers: 'icmpv6 type echo-reply',
  id: 'icmpv6 id',
  ping: 'icmpv6 type echo-request',
  errors: 'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }',
  headOf: '',
  inner: '@th,112,8 . @th,384,16',
  translatable: 'meta l4proto { icmpv6, tcp, udp }',
  udp: 'ip6 nexthdr udp',
  cutTcp: 'ip6 nexthdr tcp ip6 length < 20',
  shared: (address) => `[${address}]:${SHARED_PORTS.first}-${SHARED_PORTS.last}`,
  toOwner: [],
  fromOwner: [],
  classes: ['meta l4proto icmpv6 meta priority set ip6 saddr map @icmp_class'],
  outwardFirst: [],
  // What connection tracking does not look at would leave untranslated.
  outwardLast: [`ct state untracked ${drop('untracked')}`],
  inwardLast: [],
  // Nobody else has addresses of this range.
  departed: [drop('device')]
}

/** Where nobody may send to over IPv6 who is no part of the node. */
export interface Reach6 {
  /** As the policy has them, of both families. */
  readonly allowedPrivateRanges: readonly string[]
  /** The node's own networks. */
  readonly neighbours6: readonly string[]
}

/** The sets `denied` and `allowed`, as nft declares them; what is in both is allowed. */
export function reachSets6({ allowedPrivateRanges, neighbours6 }: Reach6): string[] {
  const ranges = allowedPrivateRanges.filter((range) => isIPv6(range.split('/')[0] ?? ''))
  const allowed = ranges.length === 0 ? '' : `elements = { ${ranges.join(', ')} }`
  const denied = [...DENIED_6, ...neighbours6].join(', ')
  return [
    `set denied { type ipv6_addr; flags interval; auto-merge; elements = { ${denied} } }`,
    `set allowed { type ipv6_addr; flags interval; auto-merge; ${allowed} }`
  ]
}

/**
 * Text for nft that puts the table in place of the one before in one transaction, without its elements. `uplinks`: those that
 * have IPv6, one at least, by their addresses of it. `hasOneUplink`: the node has no other, without IPv6 either.
 */
export function nodeTable6(init: NodeTableInit & Reach6, hasOneUplink: boolean): string {
  return `
add table ${NODE_TABLE_6}
delete table ${NODE_TABLE_6}
table ${NODE_TABLE_6} {
${OWNER_SETS_6}
  ${reachSets6(init).join('\n  ')}
  set users { typeof meta skuid; flags interval; }
${dropChains(FAMILY_DROP_REASONS)}
${familyChains(FAMILY, init.uplinks)}
${uplinkMarks(init.uplinks, hasOneUplink)}
${users()}
}
`
}

function users(): string {
  return `
  chain from_users {
    meta l4proto { tcp, udp } meta l4proto . th sport @taken ${drop('port')}
    icmpv6 type echo-request icmpv6 id @icmp_taken ${drop('port')}
  }`
}
