/**
 * The node's nft table: guards, address translation that keeps owned ports, and the mark of each packet's traffic class.
 * Every rule is about links of vservers; what else the machine forwards is left alone.
 */
import { isIP, isIPv4 } from 'node:net'
import { SlicenetError } from '../../base/errors.ts'
import { ANY_LINK, SHARED_PORTS, VSERVER_POOL } from './address-plan.ts'
import { countDrop, countUserDrop, dropCountsSet, userDropCountsSet } from './drop-counts.ts'
import { destinationRules, type DestinationBounds } from './destinations.ts'
import { GRE_INWARD, GRE_TAKEN, greChains, greOutward } from './gre-keys.ts'
import { ICMP_ANSWERS, ICMP_ID, ICMP_QUESTIONS, icmpOutward } from './icmp-queries.ts'
import { NODE_TABLE, OWNER_SETS } from './owned-ports.ts'
import {
  addressesOf,
  devicesOf,
  otherAddress,
  translated,
  translatedConnections,
  uplinkMarks,
  type MarkedUplink
} from './uplink-rules.ts'

/** What each vserver may have. */
export interface VserverBounds extends DestinationBounds {
  readonly flowsPerVserverMax: number
}

export interface NodeTableInit extends VserverBounds {
  /** Each with the address that the world sees of what leaves by it. */
  readonly uplinks: readonly MarkedUplink[]
  /** CIDR ranges that the node's policy lets vservers reach although they are private. */
  readonly allowedPrivateRanges: readonly string[]
}

/**
 * Why the table drops a packet; each is counted for the node, and for the vserver that sent the packet. What came from
 * elsewhere is charged to nobody, but for `flows` of a vserver that takes no more connections. docs/operating.md says what
 * each means.
 */
export const DROP_REASONS = [
  'private',
  'denied',
  'untracked',
  'malformed',
  'forged',
  'device',
  'flows',
  'inward',
  'node',
  'port',
  'destinations',
  'nobody'
] as const
export type DropReason = (typeof DROP_REASONS)[number]
/** Those of packets of vservers that share the node's network. */
export const USER_DROP_REASONS = [
  'forged',
  'port',
  'device',
  'denied'
] as const satisfies readonly DropReason[]

/** Not on the internet (RFC 6890): loopback, link-local with the cloud's metadata, private, benchmarking, multicast. */
export const DENIED = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/3'
]
/** The counter's name; the prefix keeps it clear of nft's own words. */
export function dropCounter(reason: DropReason): string {
  return `dropped_${reason}`
}

/** The verdict on a packet that is dropped for a reason. */
export const drop = (reason: DropReason): string => `goto drop_${reason}`

/** Where packets end, counted. */
export function dropChains(): string {
  const chains = DROP_REASONS.map((reason) => {
    const toVserver =
      reason === 'flows' ? `iifname != ${ANY_LINK} oifname ${ANY_LINK} ${countDrop(reason, 'oifname')}` : ''
    return `
  chain drop_${reason} {
    iifname ${ANY_LINK} ${countDrop(reason)}
    ${toVserver}
    ${(USER_DROP_REASONS as readonly DropReason[]).includes(reason) ? countUserDrop(reason) : ''}
    counter name ${dropCounter(reason)} drop
  }`
  })
  return chains.join('')
}

/** Text for nft that puts the table in place of the one before in one transaction, without its elements. */
export function nodeTable(init: NodeTableInit): string {
  const ranges = init.allowedPrivateRanges.filter((range) => isIPv4(range.split('/')[0] ?? ''))
  const allowed = ranges.length === 0 ? '' : `elements = { ${ranges.join(', ')} }`
  return `
add table ${NODE_TABLE}
delete table ${NODE_TABLE}
table ${NODE_TABLE} {
${OWNER_SETS}
  set denied { type ipv4_addr; flags interval; elements = { ${DENIED.join(', ')} } }
  set allowed { type ipv4_addr; flags interval; auto-merge; ${allowed} }
  set users { typeof meta skuid; flags interval; }
  set flow_counts { type ipv4_addr; flags dynamic; }
${DROP_REASONS.map((reason) => `  counter ${dropCounter(reason)} {}`).join('\n')}
  set ${dropCountsSet(DROP_REASONS.length)}
  set ${userDropCountsSet(USER_DROP_REASONS.length)}
${dropChains()}
${guards(init)}
${untracked(init)}
${greChains(init.uplinks)}
${uplinkMarks(init.uplinks)}
${translation(init)}
${destinationRules(init, drop('destinations'))}
${forwarding(init)}
${users(init)}
${departed()}
}
`
}

