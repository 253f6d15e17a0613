/**
 * Queries: CEL over one node's advertisement (design §4), such as `node.cpu.free >= 500 && node.region == "eu"`.
 * A missing attribute is no match, never an abort.
 */
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import { failedClause, holds, type FailedClause } from './clauses.ts'
import { clausesOf, compileExpression, conjuncts, dialect, namesIn } from './expression.ts'
import { demandedKeys } from './index-terms.ts'
import { queryable } from './queryable.ts'

export { clauseText, type FailedClause } from './clauses.ts'

export interface Query {
  readonly text: string
  /** Keys of the index (src/ticket/index-term.ts): of each list every node that matches has one. */
  readonly demands: readonly (readonly string[])[]
  /** Whether every clause holds for this node: the same as no failures, in less time. */
  matches(advert: NodeAdvertisement): boolean
  /** The clauses that do not hold for this node, each with the value it saw; empty when the query matches. */
  failures(advert: NodeAdvertisement): FailedClause[]
}

const QUERIES = dialect(
  { node: 'map' },
  {
    types: new Set(['bool', 'dyn']),
    rule: 'a query is true or false',
    example: 'node.region == "eu" && node.cpu.free >= 500'
  }
)

/** Throws `QUERY_INVALID` with the place of the fault. */
export function compileQuery(text: string): Query {
  const expression = compileExpression(text, QUERIES)
  const clauses = clausesOf(expression, QUERIES)
  const names = namesIn(expression.ast, QUERIES)
  return {
    text,
    demands: demandedKeys(conjuncts(expression.ast)),
    matches(advert) {
      const context = { node: queryable(advert, names) }
      return clauses.every((clause) => holds(clause, context))
    },
    failures(advert) {
      const context = { node: queryable(advert, names) }
      return clauses
        .filter((clause) => !holds(clause, context))
        .map((clause) => failedClause(clause, context))
    }
  }
}
