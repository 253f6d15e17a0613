/** `slicenet raw …`: help for the authors of programs that use raw sockets in a slice. */
import { isIPv4 } from 'node:net'
import type { Command } from 'commander'
import { SlicenetError } from '../base/errors.ts'
import type { LeaseView } from '../daemon/control-protocol.ts'
import { findByPrefix } from '../daemon/prefix.ts'
import {
  checkPacket,
  parsePortRange,
  rawAllowance,
  type PacketVerdict,
  type PortRange,
  type RawAllowance
} from '../daemon/raw-check.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome } from './output.ts'
import { withSession } from './session.ts'
import { formatFields } from './table.ts'

interface CheckOptions {
  readonly port: readonly string[]
  readonly from?: string
  readonly packet?: string
}

const PACKET_CHARS_MAX = 1 << 18

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
    .option('--from <address>', 'the vserver’s own address; by default any that a node gives')
    .option(
      '--packet <hex>',
      'an IPv4 packet or a frame with one, in hexadecimal; - reads it from standard input'
    )
    .addHelpText(
      'after',
      examples(
        'slicenet raw check mesh',
        'slicenet raw check mesh --packet 4500001c00000000401100006440010208080808238200350008…',
        'slicenet raw check --port tcp/9090 --packet - < packet.hex'
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
  const lease = of === undefined ? undefined : await findLease(context, of)
  const ports = options.port.map(parsePort)
  const checked = {
    // Who asks without a lease asks what one would allow.
    rawSockets: lease === undefined || lease.rights?.includes('raw-socket') === true,
    ports: [...(lease?.ports ?? []), ...ports],
    nodeAddress: lease?.address,
    address: ownAddress(options.from)
  }
  const allowance = rawAllowance(checked)
  const hex = options.packet === '-' ? await readAll(context) : options.packet
  const packet = hex === undefined ? undefined : checkPacket(hex, checked)
  return {
    document: {
      ...(lease === undefined ? {} : { lease: lease.lease, slice: lease.slice }),
      ...allowance,
      ...(packet === undefined ? {} : { packet })
    },
    text: () => formatFields(packet === undefined ? allowanceFields(allowance) : packetFields(packet))
  }
}

async function findLease(context: CommandContext, given: string): Promise<LeaseView> {
  const { leases } = await withSession(context, (call) => call('leaseList', {}, { signal: context.signal }))
  return findByPrefix(leases, given, {
    what: 'lease',
    namesOf: ({ lease, slice, vserver }) => [lease, slice, vserver]
  })
}

/** Throws `USAGE`. */
function parsePort(text: string): PortRange {
  const range = parsePortRange(text)
  if (range !== undefined) return range
  throw new SlicenetError('USAGE', `--port: expected a port such as tcp/9090 or gre/1-7; got ${text}`)
}

async function readAll({ terminal }: CommandContext): Promise<string> {
  let text = ''
  for await (const chunk of terminal.stdin() as AsyncIterable<Buffer | string>) {
    text += String(chunk)
    if (text.length > PACKET_CHARS_MAX)
      throw new SlicenetError('USAGE', 'one packet is expected on standard input')
  }
  return text
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

function ownAddress(given: string | undefined): string | undefined {
  if (given === undefined || isIPv4(given)) return given
  throw new SlicenetError('USAGE', `${JSON.stringify(given)} is no IPv4 address`)
}
