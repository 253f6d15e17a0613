/** Whether clauses hold, and for people who ask why one does not, what it saw instead. Pure. */
import type { Clause, Path } from './expression.ts'
import type { Queryable } from './queryable.ts'

/** A condition that does not hold, and what was there instead; no value where there is none. */
export interface FailedClause {
  readonly clause: string
  readonly value?: string
}

/** The nodes that an expression is about, by the names that it has for them. */
export type Context = Readonly<Record<string, unknown>>

/** Of a value in an explanation. */
const SEEN_CHARS_MAX = 200

/** For people. */
export function clauseText({ clause, value }: FailedClause): string {
  return `${clause} (${value === undefined ? 'it has none' : `it is ${value}`})`
}

/** What is missing, and comparisons of unlike types, are not true; never an abort. */
export function holds({ needs, plain, evaluate }: Clause, context: Context): boolean {
  const quick = plain?.test(at(plain.path, context))
  if (quick !== undefined) return quick
  // That something is missing is found out in a hundredth of the time that the library takes to fail.
  if (
    needs.some(
      ([variable, name]) => at(name === undefined ? [variable] : [variable, name], context) === undefined
    )
  )
    return false
  try {
    return evaluate(context) === true
  } catch {
    return false
  }
}

/** Of a comparison the side that is no constant; else all that the clause looks at. */
export function failedClause({ text, seen, paths }: Clause, context: Context): FailedClause {
  const value = seen === undefined ? seenAt(paths, context) : evaluated(seen, context)
  return value === undefined ? { clause: text } : { clause: text, value: shortened(value) }
}

function evaluated(seen: (context: object) => unknown, context: Context): string | undefined {
  try {
    return printed(seen(context))
  } catch {
    return undefined
  }
}

function seenAt(paths: readonly Path[], context: Context): string | undefined {
  const [only, ...others] = paths
  // It looks at nothing, and does not hold whatever the node is.
  if (only === undefined) return 'false'
  const value = at(only, context)
  if (others.length === 0) return value === undefined ? undefined : printed(value)
  const each = paths.map((path) => {
    const seen = at(path, context)
    return `${path.join('.')} ${seen === undefined ? 'none' : printed(seen)}`
  })
  return each.join(', ')
}

function at(path: Path, context: Context): unknown {
  let value: unknown = context
  for (const name of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = (value as Queryable)[name]
  }
  return value
}

function printed(value: unknown): string {
  const text: string | undefined = JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'bigint' ? Number(inner) : inner
  )
  return text ?? String(value)
}

function shortened(text: string): string {
  return text.length > SEEN_CHARS_MAX ? `${text.slice(0, SEEN_CHARS_MAX)}…` : text
}
