/** Text for people: aligned tables, times, shortened ids; and the taming of what peers may have put into it. */
import { durationUnit } from '../base/units.ts'

/**
 * Peers choose names, attributes and messages: control characters could move the cursor, and marks of writing
 * direction could make one name look like another.
 */
export function tame(text: string): string {
  return text.replaceAll(
    // oxlint-disable-next-line no-control-regex -- these are what is looked for.
    /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`
  )
}

/** Columns as wide as their widest cell, two spaces apart; no spaces at the ends of lines. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  options: { readonly heading?: (line: string) => string } = {}
): string {
  const lines = [header, ...rows].map((row) => row.map(tame))
  const widths = header.map((_, column) => Math.max(...lines.map((line) => widthOf(line[column] ?? ''))))
  const [first = '', ...rest] = lines.map((line) =>
    line
      .map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - widthOf(cell)))
      .join('  ')
      .trimEnd()
  )
  return [options.heading?.(first) ?? first, ...rest].map((line) => `${line}\n`).join('')
}

export interface Column<Row> {
  readonly name: string
  readonly cell: (row: Row) => string
  /** Where the terminal is too narrow, the column with the largest is left out first; never without. */
  readonly spare?: number
}

/** A table of the columns that fit into `width`; of all of them without one, as when no terminal reads it. */
export function formatColumns<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  options: { readonly heading?: (line: string) => string; readonly width?: number } = {}
): string {
  const kept = [...columns]
  for (;;) {
    const header = kept.map(({ name }) => name)
    const cells = rows.map((row) => kept.map(({ cell }) => clip(cell(row))))
    const width = Math.max(...formatTable(header, cells).split('\n').map(widthOf))
    const [spare] = kept
      .filter((one) => one.spare !== undefined)
      .sort((a, b) => (b.spare ?? 0) - (a.spare ?? 0))
    if (spare === undefined || width <= (options.width ?? Infinity))
      return formatTable(header, cells, options)
    kept.splice(kept.indexOf(spare), 1)
  }
}

const CELL_CHARS_MAX = 32

/** What a peer says of itself must not make a table wider than anybody can read. */
function clip(text: string): string {
  const characters = Array.from(text)
  return characters.length <= CELL_CHARS_MAX ? text : `${characters.slice(0, CELL_CHARS_MAX - 1).join('')}…`
}

function widthOf(text: string): number {
  return Array.from(text).length
}

/** Names and values one below the other. */
export function formatFields(fields: readonly (readonly [string, string])[]): string {
  const width = Math.max(...fields.map(([name]) => name.length)) + 1
  return fields.map(([name, value]) => `${`${name}:`.padEnd(width)}  ${tame(value)}\n`).join('')
}

/** RFC 3339, UTC, to the second. */
export function formatTime(time: number): string {
  return new Date(time).toISOString().replace(/\.\d{3}Z$/, 'Z')
}

const SHORT_ID_CHARS = 16

/** Enough of a peer ID or object id to be told apart, and to be given back. */
export function shortId(id: string): string {
  return id.slice(0, id.startsWith('sha256:') ? SHORT_ID_CHARS + 3 : SHORT_ID_CHARS)
}

/** How long ago, to the second or less exactly. */
export function formatAge(ageMs: number): string {
  return ageMs < 1000 ? '0s' : durationUnit.format(ageMs)
}
