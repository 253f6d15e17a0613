/**
 * Forgets connections that the kernel tracks. An entry is made for good by its first packet: without this, a peer that
 * keeps sending to a port would go on reaching whoever held the port then.
 */
import { SlicenetError } from '../../base/errors.ts'
import { runAnyway } from '../../base/host-program.ts'
import type { PortRange } from '../../ticket/ports.ts'

const ATTEMPTS_MAX = 20

/** Forgets what a vserver began and what came to it, of every protocol or of one. */
export async function forgetVserver(address: string, protocol?: 'udp'): Promise<void> {
  const only = protocol === undefined ? [] : ['--proto', protocol]
  await Promise.all([forget([...only, '--orig-src', address]), forget([...only, '--reply-src', address])])
}

/**
 * Forgets datagrams and echoes that came to the node's address; they are judged anew by their next packet. TCP needs
 * nothing: an attempt that was refused is over.
 */
async function forgetArrivals(nodeAddress: string, protocol: 'udp' | 'icmp'): Promise<void> {
  await forget(['--proto', protocol, '--orig-dst', nodeAddress])
}

/** Whoever sent to these ports before their owner was there must not go on reaching nobody. */
export async function forgetGained(
  gained: readonly PortRange[],
  { nodeAddress, vserver }: { readonly nodeAddress: string; readonly vserver: string | undefined }
): Promise<void> {
  const protocols = new Set(gained.map((range) => range.protocol))
  await Promise.all([
    protocols.has('udp') ? forgetArrivals(nodeAddress, 'udp') : undefined,
    protocols.has('icmp') ? forgetArrivals(nodeAddress, 'icmp') : undefined,
    vserver !== undefined && protocols.has('udp') ? forgetVserver(vserver, 'udp') : undefined
  ])
}

async function forget(filter: readonly string[]): Promise<void> {
  let said = ''
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const result = await runAnyway('conntrack', ['-D', '-f', 'ipv4', ...filter])
    said = result.stderr.trim()
    // Exit code 1 with this line is how conntrack says that there was nothing to forget.
    if (result.exitCode === 0 || /0 flow entries have been deleted/.test(said)) return
    // It gives up at the first entry that ends by itself between being read and being deleted.
    if (!/such conntrack doesn't exist/.test(said)) break
  }
  throw new SlicenetError('HOST_PROGRAM_FAILED', `conntrack -D failed: ${said.slice(0, 500)}`)
}
