/** How the members of a slice are to lie to one another, as it is asked for and compiled. Pure. */
import type { Want } from '../protocol/broker-protocol.ts'
import { compilePairwise, type Pairwise } from '../query/pairwise.ts'
import { compileRank, type Rank } from '../query/rank.ts'

export type PlacementWish = Pick<Want, 'distinct' | 'spread' | 'rank' | 'pairwise'>

export interface Placement {
  /** No two members have the same value of any of these attributes, and all have one. */
  readonly distinct: readonly string[]
  /** Members are spread as evenly as can be over the values of this attribute; those without it are one group. */
  readonly spread: string | undefined
  readonly rank: Rank | undefined
  readonly pairwise: Pairwise | undefined
}

/** Throws `QUERY_INVALID`. */
export function compilePlacement({ distinct, spread, rank, pairwise }: PlacementWish): Placement {
  return {
    distinct: [...new Set(distinct)],
    spread,
    rank: rank === undefined ? undefined : compileRank(rank),
    pairwise: pairwise === undefined ? undefined : compilePairwise(pairwise)
  }
}
