/** `slicenet raw …`: help for the authors of programs that use raw sockets in a slice. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { asSlicenetError, SlicenetError } from '../base/errors.ts'
import { findNodes, type ControlCaller } from '../daemon/control-client.ts'
import type { LeaseView, NodeView } from '../daemon/control-protocol.ts'
import { findByPrefix } from '../daemon/prefix.ts'
import {
  allowedRanges,
  checkCapture,
  checkPacket,
  isCapture,
  ownAddresses,
  parsePortRange,
  rawAllowance,
  type PacketVerdict,
  type PortRange,
  type RawAllowance
} from '../daemon/raw-check.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { formatFields, formatTable } from './table.ts'

interface CheckOptions {
  readonly port: readonly string[]
  readonly from?: string
  readonly allowed: readonly string[]
  readonly packet?: string
  readonly capture?: string
}

const PACKET_CHARS_MAX = 1 << 18
const CAPTURE_BYTES_MAX = 1 << 24
/** That are told of, from the first on. */
const PACKETS_MAX = 1000

export function addRawCommand(root: Command, run: RunCommand): void {
  const raw = root.command('raw').description('look at what raw sockets in a slice may do')
  raw
    .command('check')
    .description('tell what a lease allows programs with raw sockets, and whether a packet would leave')
    .argument(
      '[lease]',
      'by its id, its slice or its vserver, or how one begins; else one with the ports given'
    )
    .option('--port <range>', 'as if it owned this, such as tcp/9090 or gre/7; repeatable', collect, [])
    .option('--from <address>', 'the vserver’s own address, IPv4 or IPv6; by default any that a node gives')
    .option(
      '--allowed <range>',
      'a private range that the node’s policy lets vservers reach, such as 10.0.0.0/8; repeatable',
      collect,
      []
    )
    .option(
      '--packet <hex>',
      'an IPv4 or IPv6 packet or a frame, in hexadecimal; - reads it, or a capture, from standard input'
    )
    .option(
      '--capture <file>',
      `tell of each packet of a capture, up to ${PACKETS_MAX}: pcap or pcapng, as tcpdump writes them; - reads standard input`
    )
    .addHelpText(
      'after',
      examples(
        'slicenet raw check mesh',
        'slicenet raw check mesh --packet 4500001c00000000401100006440010208080808238200350008…',
        'slicenet raw check --port tcp/9090 --packet - < packet.hex',
        'slicenet raw check --port icmp/7 --packet 6000000000083a40fd51ce51ce5100010000000000000002…',
        'slicenet raw check mesh --capture sent.pcap'
      )
    )
    .action((lease: string | undefined, options: CheckOptions) =>
      run((context) => check(context, lease, options), QUESTION)
    )
}

const collect = (value: string, before: readonly string[]): string[] => [...before, value]

async function check(
  context: CommandContext,
  of: string | undefined,
  options: CheckOptions
): Promise<Outcome> {
  const { lease, ...node } = of === undefined ? {} : await findLease(context, of)
  const ports = options.port.map(parsePort)
  const checked = {
    // Who asks without a lease asks what one would allow.
    rawSockets: lease === undefined || lease.rights?.includes('raw-socket') === true,
    ports: [...(lease?.ports ?? []), ...ports],
    allowedRanges: allowedRanges(options.allowed),
    ...node,
    ...fromAddresses(options.from)
  }
  const allowance = rawAllowance(checked)
  const document = {
    ...(lease === undefined ? {} : { lease: lease.lease, slice: lease.slice }),
    ...allowance
  }
  const given = await readGiven(context, options)
  if (given === undefined) return { document, text: () => formatFields(allowanceFields(allowance)) }
  if (typeof given === 'string') {
    const packet = checkPacket(given, checked)
    return { document: { ...document, packet }, text: () => formatFields(packetFields(packet)) }
  }
  const packets = checkCapture(given, checked, PACKETS_MAX)
  return { document: { ...document, packets }, text: (style) => packetTable(packets, style) }
}

