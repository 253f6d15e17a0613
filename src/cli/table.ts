/** Text for people: aligned tables, times, shortened ids; and the taming of what peers may have put into it. */

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
