/**
 * The nft table of what each vserver may have of both families of addresses together: connections, and new destinations. It looks at
 * what begins, once the family's own table has let it through.
 */
import { ANY_LINK, SHAPING_MAJOR, type LinkPlan } from './address-plan.ts'
import {
  destinationRateRemoval,
  destinationRules,
  fewerDestinationsRemoval,
  fewerOfUsersLine,
  LINKS,
  USERS,
  VSERVER_TABLE,
  type DestinationBounds
} from './destinations.ts'
import { BOUND_DROP_REASONS, drop, dropChains } from './drop-chains.ts'
import { blockOf, dropCountsRemoval } from './drop-counts.ts'
import { devicesOf, type UplinkPlace } from './uplink-rules.ts'

/** What each vserver may have. */
export interface VserverBounds extends DestinationBounds {
  readonly flowsPerVserverMax: number
}

/** Text for nft that puts the table in place of the one before in one transaction, without its elements. */
export function vserverTable(bounds: VserverBounds, uplinks: readonly UplinkPlace[]): string {
  const count = (link: 'iifname' | 'oifname'): string =>
    `ct state new add @flow_counts { ${link} ct count over ${bounds.flowsPerVserverMax} } ${drop('flows')}`
  // Of packets with a class of their own that one counts.
  const classify = [
    'ip protocol != icmp ip hdrlength 5 meta priority set iifname map @new_class',
    'meta nfproto ipv6 meta l4proto != ipv6-icmp meta priority set iifname map @new_class'
  ]
  return `
add table ${VSERVER_TABLE}
delete table ${VSERVER_TABLE}
table ${VSERVER_TABLE} {
  map new_class { typeof iifname : meta priority; }
  set flow_counts { type ifname; flags dynamic; }
  set users { typeof meta skuid; flags interval; }
  map user_new_class { typeof meta skuid : meta priority; flags interval; }
${dropChains(BOUND_DROP_REASONS)}
${destinationRules(bounds, LINKS, classify)}
${destinationRules(bounds, USERS, ['meta priority set meta skuid map @user_new_class'])}
  chain forwarding {
    type filter hook forward priority 1; policy accept;
    ct state established accept
    iifname ${ANY_LINK} jump outward
    oifname ${ANY_LINK} ${count('oifname')}
  }
  chain outward {
    ${count('iifname')}
    oifname ${devicesOf(uplinks)} ct state new,invalid,untracked goto destinations
  }
}
`
}

/** A line for nft that puts a link's class of new destinations in place; adding it again changes nothing. */
export function newClassLine(verb: 'add' | 'delete', { device, newClass }: LinkPlan): string {
  return `${verb} element ${VSERVER_TABLE} new_class { "${device}" : ${SHAPING_MAJOR}:${newClass} }`
}

/** Lines for nft that take away all of a link, whatever of it is there; adding first makes deleting certain. */
export function vserverRemoval(
  plan: LinkPlan,
  bounds: VserverBounds,
  perMinute: number | undefined
): string[] {
  const { device } = plan
  const count = `element ${VSERVER_TABLE} flow_counts`
  return [
    newClassLine('add', plan),
    newClassLine('delete', plan),
    ...fewerDestinationsRemoval(plan, perMinute),
    ...dropCountsRemoval(VSERVER_TABLE, device, BOUND_DROP_REASONS),
    `add ${count} { "${device}" ct count over ${bounds.flowsPerVserverMax} }`,
    `delete ${count} { "${device}" }`,
    ...destinationRateRemoval({ talkers: LINKS, key: `"${device}"` }, bounds)
  ]
}

/** One that shares the node's network, by its ids on the host. */
export interface BoundUser {
  readonly plan: LinkPlan
  readonly ids: { readonly first: number; readonly last: number }
  readonly destinationsPerMinute?: number | undefined
}

/** Lines for nft that hold these users to the bounds of new destinations, and no others; the table must be there. */
export function boundUsersLines(users: readonly BoundUser[]): string[] {
  const map = `${VSERVER_TABLE} user_new_class`
  return [
    `flush map ${map}`,
    `flush chain ${VSERVER_TABLE} user_fewer_destinations`,
    ...users.flatMap(({ plan, ids: { first, last }, destinationsPerMinute }) => {
      const ids = `${first}-${last}`
      return [
        `add element ${map} { ${ids} : ${SHAPING_MAJOR}:${plan.newClass} }`,
        ...(destinationsPerMinute === undefined ? [] : [fewerOfUsersLine(ids, destinationsPerMinute)])
      ]
    })
  ]
}

/** Lines for nft that forget what the ids from this one on have used of the bounds of new destinations. */
export function boundUserRemoval(firstId: number, bounds: DestinationBounds): string[] {
  return destinationRateRemoval({ talkers: USERS, key: blockOf(firstId) }, bounds)
}
