/** `slicenet ticket …`: shows tickets and other signed objects, checks proofs of fraud, takes tickets back. */
import { InvalidArgumentError, type Command } from 'commander'
import { asSlicenetError } from '../base/errors.ts'
import { byteUnit, cpuUnit, rateUnit } from '../base/units.ts'
import type { ControlCaller } from '../daemon/control-client.ts'
import type { TicketView } from '../daemon/control-protocol.ts'
import { inspectFile, isObjectId, type InspectedObject, type Inspection } from '../daemon/inspection.ts'
import { findByPrefix, requirePrincipal } from '../daemon/prefix.ts'
import { verifyProofFile } from '../daemon/proof-view.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { verifiedText } from './proof-view.ts'
import { withSession } from './session.ts'
import { formatFields, formatTable, formatTime, shortId } from './table.ts'

export function addTicketCommand(root: Command, run: RunCommand): void {
  const ticket = root.command('ticket').description('look into tickets and other signed objects')
  ticket
    .command('inspect')
    .description('show a signed object or a chain of them, and whether it holds (exit code 5 if not)')
    .argument('<file>', 'envelopes as bytes, base64 or hex')
    .addHelpText(
      'after',
      examples('slicenet ticket inspect ticket.bin', 'slicenet ticket inspect chain.b64 --json')
    )
    .action((file: string) => run((context) => inspect(context, file)))
  ticket
    .command('verify-proof')
    .description(
      'check a proof of fraud by its own evidence, with nothing else (exit code 5 if it proves nothing)'
    )
    .argument('<file>', 'a proof with its evidence, as bytes, base64 or hex')
    .addHelpText(
      'after',
      examples(
        'slicenet ticket verify-proof mallory.proof',
        'slicenet ticket verify-proof mallory.proof --json'
      )
    )
    .action((file: string) => run((context) => verifyProof(context, file)))
  ticket
    .command('list')
    .description("list the tickets that this peer's agent issued, and those that this peer holds")
    .addHelpText('after', examples('slicenet ticket list', 'slicenet ticket list --json'))
    .action(() => run(list, QUESTION))
  ticket
    .command('revoke')
    .description('take a ticket back that this agent issued, or on a node refuse one whoever issued it')
    .argument('<id>', 'the ticket, or how the id of one that is listed begins')
    .addHelpText('after', examples('slicenet ticket revoke bafyreigh2akis'))
    .action((id: string) => run((context) => revoke(context, id), QUESTION))
  ticket
    .command('revoke-issuer')
    .description('on a node, take no more tickets of an agent, such as one whose key was stolen')
    .argument('<principal>', 'the peer id of the agent')
    .option('--before <number>', 'only tickets with a smaller sequence number', wholeNumber)
    .addHelpText(
      'after',
      examples(
        'slicenet ticket revoke-issuer 12D3Koo…',
        'slicenet ticket revoke-issuer 12D3Koo… --before 4711'
      )
    )
    .action((issuer: string, { before }: { before?: number }) =>
      run((context) => revokeIssuer(context, issuer, before), QUESTION)
    )
}

function wholeNumber(text: string): number {
  const number = Number(text)
  if (Number.isSafeInteger(number) && number >= 0) return number
  throw new InvalidArgumentError('expected a whole number')
}

async function revokeIssuer(
  context: CommandContext,
  issuer: string,
  beforeSeq = Number.MAX_SAFE_INTEGER
): Promise<Outcome> {
  const { signal } = context
  requirePrincipal(issuer)
  const { revocation } = await withSession(context, (call) =>
    call('issuerRevoke', { issuer, beforeSeq }, { signal })
  )
  return {
    document: { issuer, beforeSeq, revocation },
    text: () => `tickets of ${issuer} are revoked here: leases in force go on, and are not renewed\n`
  }
}

async function inspect({ services }: CommandContext, file: string): Promise<Outcome> {
  const { error, ...inspection } = await inspectFile(file, services.now())
  return {
    document: inspection,
    text: () => inspectionText(inspection),
    ...(error === undefined ? {} : { error })
  }
}

async function verifyProof(_context: CommandContext, file: string): Promise<Outcome> {
  try {
    const verified = await verifyProofFile(file)
    return {
      document: { proven: true, ...verified },
      text: (style) => verifiedText(verified, style)
    }
  } catch (thrown) {
    const error = asSlicenetError(thrown)
    if (error.code === 'NOT_FOUND') throw error
    return { document: { proven: false }, text: () => '', error }
  }
}

