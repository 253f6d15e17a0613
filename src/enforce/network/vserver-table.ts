/**
 * The nft table of what each vserver may have of both families of addresses together: connections, and new destinations. It looks at
 * what begins, once the family's own table has let it through.
 */
import { ANY_LINK, SHAPING_MAJOR, type LinkPlan } from './address-plan.ts'
import {
  destinationRateRemoval,
  destinationRules,
  fewerDestinationsLines,
  fewerDestinationsRemoval,
  type DestinationBounds
} from './destinations.ts'
import { BOUND_DROP_REASONS, drop, dropChains } from './drop-chains.ts'
import { dropCountsRemoval } from './drop-counts.ts'
import { devicesOf, type UplinkPlace } from './uplink-rules.ts'

export const VSERVER_TABLE = 'inet slicenet'

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
${dropChains(BOUND_DROP_REASONS, { hasUsers: false })}
${destinationRules(bounds, { drop: drop('destinations'), classify })}
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

/** Lines for nft that hold a link to fewer new destinations a minute than the policy allows; none where it may have all. */
export function fewerLines({ device }: LinkPlan, perMinute: number | undefined): string[] {
  return fewerDestinationsLines({ table: VSERVER_TABLE, device, drop: drop('destinations') }, perMinute)
}

export function fewerRemoval({ device }: LinkPlan, perMinute: number | undefined): string[] {
  return fewerDestinationsRemoval(VSERVER_TABLE, device, perMinute)
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
    ...fewerRemoval(plan, perMinute),
    ...dropCountsRemoval(VSERVER_TABLE, device, BOUND_DROP_REASONS),
    `add ${count} { "${device}" ct count over ${bounds.flowsPerVserverMax} }`,
    `delete ${count} { "${device}" }`,
    ...destinationRateRemoval(VSERVER_TABLE, device, bounds)
  ]
}
