/**
 * What the node's rules say of its uplinks, as text for nft: which address belongs to which device. What leaves by an uplink
 * bears that one's address, and a connection stays on the uplink that its address belongs to.
 */
import { ANY_LINK, VSERVER_POOL, VSERVER_POOL_6 } from './address-plan.ts'

/** An uplink with its address of one family, which the rules are about. */
export interface UplinkPlace {
  readonly device: string
  readonly ifindex: number
  readonly address: string
}

export interface MarkedUplink extends UplinkPlace {
  /** From 0 on, in the order of the node's uplinks. */
  readonly number: number
}

/** What nft compares a destination with, to tell whether it is the node. */
export function addressesOf(uplinks: readonly UplinkPlace[]): string {
  return anyOf(uplinks.map(({ address }) => address))
}

/** What nft compares a device with, to tell whether it is an uplink. */
export function devicesOf(uplinks: readonly Pick<UplinkPlace, 'device'>[]): string {
  return anyOf(uplinks.map(({ device }) => `"${device}"`))
}

/** The same of one that is shaped: not of a device that was made again since, which has the same name. */
export function indexesOf(uplinks: readonly Pick<UplinkPlace, 'ifindex'>[]): string {
  return anyOf(uplinks.map(({ ifindex }) => `${ifindex}`))
}

/** The name of a table's set of uplinks by number that are shaped, by which what vservers send may leave, and its declaration. */
export const SHAPED_UPLINKS = 'shaped_uplinks'
export function shapedUplinks(uplinks: readonly UplinkPlace[]): string {
  return `set ${SHAPED_UPLINKS} { typeof oif; elements = { ${uplinks.map(({ ifindex }) => ifindex).join(', ')} }; }`
}

/** Lines for nft that let nothing more leave by an uplink; adding first makes deleting certain. */
export function unshapedLines(table: string, { ifindex }: Pick<UplinkPlace, 'ifindex'>): string[] {
  return ['add', 'delete'].map((verb) => `${verb} element ${table} ${SHAPED_UPLINKS} { ${ifindex} }`)
}

/** Makes a rule; `match` is empty, or ends in a space. */
type Rule = (uplink: { readonly match: string; readonly address: string }) => string

/**
 * A rule for each uplink, with the address that what leaves by it is to have; what stays on the node has the first one's.
 * The rule must match nothing twice.
 */
export function translated(uplinks: readonly UplinkPlace[], rule: Rule): string {
  const [first] = uplinks
  return [...leaving(uplinks, rule), ...(first === undefined ? [] : [rule({ match: '', ...first })])].join(
    '\n    '
  )
}

/**
 * The same of connections: what stays on the node has the address that it was sent to, so that two connections
 * of one sender to two of the node's addresses stay apart.
 */
export function translatedConnections(uplinks: readonly UplinkPlace[], rule: Rule): string {
  const staying = uplinks.map(({ address }) =>
    rule({ match: `ct original ${familyOf(address)} daddr ${address} `, address })
  )
  return uplinks.length < 2
    ? translated(uplinks, rule)
    : [...leaving(uplinks, rule), ...staying].join('\n    ')
}

function leaving(uplinks: readonly UplinkPlace[], rule: Rule): readonly string[] {
  if (uplinks.length < 2) return []
  return uplinks.map(({ device, address }) => rule({ match: `oifname "${device}" `, address }))
}

/** The mark of packets that are to leave by the uplink of this number. */
export function markOf(number: number): string {
  return `0x51ce${(number + 1).toString(16).padStart(4, '0')}`
}

/**
 * Marks what vservers send as part of a connection that has an uplink's address, when it is to leave the node, so that it can
 * be routed by that uplink. What somebody else has marked keeps that mark. `isOnly`: the node has no other uplink, of either family.
 */
export function uplinkMarks(uplinks: readonly MarkedUplink[], isOnly = uplinks.length < 2): string {
  const [first] = uplinks
  if (isOnly || first === undefined) return ''
  const family = familyOf(first.address)
  const pool = family === 'ip' ? VSERVER_POOL : VSERVER_POOL_6
  const marks = uplinks.map(({ address, number }) => `${address} : ${markOf(number)}`).join(', ')
  return `
  # Behind the translation, which gives what stays on the node its destination.
  chain uplink_marks {
    type filter hook prerouting priority -90; policy accept;
    iifname ${ANY_LINK} meta mark 0 ${family} daddr != ${pool} goto uplink_mark
  }
  chain uplink_mark {
    ct direction reply meta mark set ct original ${family} daddr map { ${marks} }
    ct direction original meta mark set ct reply ${family} daddr map { ${marks} }
  }`
}

/** A rule that ends what would leave by one uplink under the address of another. */
export function otherAddress(uplinks: readonly UplinkPlace[], drop: string): string {
  const [first] = uplinks
  if (uplinks.length < 2 || first === undefined) return ''
  const places = uplinks.map(({ device, address }) => `"${device}" . ${address}`).join(', ')
  return `oifname ${devicesOf(uplinks)} oifname . ${familyOf(first.address)} saddr != { ${places} } ${drop}`
}

/** As nft calls it. */
function familyOf(address: string): 'ip' | 'ip6' {
  return address.includes(':') ? 'ip6' : 'ip'
}

function anyOf(values: readonly string[]): string {
  const [only = ''] = values
  return values.length === 1 ? only : `{ ${values.join(', ')} }`
}
