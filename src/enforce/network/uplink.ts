/** What the node's own network is: its uplinks, the addresses the world knows it by, and the ports it listens on. */
import { access, readFile } from 'node:fs/promises'
import { isIPv4 } from 'node:net'
import { SlicenetError } from '../../base/errors.ts'
import { run, runAnyway } from '../../base/host-program.ts'
import type { PortProtocol, PortRange } from '../../ticket/ports.ts'
import { findAddress6, hexAddress6, neighbourRanges, type DeviceAddress } from './uplink6.ts'

export interface UplinkInit {
  /** Default: the device of the default route. */
  readonly device?: string | undefined
  /** The IPv4 address that the world knows the node by there. Default: the first of the device. */
  readonly address?: string | undefined
  /** The same of IPv6; `none`: none. Default: the oldest of the device that lasts and is on the internet. */
  readonly address6?: string | undefined
  /** Bits a second: the administrator's cap on all that leaves by it, and what the node's own traffic is guaranteed. */
  readonly rootBps: number
  readonly nodeBps: number
}

export interface Uplink {
  readonly device: string
  /** Another one for a device that is made again. */
  readonly ifindex: number
  readonly address: string
  /** Absent where the node has no IPv6 of use to vservers. */
  readonly address6?: string | undefined
  /** Its own network over IPv6: the ranges of its addresses. */
  readonly neighbours6?: readonly string[] | undefined
  readonly mtu: number
}

/** One of the several that a node may have. */
export interface NumberedUplink extends Uplink {
  /** From 0 on, in the order of the configuration; one that is away keeps its own. */
  readonly number: number
}

type Sought = Pick<UplinkInit, 'device' | 'address' | 'address6'>

/**
 * Finds an uplink: the device of the default route, its first global address of IPv4 and a lasting one of IPv6, where they
 * are not given. `known6`: the one of IPv6 that it had, which is kept while it lasts. Throws `CONFIG_INVALID`.
 */
export async function findUplink(init: Sought = {}, known6?: string): Promise<Uplink> {
  const found = await seekUplink(init, known6)
  if (found instanceof SlicenetError) throw found
  return found
}

/** The same, or why it is not there, or not yet. */
async function seekUplink(init: Sought, known6?: string): Promise<Uplink | SlicenetError> {
  const device = init.device ?? (await defaultDevice())
  if (device === undefined) {
    return new SlicenetError('CONFIG_INVALID', 'the node has no default route', {
      hint: 'name the uplink in the node’s configuration'
    })
  }
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(device)) {
    throw new SlicenetError('CONFIG_INVALID', `no device can be called ${JSON.stringify(device)}`)
  }
  const shown = await runAnyway('ip', ['-j', 'addr', 'show', 'dev', device])
  if (/does not exist/.test(shown.stderr)) {
    return new SlicenetError('CONFIG_INVALID', `the uplink ${device} is no device of this machine`, {
      hint: 'name another one in the node’s configuration; `ip link` shows those that there are'
    })
  }
  const links = JSON.parse(shown.stdout || '[]') as readonly IpLink[]
  const link = links.find((each) => each.ifname === device)
  const found = link?.addr_info?.find((each) => each.family === 'inet' && each.scope === 'global')?.local
  const address = init.address ?? found
  if (address === undefined || !isIPv4(address)) {
    return new SlicenetError('CONFIG_INVALID', `the uplink ${device} has no IPv4 address`, {
      hint: 'name the node’s address, or another uplink, in the node’s configuration'
    })
  }
  const address6 = await findAddress6(link?.addr_info ?? [], init.address6, known6)
  return {
    device,
    ifindex: link?.ifindex ?? 0,
    address,
    ...(address6 === undefined ? {} : { address6 }),
    neighbours6: neighbourRanges(link?.addr_info ?? []),
    mtu: link?.mtu ?? 1500
  }
}

export interface FoundUplinks {
  /** One at least, in their order. */
  readonly there: readonly NumberedUplink[]
  /** Why the others are not there, by their numbers. */
  readonly away: ReadonlyMap<number, SlicenetError>
}

/** Finds those that are there. Throws `CONFIG_INVALID` where none is, and where two have one device or one address. */
export async function findUplinks(inits: readonly Sought[]): Promise<FoundUplinks> {
  const there: NumberedUplink[] = []
  const away = new Map<number, SlicenetError>()
  const sought = await Promise.all(inits.map(async (init) => seekUplink(init)))
  for (const [number, each] of sought.entries()) {
    if (each instanceof SlicenetError) away.set(number, each)
    else there.push({ ...each, number })
  }
  requireDistinct(there)
  const [fault] = away.values()
  if (there.length === 0 && fault !== undefined) throw fault
  return { there, away }
}

