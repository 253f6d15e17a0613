/**
 * Pairwise conditions: CEL that is to hold for every two members of a slice, over `a` and `b`, each as `node` in a query,
 * and over `rtt_ms`, the round-trip time between them in milliseconds. Whichever of two is `a`, it is to hold. Pure.
 */
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import { failedClause, holds, type Context, type FailedClause } from './clauses.ts'
import { clausesOf, compileExpression, dialect, mentions, namesIn } from './expression.ts'
import { queryable, type Queryable } from './queryable.ts'

export interface Pairwise {
  readonly text: string
  /** Whether it looks at the time between two nodes. */
  readonly usesRtt: boolean
  /** What it sees of a node, to be made once. */
  view(advert: NodeAdvertisement): Queryable
  /** `rttMs`: `undefined` where it is not known. */
  holds(one: Queryable, other: Queryable, rttMs: number | undefined): boolean
  failures(one: Queryable, other: Queryable, rttMs: number | undefined): FailedClause[]
}

const PAIRS = dialect(
  { a: 'map', b: 'map', rtt_ms: 'double' },
  {
    types: new Set(['bool', 'dyn']),
    rule: 'a condition on pairs is true or false',
    example: 'rtt_ms < 80 && a.country != b.country'
  }
)

/** Throws `QUERY_INVALID` with the place of the fault. */
export function compilePairwise(text: string): Pairwise {
  const expression = compileExpression(text, PAIRS)
  const clauses = clausesOf(expression, PAIRS)
  const names = namesIn(expression.ast, PAIRS)
  const isSymmetric = !mentions(expression.ast, PAIRS.nodes)
  const contexts = (one: Queryable, other: Queryable, rttMs: number | undefined): Context[] => {
    const rtt = rttMs === undefined ? {} : { rtt_ms: rttMs }
    return isSymmetric
      ? [rtt]
      : [
          { a: one, b: other, ...rtt },
          { a: other, b: one, ...rtt }
        ]
  }
  return {
    text,
    usesRtt: mentions(expression.ast, ['rtt_ms']),
    view: (advert) => queryable(advert, names),
    holds: (one, other, rttMs) =>
      contexts(one, other, rttMs).every((context) => clauses.every((clause) => holds(clause, context))),
    failures(one, other, rttMs) {
      const failed = contexts(one, other, rttMs).flatMap((context) =>
        clauses.filter((clause) => !holds(clause, context)).map((clause) => failedClause(clause, context))
      )
      return [...new Map(failed.map((one) => [one.clause, one])).values()]
    }
  }
}
