/** `slicenet ticket inspect FILE`: what a signed object or a chain of them says, and whether it holds. */
import type { Command } from 'commander'
import { byteUnit, cpuUnit, rateUnit } from '../base/units.ts'
import { inspectFile, type InspectedObject, type Inspection } from '../daemon/inspection.ts'
import { examples, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome } from './output.ts'
import { formatFields, formatTime } from './table.ts'

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
}

async function inspect({ services }: CommandContext, file: string): Promise<Outcome> {
  const { error, ...inspection } = await inspectFile(file, services.now())
  return {
    document: inspection,
    text: () => inspectionText(inspection),
    ...(error === undefined ? {} : { error })
  }
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
  if (name.startsWith('egressBps')) return `${value} (${rateUnit.format(value)})`
  return String(value)
}