async function list(context: CommandContext): Promise<Outcome> {
  const { signal } = context
  const { tickets } = await withSession(context, (call) => call('ticketList', {}, { signal }))
  return { document: { tickets }, text: (style) => ticketTable(tickets, style) }
}

function ticketTable(tickets: readonly TicketView[], style: Style): string {
  if (tickets.length === 0) return 'No tickets.\n'
  const rows = tickets.map((ticket) => [
    shortId(ticket.ticket),
    ticket.role,
    ticket.slice ?? '-',
    shortId(ticket.node),
    shortId(ticket.issuer),
    shortId(ticket.holder),
    ticket.state,
    formatTime(ticket.notAfter)
  ])
  return formatTable(['TICKET', 'ROLE', 'SLICE', 'NODE', 'ISSUER', 'HOLDER', 'STATE', 'ENDS'], rows, style)
}

const MEANING = {
  agent: 'nothing is redeemed with it or renewed after it any more',
  node: 'nothing is redeemed or renewed with it here; a lease of it goes on, and its issuer may issue another (`slicenet ticket revoke-issuer`)'
} as const

async function revoke(context: CommandContext, given: string): Promise<Outcome> {
  const { signal } = context
  const { ticket, revocation, by } = await withSession(context, async (call) => {
    // A node need not know the ticket that it is to refuse.
    const ticket = isObjectId(given) ? given : await findIssued(call, given, signal)
    return { ticket, ...(await call('ticketRevoke', { ticket }, { signal })) }
  })
  return {
    document: { ticket, revocation, by },
    text: () => `${ticket} is revoked by this ${by}: ${MEANING[by]}\n`
  }
}

async function findIssued(call: ControlCaller, given: string, signal: AbortSignal): Promise<string> {
  const { tickets } = await call('ticketList', {}, { signal })
  const issued = tickets.filter(({ role }) => role === 'issued')
  return findByPrefix(issued, given, { what: 'ticket', namesOf: ({ ticket }) => [ticket] }).ticket
}

function inspectionText({ objects, chain }: Inspection): string {
  const parts = objects.map(objectText)
  if (chain !== undefined) {
    parts.push(
      `chain:  ${chain.valid ? 'every link holds' : `${chain.code ?? ''}: ${chain.message ?? ''}`}\n`
    )
  }
  return parts.join('\n')
}

function objectText({ type, id, signer, signature, fault, body }: InspectedObject): string {
  const validity = fault === undefined ? signature : `${signature} (${fault.code}: ${fault.message})`
  return formatFields([
    ['type', type],
    ['id', id],
    ['signer', signer],
    ['signature', validity],
    ...flatten(body)
  ])
}

const TIMES: ReadonlySet<string> = new Set(['notBefore', 'notAfter', 'redeemBefore'])

function flatten(body: Readonly<Record<string, unknown>>, prefix = ''): [string, string][] {
  return Object.entries(body).flatMap(([name, value]): [string, string][] => {
    const isMap = typeof value === 'object' && value !== null && !Array.isArray(value)
    if (isMap && !(value instanceof Uint8Array)) {
      return flatten(value as Record<string, unknown>, `${prefix}${name}.`)
    }
    return [[`${prefix}${name}`, fieldText(name, value)]]
  })
}

function fieldText(name: string, value: unknown): string {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex')
  if (typeof value === 'number') return numberText(name, value)
  if (Array.isArray(value)) return value.map((item) => fieldText('', item)).join(', ') || '-'
  if (typeof value !== 'object' || value === null) return String(value)
  return portText(value) ?? JSON.stringify(value)
}

function portText(value: { protocol?: unknown; first?: unknown; last?: unknown }): string | undefined {
  const { protocol, first, last } = value
  if (typeof protocol !== 'string' || typeof first !== 'number' || typeof last !== 'number') return undefined
  return first === last ? `${protocol}/${first}` : `${protocol}/${first}-${last}`
}

/** Amounts also as people say them, from the unit at the end of their names. */
function numberText(name: string, value: number): string {
  const isTime = TIMES.has(name) && value <= 8_640_000_000_000_000
  if (isTime) return formatTime(value)
  if (name.startsWith('cpuMillis')) return cpuUnit.format(value)
  if (value < 1000) return String(value)
  if (name.endsWith('Bytes') || name.endsWith('BytesPerDay')) return `${value} (${byteUnit.format(value)})`
  if (/Bps(Max)?$/.test(name)) return `${value} (${rateUnit.format(value)})`
  return String(value)
}
