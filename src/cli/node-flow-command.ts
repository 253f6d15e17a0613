/** `slicenet node whois|flows|audit`: whose packets left this node, and whether the record of that is whole. */
import type { Command } from 'commander'
import { open, readFile } from 'node:fs/promises'
import { isIPv4, isIPv6 } from 'node:net'
import { canonicalAddress } from '../base/ip-address.ts'
import { SlicenetError } from '../base/errors.ts'
import { byteUnit, durationUnit } from '../base/units.ts'
import {
  PORT_PROTOCOLS,
  formatPortRange,
  portMax,
  type FlowEntry,
  type LogVerdictView,
  type PortProtocol,
  type Tenure,
  type Unwatched
} from '../daemon/flow-protocol.ts'
import { IpfixEncoder } from '../daemon/ipfix.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import { formatDocument, writeAll, type Outcome, type Style } from './output.ts'
import { withSession } from './session.ts'
import { formatFields, formatTable, formatTime, shortId } from './table.ts'

interface WhoisOptions {
  readonly time: string
  readonly address: string
  readonly port: string
  readonly protocol?: string
  readonly within: string
}

interface FlowsOptions {
  readonly since?: string
  readonly until?: string
  readonly jsonLines?: boolean
  readonly ipfix?: string
}

export function addNodeFlowCommands(node: Command, run: RunCommand): void {
  node
    .command('whois')
    .description('answer a complaint: who sent or received these packets at that time')
    .requiredOption('--time <time>', 'when: 2026-11-28T17:00:00Z, or how long ago, such as 90s or 2h')
    .requiredOption('--address <address>', 'the address of whoever complains, or the node’s own')
    .requiredOption('--port <port>', 'the port on either side; of ICMP the identifier, of GRE the key')
    .option('--protocol <protocol>', PORT_PROTOCOLS.join(', '))
    .option('--within <duration>', 'how far off the clocks may be', '1m')
    .addHelpText(
      'after',
      examples(
        'slicenet node whois --time 2026-11-28T17:00:00Z --address 203.0.113.9 --port 22 --protocol tcp',
        'slicenet node whois --time 10m --address 203.0.113.9 --port 53 --json'
      )
    )
    .action((options: WhoisOptions) => run((context) => whois(context, options), QUESTION))
  node
    .command('flows')
    .description('list the flows of all vservers, one line each time one was noted')
    .option('--since <time>', 'flows that had packets since then; default 1h', '1h')
    .option('--until <time>', 'and before then; default now')
    .option('--json-lines', 'one JSON document a flow, as with --json')
    .option('--ipfix <file>', 'write them to a new file in the format of RFC 7011 instead')
    .addHelpText(
      'after',
      examples('slicenet node flows --since 1d --json-lines', 'slicenet node flows --ipfix day.ipfix')
    )
    .action((options: FlowsOptions) => run((context) => flows(context, options)))
  const audit = node.command('audit').description('look after the record of flows')
  audit
    .command('verify')
    .description('tell whether the record is what this node signed: neither cut nor altered')
    .option('--root <file>', 'a root that was kept elsewhere, as `node audit root` prints it')
    .addHelpText(
      'after',
      examples('slicenet node audit verify', 'slicenet node audit verify --root monday.root')
    )
    .action((options: { readonly root?: string }) => run((context) => verify(context, options.root)))
  audit
    .command('root')
    .description('print the last signed root of the record, to be kept on another machine')
    .option('--sign', 'sign one now; the node does so every hour')
    .addHelpText('after', examples('slicenet node audit root --sign > monday.root'))
    .action((options: { readonly sign?: boolean }) =>
      run((context) => root(context, options.sign === true), QUESTION)
    )
}

async function whois(context: CommandContext, options: WhoisOptions): Promise<Outcome> {
  const { signal } = context
  const now = Date.now()
  const protocol = parseProtocol(options.protocol)
  const params = {
    time: parseTime('--time', options.time, now),
    withinMs: parseDuration('--within', options.within),
    address: parseAddress(options.address),
    port: parsePort(options.port, protocol),
    ...(protocol === undefined ? {} : { protocol })
  }
  const answer = await withSession(context, (call) => call('nodeWhois', params, { signal }))
  const { owners, unwatched } = answer
  const flows = answer.flows.map(shownFlow)
  const document = {
    time: formatTime(params.time),
    flows,
    owners: owners.map(shownTenure),
    unwatched: unwatched.map(shownUnwatched)
  }
  for (const gap of unwatched) context.progress(unwatchedLine(gap))
  if (flows.length > 0 || owners.length > 0) {
    return { document, text: (style) => whoisText(answer.flows, owners, params, style) }
  }
  return {
    document,
    error: new SlicenetError(
      'NOT_FOUND',
      'nobody on this node is known to have had such packets or the port then',
      {
        hint: 'try with a larger --within; the record keeps a bounded time, see `slicenet node audit verify`'
      }
    )
  }
}

