/** The IPv6 side of a node's uplink: the address that the world knows the node by, and what the kernel must do for it. */
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import { SlicenetError } from '../../base/errors.ts'
import { addressBytes, canonicalAddress } from '../../base/ip-address.ts'
import { indexOfDevice } from './address-plan.ts'

/** What ip(8) says of an address of a device. */
export interface DeviceAddress {
  readonly family?: string
  readonly scope?: string
  readonly local?: string
  readonly prefixlen?: number
  readonly temporary?: boolean
  readonly deprecated?: boolean
  readonly tentative?: boolean
  readonly dadfailed?: boolean
}

const SETTINGS = '/proc/sys/net/ipv6/conf'
const FORWARDING = `${SETTINGS}/all/forwarding`

/**
 * The address that is given (`none`: none), or that of the device's which lasts and is on the internet, as in `lastingAddress`;
 * `undefined` where there is none, or where the kernel gives new devices no IPv6. Throws `CONFIG_INVALID`.
 */
export async function findAddress6(
  addresses: readonly DeviceAddress[],
  given: string | undefined,
  known?: string
): Promise<string | undefined> {
  const isOff = (await readFile(`${SETTINGS}/default/disable_ipv6`, 'utf8').catch(() => '1')).trim() !== '0'
  if (given === 'none') return undefined
  if (given === undefined) return isOff ? undefined : lastingAddress(addresses, known)
  if (isOff || !isIPv6(given) || given.includes('%')) {
    const fault = isOff ? 'new devices of the node have no IPv6' : 'it is no IPv6 address'
    throw new SlicenetError('CONFIG_INVALID', `${given} cannot be the node’s IPv6 address: ${fault}`, {
      hint: 'leave out the node’s IPv6 address, or set net.ipv6.conf.default.disable_ipv6 to 0'
    })
  }
  return canonicalAddress(given)
}

/**
 * One that stays as it is: the known one while it does, or the oldest, which the kernel names last, so that a prefix that is added
 * ends no connection. Privacy addresses (RFC 8981) do not stay, and unique local ones (RFC 4193) are not on the internet.
 */
export function lastingAddress(addresses: readonly DeviceAddress[], known?: string): string | undefined {
  const lasting = addresses.filter(
    ({ family, scope, local = '', ...is }) =>
      family === 'inet6' &&
      scope === 'global' &&
      /^[23][0-9a-f]{3}:/.test(local) &&
      ![is.temporary, is.deprecated, is.tentative, is.dadfailed].includes(true)
  )
  return (lasting.find(({ local }) => local === known) ?? lasting.at(-1))?.local
}

/** Bits of the prefix of a link (RFC 4291). */
const LINK_BITS = 64

/**
 * The ranges of the device's global addresses, sorted: its neighbours. An address that is alone in its range, as DHCPv6 gives them,
 * has neighbours all the same.
 */
export function neighbourRanges(addresses: readonly DeviceAddress[]): string[] {
  const ranges = addresses.flatMap(({ family, scope, local, prefixlen = LINK_BITS }) =>
    family === 'inet6' && scope === 'global' && local !== undefined
      ? [rangeOf(local, Math.min(prefixlen, LINK_BITS))]
      : []
  )
  return [...new Set(ranges)].sort()
}

function rangeOf(address: string, bits: number): string {
  const bytes = addressBytes(address).map(
    (byte, at) => byte & (0xff00 >> Math.max(0, Math.min(8, bits - at * 8)))
  )
  const words = Array.from({ length: 8 }, (_, at) => ((bytes[at * 2] ?? 0) << 8) | (bytes[at * 2 + 1] ?? 0))
  return `${canonicalAddress(words.map((word) => word.toString(16)).join(':'))}/${bits}`
}

/** Has the kernel forward IPv6, and keep the routes that it hears of from routers: forwarding alone would end that. */
export async function forwardSix(): Promise<void> {
  for (const device of await readdir(SETTINGS)) {
    if (device === 'all' || device === 'default' || indexOfDevice(device) !== undefined) continue
    await heedRouters(device)
  }
  await writeFile(FORWARDING, '1')
}

/**
 * Has the kernel hear of addresses and routes from routers on an uplink while it forwards IPv6: a device that was made anew would
 * get none. `given`: the address of the configuration.
 */
export async function hearRouters(device: string, given: string | undefined): Promise<void> {
  if (given === 'none') return
  const forwards = await readFile(FORWARDING, 'utf8').catch(() => '')
  if (forwards.trim() === '1') await heedRouters(device)
}

async function heedRouters(device: string): Promise<void> {
  const path = `${SETTINGS}/${device}/accept_ra`
  // Devices come and go.
  const accepts = await readFile(path, 'utf8').catch(() => '')
  if (accepts.trim() === '1') await writeFile(path, '2').catch(() => {})
}

/** As the kernel prints it in its tables of sockets: four numbers as they are in memory, little-endian. */
export function hexAddress6(address: string): string {
  const bytes = addressBytes(address)
  const words = [0, 4, 8, 12].flatMap((at) => bytes.slice(at, at + 4).reverse())
  return Buffer.from(words).toString('hex').toUpperCase()
}
