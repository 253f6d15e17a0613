/** What the node's own network is: its uplink device, the address the world knows it by, and the ports it listens on. */
import { readFile } from 'node:fs/promises'
import { isIPv4 } from 'node:net'
import { SlicenetError } from '../../base/errors.ts'
import { run } from '../../base/host-program.ts'
import type { PortProtocol, PortRange } from '../../ticket/ports.ts'
import { findAddress6, hexAddress6, type DeviceAddress } from './uplink6.ts'

export interface Uplink {
  readonly device: string
  /** Another one for a device that is made again. */
  readonly ifindex: number
  readonly address: string
  /** Absent where the node has no IPv6 of use to vservers. */
  readonly address6?: string
  readonly mtu: number
}

/**
 * Finds the uplink: the device of the default route and its first global addresses, where they are not given.
 * Throws `CONFIG_INVALID`.
 */
export async function findUplink(
  init: {
    readonly uplink?: string | undefined
    readonly nodeAddress?: string | undefined
    readonly nodeAddress6?: string | undefined
  } = {}
): Promise<Uplink> {
  const device = init.uplink ?? (await defaultDevice())
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(device)) {
    throw new SlicenetError('CONFIG_INVALID', `no device can be called ${JSON.stringify(device)}`)
  }
  const links = JSON.parse(await run('ip', ['-j', 'addr', 'show', 'dev', device])) as readonly IpLink[]
  const link = links.find((each) => each.ifname === device)
  const found = link?.addr_info?.find((each) => each.family === 'inet' && each.scope === 'global')?.local
  const address = init.nodeAddress ?? found
  if (address === undefined || !isIPv4(address)) {
    throw new SlicenetError('CONFIG_INVALID', `the uplink ${device} has no IPv4 address`, {
      hint: 'name the node’s address, or another uplink, in the node’s configuration'
    })
  }
  const address6 = await findAddress6(link?.addr_info ?? [], init.nodeAddress6)
  return {
    device,
    ifindex: link?.ifindex ?? 0,
    address,
    ...(address6 === undefined ? {} : { address6 }),
    mtu: link?.mtu ?? 1500
  }
}

/** Ports of `protocols` that programs of the node listen on at its addresses, without those that only the node itself can reach. */
export async function listeningPorts(
  at: Pick<Uplink, 'address' | 'address6'>,
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
  { address, address6 }: Pick<Uplink, 'address' | 'address6'>
): PortRange[] {
  const own = hexAddress(address)
  const reachable = new Set([
    own,
    '00000000',
    '0'.repeat(32),
    // The address as an IPv6 socket shows it.
    `0000000000000000FFFF0000${own}`,
    ...(address6 === undefined ? [] : [hexAddress6(address6)])
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

async function defaultDevice(): Promise<string> {
  const routes = JSON.parse((await run('ip', ['-j', 'route', 'show', 'default'])) || '[]') as readonly {
    readonly dev?: string
  }[]
  const device = routes[0]?.dev
  if (device !== undefined) return device
  throw new SlicenetError('CONFIG_INVALID', 'the node has no default route', {
    hint: 'name the uplink in the node’s configuration'
  })
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
