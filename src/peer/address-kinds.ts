/** What kind of place a multiaddr names: relayed or direct, and which part of the address space its host is in. Pure. */
import { BlockList, isIP } from 'node:net'
import type { Multiaddr } from '@multiformats/multiaddr'

const LOOPBACK = listOf(['127.0.0.0/8', '::1/128'])

/** Where hosts behind a NAT are. */
const PRIVATE = listOf([
  '10.0.0.0/8',
  '100.64.0.0/10',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.168.0.0/16',
  'fc00::/7',
  'fe80::/10'
])

/** Never on the Internet, but neither behind a NAT: for documentation and tests. */
const RESERVED = listOf([
  '0.0.0.0/8',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '240.0.0.0/4',
  '2001:db8::/32'
])

function listOf(ranges: readonly string[]): BlockList {
  const list = new BlockList()
  for (const range of ranges) {
    const [network = '', prefix = ''] = range.split('/')
    list.addSubnet(network, Number(prefix), network.includes(':') ? 'ipv6' : 'ipv4')
  }
  return list
}

/** Through another peer, as `/ip4/…/p2p/<relay>/p2p-circuit/p2p/<peer>`. */
export function isRelayed(address: Multiaddr): boolean {
  return address.getComponents().some(({ name }) => name === 'p2p-circuit')
}

/** The host that it names first: an IP address or a name; of a relayed address the relay's. */
export function hostOf(address: Multiaddr): string | undefined {
  return address.getComponents().find(({ name }) => /^(?:ip[46]|dns[46]?|dnsaddr)$/.test(name))?.value
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || isIn(LOOPBACK, host)
}

/** Loopback counts as private. */
export function isPrivate(host: string): boolean {
  return isLoopback(host) || isIn(PRIVATE, host)
}

/** Whether the Internet may have a host of that address. Names are taken for global. */
export function isGlobal(host: string): boolean {
  return !isPrivate(host) && !isIn(RESERVED, host)
}

function isIn(list: BlockList, host: string): boolean {
  const version = isIP(host)
  return version !== 0 && list.check(host, version === 6 ? 'ipv6' : 'ipv4')
}
