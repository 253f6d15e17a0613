/**
 * The owner table: which link owns a port or ICMP identifier of the node's address, as elements of nft sets and maps
 * (design §5, paper §3.2), and the rules of what can be owned.
 */
import { SlicenetError } from '../../base/errors.ts'
import { formatPortRange, portsOverlap, PORT_PROTOCOLS, type PortRange } from '../../ticket/ports.ts'
import { SHAPING_MAJOR, SHARED_PORTS, type LinkPlan } from './address-plan.ts'
import { GRE_SETS } from './gre-keys.ts'
import { SOURCE_CHECK_TABLE } from './source-check.ts'

export const NODE_TABLE = 'ip slicenet'

/** One link's entry in the owner table. */
export interface Ownership {
  readonly plan: LinkPlan
  readonly ports: readonly PortRange[]
}

/** The sets and maps, as nft declares them. An element of a map leads to the owner's inside address. */
export const OWNER_SETS = `
  map owner { type inet_proto . inet_service : ipv4_addr; flags interval; }
  map inner_owner { typeof @th,136,8 . @th,224,16 : ip daddr; flags interval; }
  map icmp_owner { typeof icmp id : ip daddr; flags interval; }
  set owned { type ipv4_addr . inet_proto . inet_service; flags interval; }
  set icmp_owned { typeof ip saddr . icmp id; flags interval; }
  set taken { type inet_proto . inet_service; flags interval; }
  set icmp_taken { typeof icmp id; flags interval; }
  set inside { type ipv4_addr; }
  set itself { type ipv4_addr . ipv4_addr; }
  map class { typeof ip saddr : meta priority; }
  map icmp_class { typeof ip saddr : meta priority; }
  map options_class { typeof ip saddr : meta priority; }${GRE_SETS}`

/** Lines for nft that `add` or `delete` all elements of a link. */
export function ownershipLines(verb: 'add' | 'delete', ownership: Ownership): string[] {
  const { address, dataClass, icmpClass, optionsClass } = ownership.plan
  return [
    elementLine(verb, 'inside', address),
    elementLine(verb, 'itself', `${address} . ${address}`),
    elementLine(verb, 'class', address, `${SHAPING_MAJOR}:${dataClass}`),
    elementLine(verb, 'icmp_class', address, `${SHAPING_MAJOR}:${icmpClass}`),
    elementLine(verb, 'options_class', address, `${SHAPING_MAJOR}:${optionsClass}`),
    ...portLines(verb, ownership)
  ]
}

/** Lines for nft that `add` or `delete` the elements of a link's ports alone. */
export function portLines(verb: 'add' | 'delete', ownership: Ownership): string[] {
  const { address } = ownership.plan
  const element = elementLine.bind(undefined, verb)
  return mergeRanges(ownership.ports).flatMap((range) => {
    const ports = interval(range)
    if (range.protocol === 'icmp') {
      return [
        element('icmp_owner', ports, address),
        element('icmp_owned', `${address} . ${ports}`),
        element('icmp_taken', ports)
      ]
    }
    if (range.protocol === 'gre') {
      const key = `${address} . ${ports}`
      return [
        element('gre_owner', ports, address),
        element('gre_owned', key),
        element('gre_taken', ports),
        // What the source check lets out is looked up by the same key.
        `${verb} element ${SOURCE_CHECK_TABLE} gre_keys { ${key} }`
      ]
    }
    return [
      element('owner', `${range.protocol} . ${ports}`, address),
      element('inner_owner', `${protocolNumber(range)} . ${ports}`, address),
      element('owned', `${address} . ${range.protocol} . ${ports}`),
      element('taken', `${range.protocol} . ${ports}`)
    ]
  })
}

/** Lines for nft that keep vservers from sending from the node's own ports. */
export function reservedLines(reserved: readonly PortRange[]): string[] {
  return mergeRanges(reserved).map((range) =>
    range.protocol === 'icmp' || range.protocol === 'gre'
      ? `add element ${NODE_TABLE} ${range.protocol}_taken { ${interval(range)} }`
      : `add element ${NODE_TABLE} taken { ${range.protocol} . ${interval(range)} }`
  )
}

/** The same ports in the fewest ranges, sorted. */
export function mergeRanges(ranges: readonly PortRange[]): PortRange[] {
  const merged: PortRange[] = []
  for (const protocol of PORT_PROTOCOLS) {
    const sorted = ranges.filter((range) => range.protocol === protocol).sort((a, b) => a.first - b.first)
    for (const range of sorted) {
      const before = merged.at(-1)
      if (before !== undefined && before.protocol === protocol && range.first <= before.last + 1) {
        merged[merged.length - 1] = { ...before, last: Math.max(before.last, range.last) }
      } else {
        merged.push(range)
      }
    }
  }
  return merged
}

/** A use of ports that excludes owning them, and what to call it. */
export interface PortClaim {
  readonly by: string
  readonly ports: readonly PortRange[]
}

/** The claim on what vservers share for the ports that none of them owns. */
export const SHARED_CLAIM: PortClaim = {
  by: `the range ${SHARED_PORTS.first}-${SHARED_PORTS.last} that all vservers share`,
  // A GRE key that nobody owns leaves no vserver.
  ports: (['tcp', 'udp', 'icmp'] as const).map((protocol) => ({ protocol, ...SHARED_PORTS }))
}

/** Throws `PORT_IN_USE` when a claim holds one of the wanted ports. */
export function requireUnclaimed(wanted: readonly PortRange[], claims: readonly PortClaim[]): void {
  for (const range of wanted) {
    for (const { by, ports } of claims) {
      const held = ports.find((one) => portsOverlap([range], [one]))
      if (held === undefined) continue
      const first = Math.max(held.first, range.first)
      const port = formatPortRange({ ...range, first, last: Math.min(held.last, range.last) })
      throw new SlicenetError('PORT_IN_USE', `${port} is in use by ${by}`, {
        hint: 'lease another port',
        details: { port, by }
      })
    }
  }
}

/** Raw packet bytes, unlike fields that nft knows, are compared with numbers only. */
export function protocolNumber(range: PortRange): number {
  return range.protocol === 'tcp' ? 6 : 17
}

/** Elements of maps are deleted by their key alone. */
export function elementLine(
  verb: 'add' | 'delete',
  set: string,
  key: string,
  value?: string,
  table = NODE_TABLE
): string {
  const shown = value === undefined || verb === 'delete' ? key : `${key} : ${value}`
  return `${verb} element ${table} ${set} { ${shown} }`
}

/** As nft writes a range. */
export function interval(range: PortRange): string {
  return range.first === range.last ? `${range.first}` : `${range.first}-${range.last}`
}
