/** How a command's outcome leaves the program: one JSON document, or text for people; errors alike. */
import type { Writable } from 'node:stream'
import type { SlicenetError } from '../base/errors.ts'
import { formatTable, tame } from './table.ts'

export interface Outcome {
  /** What `--json` prints beside `schema`; absent when the command wrote everything itself. */
  readonly document?: Readonly<Record<string, unknown>>
  /** What people read. */
  readonly text?: (style: Style) => string
  /** What went wrong although there is something to show. */
  readonly error?: SlicenetError
  /** For commands that end as the program they ran; an error's own comes first. */
  readonly exitCode?: number
}

/** How headings and warnings are set off, and the columns that there are; plain and boundless without a terminal. */
export interface Style {
  readonly width?: number
  readonly heading: (text: string) => string
  readonly bad: (text: string) => string
}

export const plainStyle: Style = { heading: (text) => text, bad: (text) => text }
export const colorStyle: Style = {
  heading: (text) => `\u001b[1m${text}\u001b[22m`,
  bad: (text) => `\u001b[31m${text}\u001b[39m`
}

export const SCHEMA = 1

/** Fields that hold UTC milliseconds inside and RFC 3339 outside. */
const TIME_FIELDS: ReadonlySet<string> = new Set([
  'advertisedAt',
  'connectedAt',
  'createdAt',
  'expiresAt',
  'importedAt',
  'lastWrittenAt',
  'lostAfter',
  'notAfter',
  'notBefore',
  'receivedAt',
  'redeemBefore',
  'startedAt',
  'time'
])

export function formatDocument(document: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify({ schema: SCHEMA, ...(outside(document) as object) })}\n`
}

/** What JSON has no form of: times become RFC 3339 in UTC, bytes base64. */
function outside(value: unknown, name = ''): unknown {
  if (typeof value === 'number') return TIME_FIELDS.has(name) ? new Date(value).toISOString() : value
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  if (Array.isArray(value)) return value.map((item) => outside(item))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, outside(item, key)]))
}

export function formatError(error: SlicenetError, style: Style, debug: boolean): string {
  const lines = [`${style.bad('error:')} ${tameLines(error.message)}`, `  code: ${error.code}`]
  if (error.hint !== undefined) lines.push(`  hint: ${tame(error.hint)}`)
  const stack = debug ? `${stackOf(error)}\n` : ''
  return `${lines.join('\n')}\n${failingClauses(error, style)}${stack}`
}

/** Messages may quote a program's output, whose lines are worth keeping. */
function tameLines(text: string): string {
  return text.split('\n').map(tame).join('\n  ')
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause === undefined ? '' : `\ncaused by: ${stackOf(error.cause)}`
  return `${error.stack ?? error.message}${cause}`
}

/** Of `NO_MATCH`: for every node what of the query it fails. */
function failingClauses(error: SlicenetError, style: Style): string {
  const nodes = error.code === 'NO_MATCH' ? error.details?.['nodes'] : undefined
  if (!Array.isArray(nodes) || nodes.length === 0) return ''
  const rows = nodes.flatMap((node: { name?: unknown; node?: unknown; failed?: unknown }) => {
    const failed = Array.isArray(node.failed) ? node.failed.map(String) : []
    return failed.map((clause, index) => [index === 0 ? String(node.name ?? node.node) : '', clause])
  })
  return `\n${formatTable(['NODE', 'FAILING CLAUSE'], rows, style)}`
}

/** Writes and waits until it is taken, so that the program's end cuts nothing off. */
export async function writeAll(stream: Writable, text: string | Uint8Array): Promise<void> {
  if (text.length === 0) return
  await new Promise<void>((resolve, reject) => {
    stream.write(text, (error) => (error === null || error === undefined ? resolve() : reject(error)))
  })
}