type Distinct = Pick<Uplink, 'device' | 'address' | 'address6'>

export function areDistinct(one: Distinct, other: Distinct): boolean {
  return one.device !== other.device && !haveOneAddress(one, other)
}

function haveOneAddress(one: Distinct, other: Distinct): boolean {
  return one.address === other.address || (one.address6 !== undefined && one.address6 === other.address6)
}

/** Throws `CONFIG_INVALID` where two uplinks have one device or one address. */
export function requireDistinct(uplinks: readonly Distinct[]): void {
  for (const [at, uplink] of uplinks.entries()) {
    const { device, address, address6 } = uplink
    const before = uplinks.slice(0, at)
    if (before.some((each) => each.device === device)) {
      throw new SlicenetError('CONFIG_INVALID', `the uplink ${device} is named twice`)
    }
    const same = before.find((each) => haveOneAddress(each, uplink))
    if (same === undefined) continue
    const shared = same.address === address ? address : address6
    throw new SlicenetError(
      'CONFIG_INVALID',
      `the uplinks ${same.device} and ${device} have one address, ${shared}`,
      { hint: 'give each an address of its own in the node’s configuration' }
    )
  }
}

/**
 * What the world sees of what leaves by a device, of the family of `like`; what stays on the node counts as the first uplink's.
 * `::` where no address of IPv6 is known any more.
 */
export function addressOn(
  uplinks: readonly Pick<Uplink, 'device' | 'address' | 'address6'>[],
  like: string,
  device: string
): string {
  const uplink = uplinks.find((each) => each.device === device) ?? uplinks[0]
  return (like.includes(':') ? (uplink?.address6 ?? UNKNOWN_6) : uplink?.address) ?? ''
}

/** The unspecified address. */
const UNKNOWN_6 = '::'

/** Whether there is such a device, which knows IPv4, in this process's network namespace; of one among many this is told at once. */
export async function isPresent(device: string): Promise<boolean> {
  return access(`/proc/sys/net/ipv4/conf/${device}`).then(
    () => true,
    () => false
  )
}

/** Ports of `protocols` that programs of the node listen on at its addresses, without those that only the node itself can reach. */
export async function listeningPorts(
  at: readonly Pick<Uplink, 'address' | 'address6'>[],
  protocols: ReadonlySet<PortProtocol>
): Promise<PortRange[]> {
  const names = (['tcp', 'udp'] as const).filter((protocol) => protocols.has(protocol))
  const tables = await Promise.all(
    names
      .flatMap((protocol) => [protocol, `${protocol}6`])
      .map(async (name) => {
        const table = await readFile(`/proc/self/net/${name}`, 'utf8').catch(() => '')
        return listeners(table, name.startsWith('tcp') ? 'tcp' : 'udp', at)
      })
  )
  return tables.flat()
}

/** Reads a table of sockets as in proc(5): TCP in the state LISTEN, UDP that is bound to no other end. */
export function listeners(
  table: string,
  protocol: 'tcp' | 'udp',
  at: readonly Pick<Uplink, 'address' | 'address6'>[]
): PortRange[] {
  const own = at.map(({ address }) => hexAddress(address))
  const reachable = new Set([
    ...own,
    '00000000',
    '0'.repeat(32),
    // The addresses as an IPv6 socket shows them.
    ...own.map((address) => `0000000000000000FFFF0000${address}`),
    ...at.flatMap(({ address6 }) => (address6 === undefined ? [] : hexAddress6(address6)))
  ])
  const ports: PortRange[] = []
  for (const line of table.split('\n').slice(1)) {
    const [, local = '', remote = '', state] = line.trim().split(/\s+/)
    const [localAddress = '', localPort = ''] = local.split(':')
    if (!reachable.has(localAddress)) continue
    if (protocol === 'tcp' ? state !== '0A' : !remote.endsWith(':0000')) continue
    const port = Number.parseInt(localPort, 16)
    if (port > 0) ports.push({ protocol, first: port, last: port })
  }
  return ports
}

async function defaultDevice(): Promise<string | undefined> {
  const routes = JSON.parse((await run('ip', ['-j', 'route', 'show', 'default'])) || '[]') as readonly {
    readonly dev?: string
  }[]
  return routes[0]?.dev
}

/** The kernel prints an address as the number it is in memory, which on every machine supported is little-endian. */
function hexAddress(address: string): string {
  const bytes = address.split('.').map((byte) => Number(byte).toString(16).padStart(2, '0'))
  return bytes.reverse().join('').toUpperCase()
}

interface IpLink {
  readonly ifname?: string
  readonly ifindex?: number
  readonly mtu?: number
  readonly addr_info?: readonly DeviceAddress[]
}
