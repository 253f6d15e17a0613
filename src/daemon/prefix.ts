/** Finding the one thing that somebody named by its id, its name, or the beginning of either. Pure. */
import { SlicenetError } from '../base/errors.ts'
import { principalSchema } from '../ticket/principal.ts'
import { parse } from '../wire/codec.ts'

export interface PrefixInit<T> {
  /** What is looked for, such as `slice`. */
  readonly what: string
  /** By which each may be called. */
  readonly namesOf: (item: T) => readonly string[]
}

const SHOWN_MAX = 8

/**
 * A whole name wins over the beginnings of others. Throws `NOT_FOUND`, and `AMBIGUOUS_ID` with the names that begin
 * so in `details.candidates`.
 */
export function findByPrefix<T>(items: readonly T[], given: string, init: PrefixInit<T>): T {
  const exact = items.filter((item) => init.namesOf(item).includes(given))
  const found =
    exact.length > 0
      ? exact
      : items.filter((item) => given !== '' && init.namesOf(item).some((name) => name.startsWith(given)))
  const [first, second] = found
  if (first === undefined) {
    throw new SlicenetError('NOT_FOUND', `there is no ${init.what} ${given}`, {
      details: { given, known: items.slice(0, SHOWN_MAX).map((item) => init.namesOf(item)[0] ?? '') }
    })
  }
  if (second === undefined) return first
  const candidates = found.map((item) => init.namesOf(item).find((name) => name.startsWith(given)) ?? '')
  const shown = candidates.slice(0, SHOWN_MAX).join(', ')
  const more = candidates.length > SHOWN_MAX ? ` and ${candidates.length - SHOWN_MAX} more` : ''
  throw new SlicenetError('AMBIGUOUS_ID', `${given} could be any ${init.what} of ${shown}${more}`, {
    hint: 'give more of the name or id',
    details: { given, candidates: candidates.slice(0, 100) }
  })
}

/** Throws `KEY_INVALID` for what is no ed25519 peer id. */
export function requirePrincipal(text: string): void {
  parse(principalSchema, text, 'KEY_INVALID', text)
}