async function flows(context: CommandContext, options: FlowsOptions): Promise<Outcome> {
  const { terminal, signal } = context
  const now = Date.now()
  const since = parseTime('--since', options.since ?? '1h', now)
  const until = options.until === undefined ? now + 1 : parseTime('--until', options.until, now)
  const asLines = context.json || options.jsonLines === true
  if (options.ipfix !== undefined) return writeIpfix(context, { since, until }, options.ipfix)
  let count = 0
  await withSession(context, (call) =>
    call(
      'nodeFlows',
      { since, until },
      {
        signal,
        async onItem({ flows: some }) {
          count += some.length
          await writeAll(terminal.stdout, some.map(asLines ? documentOf : lineOf).join(''))
        }
      }
    )
  )
  if (count === 0) context.progress('no vserver had packets then')
  return {}
}

async function writeIpfix(
  context: CommandContext,
  interval: { readonly since: number; readonly until: number },
  file: string
): Promise<Outcome> {
  const { signal } = context
  const encoder = new IpfixEncoder()
  let count = 0
  try {
    await using handle = await open(file, 'wx')
    // With the template alone where there is no flow, so that the file is one all the same.
    await handle.write(encoder.encode([], Date.now()))
    await withSession(context, (call) =>
      call('nodeFlows', interval, {
        signal,
        async onItem({ flows: some }) {
          const told = some.filter((each) => each.kind === 'flow')
          // The format has no word for it.
          for (const each of some) if (each.kind === 'unwatched') context.progress(unwatchedLine(each))
          count += told.length
          await handle.write(encoder.encode(told, Date.now()))
        }
      })
    )
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    throw new SlicenetError('NAME_TAKEN', `there is a file ${file} already`, { cause: error })
  }
  return { document: { file, flows: count }, text: () => `${count} flows are in ${file}\n` }
}

async function verify(context: CommandContext, file: string | undefined): Promise<Outcome> {
  const { signal } = context
  const params = file === undefined ? {} : { root: Buffer.from(await readText(file), 'base64') }
  const verdict = await withSession(context, (call) => call('nodeAuditVerify', params, { signal }))
  const { signedAt, unwatched, ...rest } = verdict
  const hasRoot = file !== undefined || rest.roots > 0
  const document = {
    ...rest,
    sound: hasRoot && rest.faults.length === 0,
    ...(signedAt === undefined ? {} : { signedAt: formatTime(signedAt) }),
    unwatched: unwatched.map(shownUnwatched)
  }
  const text = (): string => formatFields(verdictFields(verdict, hasRoot))
  if (verdict.faults.length === 0 && hasRoot) return { document, text }
  if (verdict.faults.length === 0) {
    const error = new SlicenetError(
      'NOT_FOUND',
      'nothing of the record of flows has been signed yet: whether it was altered cannot be told',
      { hint: 'it is signed every hour, when the daemon stops, and by `slicenet node audit root --sign`' }
    )
    return { document, text, error }
  }
  const error = new SlicenetError(
    'STORE_CORRUPT',
    `the record of flows is not known to be what was signed: ${verdict.faults.join('; ')}`,
    {
      hint: 'keep a copy of the directory before anything else; what is there can still be read'
    }
  )
  return { document, text, error }
}

async function root(context: CommandContext, sign: boolean): Promise<Outcome> {
  const { signal } = context
  const {
    root: bytes,
    time,
    piece
  } = await withSession(context, (call) => call('nodeAuditRoot', { sign }, { signal }))
  const text = Buffer.from(bytes).toString('base64')
  return { document: { root: text, time: formatTime(time), piece }, text: () => `${text}\n` }
}

function whoisText(
  flows: readonly FlowEntry[],
  owners: readonly Tenure[],
  { port, protocol }: { readonly port: number; readonly protocol?: PortProtocol },
  style: Style
): string {
  const rows = [
    ...flows.map((flow) => [
      shortId(flow.principal ?? '-'),
      flow.slice ?? '-',
      shortId(flow.lease ?? '-'),
      flow.vserver,
      flowLine(flow)
    ]),
    ...owners.map(({ principal, slice, lease, vserver, ports, from, until, notAfter }) => {
      const which = ports
        .filter((range) => range.first <= port && port <= range.last)
        .filter((range) => protocol === undefined || range.protocol === protocol)
        .map(formatPortRange)
      const to = until === undefined && notAfter > Date.now() ? 'now' : formatTime(until ?? notAfter)
      return [
        shortId(principal),
        slice,
        shortId(lease),
        vserver,
        `had ${which.join(', ')} from ${formatTime(from)} to ${to}`
      ]
    })
  ]
  return formatTable(['HOLDER', 'SLICE', 'LEASE', 'VSERVER', 'WHAT'], rows, style)
}

