/** Ranks: CEL over one node's advertisement that gives a number; nodes with more are preferred. Pure. */
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import { compileExpression, dialect, namesIn } from './expression.ts'
import { queryable } from './queryable.ts'

export interface Rank {
  readonly text: string
  /** `undefined` where the node lacks what it looks at, or it gives no number: such nodes come last. */
  of(advert: NodeAdvertisement): number | undefined
}

const RANKS = dialect(
  { node: 'map' },
  {
    types: new Set(['int', 'uint', 'double', 'dyn']),
    rule: 'a rank is a number',
    example: 'node.cpu.free + node.memory.free / 1000000'
  }
)

/** Throws `QUERY_INVALID` with the place of the fault. */
export function compileRank(text: string): Rank {
  const { ast, evaluate } = compileExpression(text, RANKS)
  const names = namesIn(ast, RANKS)
  return {
    text,
    of(advert) {
      try {
        return numberOf(evaluate({ node: queryable(advert, names) }))
      } catch {
        return undefined
      }
    }
  }
}

function numberOf(value: unknown): number | undefined {
  // CEL's unsigned integers are objects of the library's.
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
  const plain = isObject ? value.valueOf() : value
  if (typeof plain !== 'number' && typeof plain !== 'bigint') return undefined
  const number = Number(plain)
  return Number.isFinite(number) ? number : undefined
}