/** Throws `CONFIG_INVALID` at what is no range of addresses. */
export function requireRanges(ranges: readonly string[]): void {
  for (const range of ranges) {
    const [address = '', bits = '0', rest] = range.split('/')
    const most = isIPv4(address) ? 32 : isIP(address) === 6 && !address.includes('%') ? 128 : -1
    if (/^\d{1,3}$/.test(bits) && Number(bits) <= most && rest === undefined) continue
    throw new SlicenetError('CONFIG_INVALID', `${JSON.stringify(range)} is no range of addresses`, {
      hint: 'write it as 192.0.2.0/24 or 2001:db8::/32'
    })
  }
}

/** Lines for nft that forget the count of a vserver's connections; adding first makes deleting certain. */
export function flowCountRemoval(address: string, flowsPerVserverMax: number, table = NODE_TABLE): string[] {
  const set = `element ${table} flow_counts`
  return [`add ${set} { ${address} ct count over ${flowsPerVserverMax} }`, `delete ${set} { ${address} }`]
}

/** What a vserver may begin to talk to, looked at before any translation and before the connection is remembered. */
function guards({ uplinks }: NodeTableInit): string {
  const nodeAddress = addressesOf(uplinks)
  return `
  chain guard {
    type filter hook prerouting priority -175; policy accept;
    iifname ${ANY_LINK} goto guard_vserver
    ip daddr @inside ${drop('private')}
    # Nobody but a vserver itself speaks in its name.
    ip saddr @inside ${drop('private')}
  }
  chain guard_vserver {
    ct direction reply accept
    ip daddr ${nodeAddress} accept
    ip daddr ${VSERVER_POOL} ${drop('private')}
    ip daddr @allowed accept
    ip daddr @denied ${drop('denied')}
  }
  chain to_node {
    type filter hook input priority 0; policy accept;
    iifname ${ANY_LINK} goto to_node_vserver
  }
  chain to_node_vserver {
    # An error about a connection of the node to somebody else would end it, or change its route.
    ct state related ip saddr . ct original ip saddr != @itself ip saddr . ct reply ip saddr != @itself ${drop('forged')}
    ct direction reply accept
    icmp type echo-request ip daddr ${nodeAddress} accept
    ${drop('node')}
  }`
}

/**
 * Packets that connection tracking calls invalid (FIN, NULL, Xmas from a raw socket; unasked answers) keep their port as
 * well: translated by themselves, both ways, if the port is owned.
 */
function untracked({ uplinks }: NodeTableInit): string {
  const nodeAddress = addressesOf(uplinks)
  const errors = 'icmp type { destination-unreachable, time-exceeded, parameter-problem }'
  return `
  chain untracked_in {
    type filter hook prerouting priority -150; policy accept;
    ct state invalid ip daddr ${nodeAddress} ip protocol { tcp, udp } ip daddr set meta l4proto . th dport map @owner
    ct state invalid ip daddr ${nodeAddress} ${ICMP_ANSWERS} ip daddr set ${ICMP_ID} map @icmp_owner
    # Protocol and source port of the packet that the error is about, when its header has no options.
    ct state invalid ip daddr ${nodeAddress} ${errors} @th,64,8 0x45 ip daddr set @th,136,8 . @th,224,16 map @inner_owner
  }
  # The same from the node itself, whose packets have been routed to it before they come in.
  chain untracked_local {
    type route hook output priority -150; policy accept;
    ct state invalid ip daddr ${nodeAddress} ip protocol { tcp, udp } ip daddr set meta l4proto . th dport map @owner
  }
  chain untracked_out {
    type filter hook postrouting priority 90; policy accept;
    ${translated(uplinks, ({ match, address }) => `iifname ${ANY_LINK} ${match}ct state invalid ip saddr . meta l4proto . th sport @owned ip saddr set ${address}`)}
    ${translated(uplinks, ({ match, address }) => `iifname ${ANY_LINK} ${match}ct state invalid ${ICMP_ANSWERS} ip saddr . ${ICMP_ID} @icmp_owned ip saddr set ${address}`)}
  }`
}