function flowLine(flow: FlowEntry): string {
  const { protocol, localAddress, localPort, remoteAddress, remotePort } = flow
  const arrow = flow.begunBy === 'vserver' ? '->' : '<-'
  const count = (packets: number, bytes: number): string => `${packets} packets, ${byteUnit.format(bytes)}`
  return [
    formatTime(flow.first),
    formatTime(flow.last),
    protocol,
    `${localAddress}:${localPort} ${arrow} ${remoteAddress}:${remotePort}`,
    `out ${count(flow.sentPackets, flow.sentBytes)}; in ${count(flow.receivedPackets, flow.receivedBytes)};`,
    `slice ${flow.slice ?? '-'}, holder ${shortId(flow.principal ?? '-')}`
  ].join(' ')
}

function documentOf(each: FlowEntry | Unwatched): string {
  return formatDocument(each.kind === 'flow' ? shownFlow(each) : shownUnwatched(each))
}

function lineOf(each: FlowEntry | Unwatched): string {
  return `${each.kind === 'flow' ? flowLine(each) : unwatchedLine(each)}\n`
}

function unwatchedLine({ from, to }: Unwatched): string {
  return `not watched from ${formatTime(from)} to ${formatTime(to)}: connections that began and ended then are not known`
}

function shownUnwatched({ kind, from, to }: Unwatched): Record<string, unknown> {
  return { kind, from: precise(from), to: precise(to) }
}

function shownFlow({ first, last, ...rest }: FlowEntry): Record<string, unknown> {
  return { ...rest, first: precise(first), last: precise(last) }
}

function shownTenure({ from, until, notAfter, ...rest }: Tenure): Record<string, unknown> {
  const times = { from: precise(from), notAfter: precise(notAfter) }
  return { ...rest, ...times, ...(until === undefined ? {} : { until: precise(until) }) }
}

/** Flows of one second are told apart. */
function precise(time: number): string {
  return new Date(time).toISOString()
}

function verdictFields(
  { faults, firstPiece, lastPiece, roots, signedAt, signedPiece, unwatched }: LogVerdictView,
  hasRoot: boolean
): [string, string][] {
  const sound = hasRoot ? 'as it was signed' : 'nothing has been signed yet'
  return [
    ['record', faults.length === 0 ? sound : 'not as it was signed'],
    ['pieces', lastPiece < firstPiece ? 'none' : `${firstPiece} to ${lastPiece}`],
    ['roots', String(roots)],
    [
      'last signed',
      signedAt === undefined ? '-' : `${formatTime(signedAt)}, up to piece ${signedPiece ?? 0}`
    ],
    ...unwatched.map(({ from, to }): [string, string] => [
      'not watched',
      `${formatTime(from)} to ${formatTime(to)}`
    ])
  ]
}

/** Throws `USAGE`. */
function parseTime(option: string, text: string, now: number): number {
  const ago = durationUnit.parse(text)
  if (ago !== undefined) return Math.max(0, now - ago)
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : NaN
  if (Number.isFinite(time) && time >= 0) return time
  throw new SlicenetError(
    'USAGE',
    `${option}: expected a time such as 2026-11-28T17:00:00Z, or how long ago; got ${text}`
  )
}

/** Throws `USAGE`. */
function parseDuration(option: string, text: string): number {
  const duration = durationUnit.parse(text)
  if (duration !== undefined) return duration
  throw new SlicenetError('USAGE', `${option}: expected ${durationUnit.expected}; got ${text}`)
}

function parseAddress(text: string): string {
  if (isIPv4(text)) return text
  // As the record has it, which is one way of several.
  if (isIPv6(text) && !text.includes('%')) return canonicalAddress(text)
  throw new SlicenetError('USAGE', `--address: expected an IP address; got ${text}`)
}

/** Without a protocol it may be a key of GRE, which are the largest. */
function parsePort(text: string, protocol: PortProtocol = 'gre'): number {
  const port = /^\d{1,10}$/.test(text) ? Number(text) : NaN
  if (port <= portMax(protocol)) return port
  throw new SlicenetError('USAGE', `--port: expected 0 to ${portMax(protocol)}; got ${text}`)
}

function parseProtocol(text: string | undefined): PortProtocol | undefined {
  const protocol = PORT_PROTOCOLS.find((name) => name === text)
  if (protocol !== undefined || text === undefined) return protocol
  throw new SlicenetError('USAGE', `--protocol: expected ${PORT_PROTOCOLS.join(', ')}; got ${text}`)
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new SlicenetError('NOT_FOUND', `${file} cannot be read`, { cause })
  }
}
