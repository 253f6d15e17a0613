/**
 * The chains that the node's tables of IPv4 and of IPv6 have alike: guards, address translation that keeps owned ports, and what may leave
 * and come in. Each packet passes all of a hook's base chains, so there are few of them; what is rare has chains that few packets enter.
 */
import { ANY_LINK, SHARED_PORTS } from './address-plan.ts'
import { drop } from './drop-chains.ts'
import {
  addressesOf,
  SHAPED_UPLINKS,
  shapedUplinks,
  otherAddress,
  translated,
  translatedConnections,
  type UplinkPlace
} from './uplink-rules.ts'

/** What nft calls the same in each family, and rules that one family alone has. */
export interface Family {
  readonly ip: 'ip' | 'ip6'
  /** All inside addresses. */
  readonly pool: string
  /** Matches of what bears an identifier, and the identifier. */
  readonly questions: string
  readonly answers: string
  readonly id: string
  readonly ping: string
  /** Matches errors about packets. */
  readonly errors: string
  /** Protocol and source port of the packet that an error is about, where `headOf` matches. */
  readonly inner: string
  readonly headOf: string
  /** Matches what is translated. */
  readonly translatable: string
  readonly udp: string
  /** Matches TCP whose header is cut off. */
  readonly cutTcp: string
  /** What connections that own no port are translated to. */
  readonly shared: (address: string) => string
  /** Rules for packets that connection tracking has no connection of, to the node's addresses; from a vserver, as they leave. */
  readonly toOwner: readonly string[]
  readonly fromOwner: readonly string[]
  /** Rules that give packets that may raise alarms a class of their own. */
  readonly classes: readonly string[]
  /** First and last rules for what a vserver sends; for what comes to one, before all is dropped. */
  readonly outwardFirst: readonly string[]
  readonly outwardLast: readonly string[]
  readonly inwardLast: readonly string[]
  /** What may go to addresses of vservers that are not there any more is dropped by these. */
  readonly departed: readonly string[]
}

/** Text for nft. `uplinks`: those that have the family, by their addresses of it. */
export function familyChains(family: Family, uplinks: readonly UplinkPlace[]): string {
  const chains = [guards, toNode, toOwners, translation, leaving, forwarding]
  return `  ${shapedUplinks(uplinks)}${chains.map((each) => each(family, uplinks)).join('')}`
}

/** What a vserver may begin to talk to, looked at before any translation and before the connection is remembered. */
function guards({ ip, pool }: Family, uplinks: readonly UplinkPlace[]): string {
  const node = addressesOf(uplinks)
  return `
  chain guard {
    type filter hook prerouting priority -175; policy accept;
    iifname ${ANY_LINK} goto guard_vserver
    ${ip} daddr ${pool} ${ip} daddr @inside ${drop('private')}
    # Nobody but a vserver itself speaks in its name.
    ${ip} saddr ${pool} ${ip} saddr @inside ${drop('private')}
    ct state invalid,untracked ${ip} daddr ${node} goto to_owner
  }
  chain guard_vserver {
    ct direction reply accept
    ${ip} daddr ${node} goto guard_node
    ${ip} daddr ${pool} ${drop('private')}
    ${ip} daddr @allowed accept
    ${ip} daddr @denied ${drop('denied')}
  }
  chain guard_node {
    ct state invalid,untracked goto to_owner
  }`
}

function toNode({ ip, ping }: Family, uplinks: readonly UplinkPlace[]): string {
  return `
  chain to_node {
    type filter hook input priority 0; policy accept;
    iifname ${ANY_LINK} goto to_node_vserver
  }
  chain to_node_vserver {
    # An error about a connection of the node to somebody else would end it, or change its route.
    ct state related ${ip} saddr . ct original ${ip} saddr != @itself ${ip} saddr . ct reply ${ip} saddr != @itself ${drop('forged')}
    ct direction reply accept
    ${ping} ${ip} daddr ${addressesOf(uplinks)} accept
    ${drop('node')}
  }`
}

/**
 * Packets that connection tracking calls invalid (FIN, NULL, Xmas from a raw socket; unasked answers) keep their port as
 * well: translated by themselves, both ways, if the port is owned.
 */
function toOwners(family: Family, uplinks: readonly UplinkPlace[]): string {
  const { ip, answers, id, errors, headOf, inner } = family
  const byPort = `ct state invalid meta l4proto { tcp, udp } ${ip} daddr set meta l4proto . th dport map @owner`
  return `
  chain to_owner {
    ${byPort}
    ct state invalid ${answers} ${ip} daddr set ${id} map @icmp_owner
    ct state invalid ${errors} ${headOf} ${ip} daddr set ${inner} map @inner_owner
    ${family.toOwner.join('\n    ')}
  }
  # The same from the node itself, whose packets have been routed to it before they come in.
  chain from_node_to_owner {
    type route hook output priority -150; policy accept;
    ct state invalid,untracked ${ip} daddr ${addressesOf(uplinks)} jump to_owner
  }`
}

