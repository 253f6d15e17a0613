/**
 * The node's nft table of IPv6: as that of IPv4 (node-table.ts), which explains its rules, for a node that has an IPv6 address.
 * There are no IP options, and no GRE.
 */
import { isIPv6 } from 'node:net'
import { ANY_LINK, SHARED_PORTS, VSERVER_POOL_6 } from './address-plan.ts'
import { dropCountsSet, userDropCountsSet } from './drop-counts.ts'
import { destinationRules } from './destinations.ts'
import { drop, dropChains, dropCounter, DROP_REASONS, USER_DROP_REASONS } from './node-table.ts'
import type { NodeTableInit } from './node-table.ts'
import { NODE_TABLE_6, OWNER_SETS_6 } from './owned-ports6.ts'
import {
  addressesOf,
  devicesOf,
  otherAddress,
  translated,
  translatedConnections,
  uplinkMarks
} from './uplink-rules.ts'

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
const ERRORS = 'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }'

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
  set flow_counts { type ipv6_addr; flags dynamic; }
${DROP_REASONS.map((reason) => `  counter ${dropCounter(reason)} {}`).join('\n')}
  set ${dropCountsSet(DROP_REASONS.length)}
  set ${userDropCountsSet(USER_DROP_REASONS.length)}
${dropChains()}
${guards(init)}
${untracked(init)}
${uplinkMarks(init.uplinks, hasOneUplink)}
${translation(init)}
${destinationRules(init, drop('destinations'), 'ip6')}
${forwarding(init)}
${users()}
${departed()}
}
`
}

function guards({ uplinks }: NodeTableInit): string {
  const nodeAddress6 = addressesOf(uplinks)
  return `
  chain guard {
    type filter hook prerouting priority -175; policy accept;
    iifname ${ANY_LINK} goto guard_vserver
    ip6 daddr @inside ${drop('private')}
    ip6 saddr @inside ${drop('private')}
  }
  chain guard_vserver {
    ct direction reply accept
    ip6 daddr ${nodeAddress6} accept
    ip6 daddr ${VSERVER_POOL_6} ${drop('private')}
    ip6 daddr @allowed accept
    ip6 daddr @denied ${drop('denied')}
  }
  chain to_node {
    type filter hook input priority 0; policy accept;
    iifname ${ANY_LINK} goto to_node_vserver
  }
  chain to_node_vserver {
    ct state related ip6 saddr . ct original ip6 saddr != @itself ip6 saddr . ct reply ip6 saddr != @itself ${drop('forged')}
    ct direction reply accept
    icmpv6 type echo-request ip6 daddr ${nodeAddress6} accept
    ${drop('node')}
  }`
}

function untracked({ uplinks }: NodeTableInit): string {
  const nodeAddress6 = addressesOf(uplinks)
  const toOwner = `ct state invalid ip6 daddr ${nodeAddress6} meta l4proto { tcp, udp } ip6 daddr set meta l4proto . th dport map @owner`
  return `
  chain untracked_in {
    type filter hook prerouting priority -150; policy accept;
    ${toOwner}
    ct state invalid ip6 daddr ${nodeAddress6} icmpv6 type echo-reply ip6 daddr set icmpv6 id map @icmp_owner
    ct state invalid ip6 daddr ${nodeAddress6} ${ERRORS} ip6 daddr set @th,112,8 . @th,384,16 map @inner_owner
  }
  chain untracked_local {
    type route hook output priority -150; policy accept;
    ${toOwner}
  }
  chain untracked_out {
    type filter hook postrouting priority 90; policy accept;
    ${translated(uplinks, ({ match, address }) => `iifname ${ANY_LINK} ${match}ct state invalid ip6 saddr . meta l4proto . th sport @owned ip6 saddr set ${address}`)}
    ${translated(uplinks, ({ match, address }) => `iifname ${ANY_LINK} ${match}ct state invalid icmpv6 type echo-reply ip6 saddr . icmpv6 id @icmp_owned ip6 saddr set ${address}`)}
  }`
}

function translation({ uplinks }: NodeTableInit): string {
  const nodeAddress6 = addressesOf(uplinks)
  const inbound = `
    ip6 daddr ${nodeAddress6} dnat to meta l4proto . th dport map @owner
    ip6 daddr ${nodeAddress6} icmpv6 type echo-request dnat to icmpv6 id map @icmp_owner`
  const port = drop('port')
  return `
  chain inbound {
    type nat hook prerouting priority -100; policy accept;${inbound}
  }
  chain inbound_local {
    type nat hook output priority -100; policy accept;${inbound}
  }
  chain outbound {
    type nat hook postrouting priority 100; policy accept;
    ${translatedConnections(
      uplinks,
      ({
        match,
        address
      }) => `iifname ${ANY_LINK} ${match}ip6 saddr . meta l4proto . th sport @owned snat to ${address}
    iifname ${ANY_LINK} ${match}icmpv6 type echo-request ip6 saddr . icmpv6 id @icmp_owned snat to ${address}
    iifname ${ANY_LINK} ${match}meta l4proto { icmpv6, tcp, udp } snat to [${address}]:${SHARED_PORTS.first}-${SHARED_PORTS.last}`
    )}
  }
  chain leaving {
    type filter hook postrouting priority 300; policy accept;
    iifname ${ANY_LINK} goto leaving_vserver
  }
  chain leaving_vserver {
    ct direction original meta l4proto . th sport @taken ct original ip6 saddr . meta l4proto . th sport != @owned ${port}
    ct direction reply meta l4proto . th sport @taken ct reply ip6 saddr . meta l4proto . th sport != @owned ${port}
    ct direction original icmpv6 type echo-request icmpv6 id @icmp_taken ct original ip6 saddr . icmpv6 id != @icmp_owned ${port}
    ip6 saddr ${VSERVER_POOL_6} ${port}
    ${otherAddress(uplinks, drop('device'))}
  }`
}

function forwarding({ uplinks, flowsPerVserverMax }: NodeTableInit): string {
  const uplink = devicesOf(uplinks)
  return `
  chain forwarding {
    type filter hook forward priority 0; policy accept;
    iifname ${ANY_LINK} jump outward
    oifname ${ANY_LINK} jump inward
    iifname ${ANY_LINK} oifname ${uplink} jump shape
  }
  chain outward {
    oifname != ${uplink} oifname != ${ANY_LINK} ${drop('device')}
    ct state invalid jump outward_untracked
    # What connection tracking does not look at would leave untranslated.
    ct state untracked ${drop('untracked')}
    ct state related ip6 saddr . ct original ip6 saddr != @itself ip6 saddr . ct reply ip6 saddr != @itself ${drop('forged')}
    ct state new add @flow_counts { ip6 saddr ct count over ${flowsPerVserverMax} } ${drop('flows')}
  }
  chain outward_untracked {
    ip6 nexthdr udp ${drop('malformed')}
    ip6 nexthdr tcp ip6 length < 20 ${drop('malformed')}
    ip6 saddr . meta l4proto . th sport @owned return
    icmpv6 type echo-reply ip6 saddr . icmpv6 id @icmp_owned return
    ${drop('untracked')}
  }
  chain inward {
    ct direction reply return
    ct state new add @flow_counts { ip6 daddr ct count over ${flowsPerVserverMax} } ${drop('flows')}
    ct status dnat ip6 daddr . meta l4proto . th dport @owned return
    ct status dnat icmpv6 type echo-request ip6 daddr . icmpv6 id @icmp_owned return
    ct state { invalid, related } return
    ${drop('inward')}
  }
  chain shape {
    ip6 saddr != @inside ${drop('nobody')}
    meta priority set ip6 saddr map @class
    ct state { new, invalid, untracked } jump destinations
    meta l4proto icmpv6 meta priority set ip6 saddr map @icmp_class
  }`
}

function users(): string {
  return `
  chain from_node {
    type filter hook output priority 0; policy accept;
    meta skuid @users goto from_users
  }
  chain from_users {
    meta l4proto { tcp, udp } meta l4proto . th sport @taken ${drop('port')}
    icmpv6 type echo-request icmpv6 id @icmp_taken ${drop('port')}
  }`
}

function departed(): string {
  return `
  chain departed {
    type filter hook postrouting priority 310; policy accept;
    oifname ${ANY_LINK} accept
    # Nobody else has addresses of this range.
    ip6 daddr ${VSERVER_POOL_6} ${drop('device')}
  }`
}