/** One packet in hexadecimal, or a capture. Throws `USAGE`, `NOT_FOUND`. */
async function readGiven(
  context: CommandContext,
  { packet, capture }: CheckOptions
): Promise<string | Buffer | undefined> {
  if (packet !== undefined && capture !== undefined) {
    throw new SlicenetError('USAGE', 'either --packet or --capture is looked at')
  }
  if (capture !== undefined) {
    const bytes = capture === '-' ? await readAll(context) : await readCaptureFile(capture)
    if (bytes.length <= CAPTURE_BYTES_MAX) return bytes
    throw new SlicenetError('USAGE', `a capture of at most ${CAPTURE_BYTES_MAX} bytes is expected`)
  }
  if (packet !== '-') return packet
  const bytes = await readAll(context)
  if (isCapture(bytes)) return bytes
  if (bytes.length <= PACKET_CHARS_MAX) return bytes.toString('latin1')
  throw new SlicenetError('USAGE', 'one packet is expected on standard input')
}

async function readCaptureFile(file: string): Promise<Buffer> {
  try {
    return await readFile(file)
  } catch (cause) {
    throw new SlicenetError('NOT_FOUND', `${file} cannot be read`, { cause })
  }
}

function packetTable(packets: readonly PacketVerdict[], style: Style): string {
  if (packets.length === 0) return 'There is no packet in it.\n'
  const rows = packets.map(({ outcome, reason, text }, at) => [String(at + 1), outcome, reason ?? '-', text])
  return formatTable(['NO', 'PACKET', 'COUNTED AS', 'BECAUSE'], rows, style)
}

/** With the addresses of its node; of IPv6 the node's advertisement tells, where it is known here. */
async function findLease(
  context: CommandContext,
  given: string
): Promise<{ lease: LeaseView; nodeAddress: string; nodeAddress6?: string }> {
  const { signal } = context
  return withSession(context, async (call) => {
    const { leases } = await call('leaseList', {}, { signal })
    const lease = findByPrefix(leases, given, {
      what: 'lease',
      namesOf: ({ lease: id, slice, vserver }) => [id, slice, vserver]
    })
    const nodes = await knownNodes(call, signal)
    const address6 = nodes.find(({ id }) => id === lease.node)?.attributes['address6']
    return {
      lease,
      nodeAddress: lease.address,
      ...(typeof address6 === 'string' ? { nodeAddress6: address6 } : {})
    }
  })
}

async function knownNodes(call: ControlCaller, signal: AbortSignal): Promise<NodeView[]> {
  try {
    return await findNodes(call, undefined, { signal })
  } catch (error) {
    if (asSlicenetError(error).code === 'NO_MATCH') return []
    throw error
  }
}

/** Throws `USAGE`. */
function parsePort(text: string): PortRange {
  const range = parsePortRange(text)
  if (range !== undefined) return range
  throw new SlicenetError('USAGE', `--port: expected a port such as tcp/9090 or gre/1-7; got ${text}`)
}

async function readAll({ terminal }: CommandContext): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of terminal.stdin() as AsyncIterable<Buffer | string>) {
    chunks.push(Buffer.from(chunk as string))
    bytes += chunk.length
    if (bytes > CAPTURE_BYTES_MAX) break
  }
  return Buffer.concat(chunks)
}

function allowanceFields({ rawSockets, sockets, owned, shared }: RawAllowance): [string, string][] {
  return [
    ['raw sockets', rawSockets ? sockets.join('; ') : 'none: EPERM without the right raw-socket'],
    ['leaves as it is', owned.join(', ') || 'nothing: no port is owned'],
    ['leaves from', `${shared.join(', ')}, what begins at any other port or identifier`],
    [
      'dropped',
      'other protocols, other sources, IPv6 where the node has none, and what no connection explains from a port that is not owned'
    ]
  ]
}

function packetFields({ outcome, reason, text }: PacketVerdict): [string, string][] {
  return [
    ['packet', outcome],
    ['because', text],
    ...(reason === undefined ? [] : [['counted as', reason] as [string, string]])
  ]
}

/** Throws `USAGE`. */
function fromAddresses(given: string | undefined): ReturnType<typeof ownAddresses> {
  const own = given === undefined ? {} : ownAddresses(given)
  if (own !== undefined) return own
  throw new SlicenetError('USAGE', `--from: ${JSON.stringify(given)} is no address`)
}