/** Owned ports keep their number; all others leave from the shared range, in which nothing is owned. */
function translation(family: Family, uplinks: readonly UplinkPlace[]): string {
  const { ip, questions, id } = family
  const inbound = `
    ${ip} daddr ${addressesOf(uplinks)} dnat to meta l4proto . th dport map @owner
    ${ip} daddr ${addressesOf(uplinks)} ${questions} dnat to ${id} map @icmp_owner`
  const outbound = translatedConnections(
    uplinks,
    ({
      match,
      address
    }) => `iifname ${ANY_LINK} ${match}${ip} saddr . meta l4proto . th sport @owned snat to ${address}
    iifname ${ANY_LINK} ${match}${questions} ${ip} saddr . ${id} @icmp_owned snat to ${address}
    iifname ${ANY_LINK} ${match}${family.translatable} snat to ${family.shared(address)}`
  )
  return `
  chain inbound {
    type nat hook prerouting priority -100; policy accept;${inbound}
  }
  chain inbound_local {
    type nat hook output priority -100; policy accept;${inbound}
  }
  chain outbound {
    type nat hook postrouting priority 100; policy accept;
    ${outbound}
  }`
}

/**
 * The last look, at packets as they will leave. Translation evades a clash of two connections by changing the port, a connection
 * outlives the lease of its port, and the owner table and tracked connections lead to a vserver whose link has gone, until somebody
 * takes them away: what comes for it then goes no further, and not out by the default route.
 */
function leaving(family: Family, uplinks: readonly UplinkPlace[]): string {
  const { ip, pool, questions, answers, id } = family
  const ofOwner = (match: string): string =>
    translated(
      uplinks,
      (uplink) =>
        `iifname ${ANY_LINK} ${uplink.match}ct state invalid ${match} ${ip} saddr set ${uplink.address}`
    )
  const { first, last } = SHARED_PORTS
  const port = drop('port')
  return `
  chain leaving {
    type filter hook postrouting priority 300; policy accept;
    iifname ${ANY_LINK} goto leaving_vserver
    ${ip} daddr ${pool} oifname != ${ANY_LINK} jump departed
  }
  chain leaving_vserver {
    ct state invalid,untracked jump from_owner
    ${ip} daddr ${pool} oifname != ${ANY_LINK} jump departed
    ${ip} saddr ${pool} ${port}
    ${otherAddress(uplinks, drop('device'))}
    # Nobody owns any of these.
    th sport ${first}-${last} meta l4proto { tcp, udp } accept
    ct direction original meta l4proto . th sport @taken ct original ${ip} saddr . meta l4proto . th sport != @owned ${port}
    ct direction reply meta l4proto . th sport @taken ct reply ${ip} saddr . meta l4proto . th sport != @owned ${port}
    ct direction original ${questions} ${id} @icmp_taken ct original ${ip} saddr . ${id} != @icmp_owned ${port}
  }
  chain from_owner {
    ${ofOwner(`${ip} saddr . meta l4proto . th sport @owned`)}
    ${ofOwner(`${answers} ${ip} saddr . ${id} @icmp_owned`)}
    ${family.fromOwner.join('\n    ')}
  }
  chain departed {
    ${family.departed.join('\n    ')}
  }`
}

function forwarding(family: Family): string {
  const { ip, questions, answers, id } = family
  return `
  chain forwarding {
    type filter hook forward priority 0; policy accept;
    iifname ${ANY_LINK} goto outward
    oifname ${ANY_LINK} goto inward
  }
  chain outward {
    oif @${SHAPED_UPLINKS} goto outward_far
    oifname ${ANY_LINK} goto outward_near
    # Only uplinks are shaped and translated.
    ${drop('device')}
  }
  chain outward_near {
    jump outward_checks
    goto inward
  }
  chain outward_far {
    jump outward_checks
    # What has no class would be taken for the node's own traffic.
    ${ip} saddr != @inside ${drop('nobody')}
    # The last class that is set counts.
    meta priority set ${ip} saddr map @class
    ${family.classes.join('\n    ')}
  }
  chain outward_checks {
    ct state established return
    ${family.outwardFirst.join('\n    ')}
    ct state invalid jump outward_untracked
    # An error about somebody else's connection would end it.
    ct state related ${ip} saddr . ct original ${ip} saddr != @itself ${ip} saddr . ct reply ${ip} saddr != @itself ${drop('forged')}
    ${family.outwardLast.join('\n    ')}
  }
  chain outward_untracked {
    # Of UDP nothing is invalid but its length or checksum; of TCP the header may be cut off.
    ${family.udp} ${drop('malformed')}
    ${family.cutTcp} ${drop('malformed')}
    ${ip} saddr . meta l4proto . th sport @owned return
    ${answers} ${ip} saddr . ${id} @icmp_owned return
    ${drop('untracked')}
  }
  chain inward {
    ct direction reply return
    ct status dnat ${ip} daddr . meta l4proto . th dport @owned return
    ct status dnat ${questions} ${ip} daddr . ${id} @icmp_owned return
    ct state { invalid, related } return
    ${family.inwardLast.join('\n    ')}
    ${drop('inward')}
  }`
}
