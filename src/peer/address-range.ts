/** Ranges of IP addresses, and the address that a multiaddr leads to. */
import { BlockList, isIP } from 'node:net'
import type { Multiaddr } from '@multiformats/multiaddr'

/** Whether a text is a range such as `192.0.2.0/24` or `2001:db8::/32`, or one address. */
export function isAddressRange(text: string): boolean {
  return parseRange(text) !== undefined
}

interface Range {
  readonly address: string
  readonly prefix: number
  readonly family: 'ipv4' | 'ipv6'
}

function parseRange(text: string): Range | undefined {
  const match = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text)
  const [, address = '', length] = match ?? []
  const bits = { 0: 0, 4: 32, 6: 128 }[isIP(address)] ?? 0
  const prefix = length === undefined ? bits : Number(length)
  // A zone names a device of this machine, and no range of addresses.
  if (bits === 0 || prefix > bits || address.includes('%')) return undefined
  return { address, prefix, family: bits === 32 ? 'ipv4' : 'ipv6' }
}

/** Throws `TypeError` for what is no range. IPv4 addresses written as IPv6 count as what they are. */
export function addressMatcher(ranges: readonly string[]): (address: string) => boolean {
  const list = new BlockList()
  for (const text of ranges) {
    const range = parseRange(text)
    if (range === undefined) throw new TypeError(`not a range of addresses: ${text}`)
    list.addSubnet(range.address, range.prefix, range.family)
  }
  return (address) => {
    const family = isIP(address)
    return family !== 0 && list.check(address, family === 4 ? 'ipv4' : 'ipv6')
  }
}

/** Where a connection over this multiaddr goes to first. */
export interface Hop {
  /** Absent where there is a name instead. */
  readonly address?: string
  readonly name?: string
  /** Whether the peer is behind a relay, so that the address is the relay's and not its own. */
  readonly isRelayed: boolean
}

export function firstHop(multiaddr: Multiaddr): Hop {
  const parts = multiaddr.getComponents()
  const isRelayed = parts.some(({ name }) => name === 'p2p-circuit')
  const place = parts.find(({ name }) => ['ip4', 'ip6', 'dns', 'dns4', 'dns6', 'dnsaddr'].includes(name))
  if (place?.value === undefined) return { isRelayed }
  return place.name === 'ip4' || place.name === 'ip6'
    ? { address: place.value, isRelayed }
    : { name: place.value, isRelayed }
}
