/**
 * Forgets connections that the kernel tracks. An entry is made for good by its first packet: without this, a peer that
 * keeps sending to a port would go on reaching whoever held the port then.
 */
import { SlicenetError } from '../../base/errors.ts'
import { runAnyway } from '../../base/host-program.ts'
import type { PortRange } from '../../ticket/ports.ts'
import type { LinkPlan } from './address-plan.ts'
import type { Families } from './link-lines.ts'
import type { Uplink } from './uplink.ts'

const ATTEMPTS_MAX = 20

/** What the node has of each family; IPv4 always. */
interface NodeAddresses extends Families {
  readonly address: string
}
type Inside = Pick<LinkPlan, 'address' | 'address6'>

/** Forgets what a vserver began and what came to it, of every protocol or of one. */
export async function forgetVserver(inside: Inside, families: Families, protocol?: 'udp'): Promise<void> {
  const only = protocol === undefined ? [] : ['--proto', protocol]
  const addresses = families.address6 === undefined ? [inside.address] : [inside.address, inside.address6]
  await Promise.all(addresses.map(async (address) => forgetInside(address, only)))
}

/** `by`: only what was translated to this address of the node. */
async function forgetInside(address: string, only: readonly string[] = [], by?: string): Promise<void> {
  const [begun, come] =
    by === undefined
      ? [[], []]
      : [
          ['--reply-dst', by],
          ['--orig-dst', by]
        ]
  await Promise.all([
    forget(address, [...only, '--orig-src', address, ...begun]),
    forget(address, [...only, '--reply-src', address, ...come])
  ])
}

/** Forgets what was translated to this address of the node. */
export async function forgetThrough(insides: readonly Inside[], nodeAddress: string): Promise<void> {
  const isSix = nodeAddress.includes(':')
  for (const { address, address6 } of insides) await forgetInside(isSix ? address6 : address, [], nodeAddress)
}

/**
 * Forgets what was translated to addresses that the uplink has no more, or not on this device; of the other family and of other
 * uplinks nothing.
 */
export async function forgetMoved(
  insides: readonly Inside[],
  before: Uplink | undefined,
  now: Uplink
): Promise<void> {
  if (before === undefined) return
  const isSame = before.ifindex === now.ifindex && before.device === now.device
  const [four, six] = [before.address, before.address6]
  for (const { address, address6 } of insides) {
    await Promise.all([
      isSame && four === now.address ? undefined : forgetInside(address, [], four),
      six === undefined || (isSame && six === now.address6) ? undefined : forgetInside(address6, [], six)
    ])
  }
}

/**
 * Forgets datagrams and echoes that came to the node's addresses; they are judged anew by their next packet. TCP needs
 * nothing: an attempt that was refused is over.
 */
async function forgetArrivals(node: NodeAddresses, protocol: 'udp' | 'icmp'): Promise<void> {
  const arrivals = async (address: string, name: string): Promise<void> =>
    forget(address, ['--proto', name, '--orig-dst', address])
  await Promise.all([
    arrivals(node.address, protocol),
    node.address6 === undefined
      ? undefined
      : arrivals(node.address6, protocol === 'icmp' ? 'icmpv6' : protocol)
  ])
}

/** Whoever sent to these ports before their owner was there must not go on reaching nobody. */
export async function forgetGained(
  gained: readonly PortRange[],
  { nodes, vserver }: { readonly nodes: readonly NodeAddresses[]; readonly vserver: Inside | undefined }
): Promise<void> {
  const protocols = new Set(gained.map((range) => range.protocol))
  const address6 = nodes.find((node) => node.address6 !== undefined)?.address6
  await Promise.all([
    ...nodes.flatMap((node) => [
      protocols.has('udp') ? forgetArrivals(node, 'udp') : undefined,
      protocols.has('icmp') ? forgetArrivals(node, 'icmp') : undefined
    ]),
    vserver !== undefined && protocols.has('udp') ? forgetVserver(vserver, { address6 }, 'udp') : undefined
  ])
}

async function forget(address: string, filter: readonly string[]): Promise<void> {
  let said = ''
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const result = await runAnyway('conntrack', [
      '-D',
      '-f',
      address.includes(':') ? 'ipv6' : 'ipv4',
      ...filter
    ])
    said = result.stderr.trim()
    // Exit code 1 with this line is how conntrack says that there was nothing to forget.
    if (result.exitCode === 0 || /0 flow entries have been deleted/.test(said)) return
    // It gives up at the first entry that ends by itself between being read and being deleted.
    if (!/such conntrack doesn't exist/.test(said)) break
  }
  throw new SlicenetError('HOST_PROGRAM_FAILED', `conntrack -D failed: ${said.slice(0, 500)}`)
}