/** Owned ports keep their number; all others leave from the shared range, in which nothing is owned. */
function translation({ uplinks }: NodeTableInit): string {
  const nodeAddress = addressesOf(uplinks)
  const inbound = `
    ip daddr ${nodeAddress} dnat to meta l4proto . th dport map @owner
    ip daddr ${nodeAddress} ${ICMP_QUESTIONS} dnat to ${ICMP_ID} map @icmp_owner`
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
      }) => `iifname ${ANY_LINK} ${match}ip saddr . meta l4proto . th sport @owned snat to ${address}
    iifname ${ANY_LINK} ${match}${ICMP_QUESTIONS} ip saddr . ${ICMP_ID} @icmp_owned snat to ${address}
    iifname ${ANY_LINK} ${match}ip protocol { icmp, tcp, udp } snat to ${address}:${SHARED_PORTS.first}-${SHARED_PORTS.last}`
    )}
  }
  # The last look, at the packet as it will leave: translation evades a clash of two connections by changing the port,
  # and a connection outlives the lease of its port.
  chain leaving {
    type filter hook postrouting priority 300; policy accept;
    iifname ${ANY_LINK} goto leaving_vserver
  }
  chain leaving_vserver {
    ct direction original meta l4proto . th sport @taken ct original ip saddr . meta l4proto . th sport != @owned ${drop('port')}
    ct direction reply meta l4proto . th sport @taken ct reply ip saddr . meta l4proto . th sport != @owned ${drop('port')}
    ct direction original ${ICMP_QUESTIONS} ${ICMP_ID} @icmp_taken ct original ip saddr . ${ICMP_ID} != @icmp_owned ${drop('port')}
    ip saddr ${VSERVER_POOL} ${drop('port')}
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
    # Only uplinks are shaped and translated.
    oifname != ${uplink} oifname != ${ANY_LINK} ${drop('device')}
    ${icmpOutward(drop('untracked'))}
    ct state invalid jump outward_untracked
    # An error about somebody else's connection would end it.
    ct state related ip saddr . ct original ip saddr != @itself ip saddr . ct reply ip saddr != @itself ${drop('forged')}
    ct state new add @flow_counts { ip saddr ct count over ${flowsPerVserverMax} } ${drop('flows')}
    ${greOutward(drop('untracked'))}
  }
  chain outward_untracked {
    # Of UDP nothing is invalid but its length or checksum; of TCP the header may be cut off.
    ip protocol udp ${drop('malformed')}
    ip protocol tcp ip length < 40 ${drop('malformed')}
    ip saddr . meta l4proto . th sport @owned return
    ${ICMP_ANSWERS} ip saddr . ${ICMP_ID} @icmp_owned return
    ${drop('untracked')}
  }
  chain inward {
    ct direction reply return
    ct state new add @flow_counts { ip daddr ct count over ${flowsPerVserverMax} } ${drop('flows')}
    ct status dnat ip daddr . meta l4proto . th dport @owned return
    ct status dnat ${ICMP_QUESTIONS} ip daddr . ${ICMP_ID} @icmp_owned return
    ct state { invalid, related } return
    ${GRE_INWARD}
    ${drop('inward')}
  }
  chain shape {
    # What has no class would be taken for the node's own traffic.
    ip saddr != @inside ${drop('nobody')}
    # The last class that is set counts.
    meta priority set ip saddr map @class
    ct state { new, invalid, untracked } jump destinations
    ip protocol icmp meta priority set ip saddr map @icmp_class
    ip hdrlength > 5 meta priority set ip saddr map @options_class
  }`
}

/**
 * The owner table and connections that the kernel tracks lead to a vserver whose link has gone, until somebody takes them
 * away: what comes for it then goes no further, and not out by the default route.
 */
function departed(): string {
  return `
  chain departed {
    type filter hook postrouting priority 310; policy accept;
    oifname ${ANY_LINK} accept
    ip daddr ${VSERVER_POOL} ct status dnat ${drop('device')}
    # Answers to what it began itself.
    ip daddr ${VSERVER_POOL} ct direction reply ct status snat ct original ip saddr ${VSERVER_POOL} ${drop('device')}
    ip daddr ${VSERVER_POOL} ct state { invalid, untracked } ${drop('device')}
  }`
}

/** Vservers that share the node's network reach what all others reach, and its own ports, and send from nobody's port. */
function users({ uplinks }: NodeTableInit): string {
  return `
  chain from_node {
    type filter hook output priority 0; policy accept;
    meta skuid @users goto from_users
  }
  chain from_users {
    # With CAP_NET_RAW a socket may be bound to any address.
    fib saddr type != local ${drop('forged')}
    meta l4proto { tcp, udp } meta l4proto . th sport @taken ${drop('port')}
    ${ICMP_QUESTIONS} ${ICMP_ID} @icmp_taken ${drop('port')}
    ${GRE_TAKEN} ${drop('port')}
    ct direction reply accept
    oifname "lo" accept
    oifname != ${devicesOf(uplinks)} ${drop('device')}
    ip daddr @allowed accept
    ip daddr @denied ${drop('denied')}
  }`
}
