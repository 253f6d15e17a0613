/**
 * How far somebody can be relied on, from what became of tickets: a number from what was kept and what was broken, in
 * which the past weighs less and less. Pure, in integers, so that it is the same wherever it is computed.
 */

export type Outcome = 'kept' | 'broken'

/** Weights in thousandths of an outcome; `since` is the UTC ms at which they were last halved. */
export interface Score {
  readonly kept: number
  readonly broken: number
  readonly since: number
}

const HALF_LIFE_MS = 7 * 24 * 3_600_000
const ONE = 1000
/** A long good past must not hide that somebody has turned: it weighs no more than so many outcomes. */
const WEIGHT_MAX = 50 * ONE

/** The score with one more outcome. `now` is UTC ms. */
export function rate(score: Score | undefined, outcome: Outcome, now: number): Score {
  const { kept, broken, since } = aged(score ?? { kept: 0, broken: 0, since: now }, now)
  const grown = outcome === 'kept' ? { kept: kept + ONE, broken } : { kept, broken: broken + ONE }
  const sum = grown.kept + grown.broken
  const scale = (weight: number): number =>
    sum <= WEIGHT_MAX ? weight : Math.floor((weight * WEIGHT_MAX) / sum)
  return { kept: scale(grown.kept), broken: scale(grown.broken), since }
}

/**
 * From 1 to 999 of 1000, by Laplace's rule of succession, as if one ticket had been kept and one broken before the
 * first. So somebody without receipts has 500: behind all who have kept to more than they broke, ahead of all others;
 * nobody gains by beginning anew under another name unless they deserved less. 0 is left for proven fraud.
 */
export function permille(score: Score | undefined, now: number): number {
  const { kept, broken } = aged(score ?? { kept: 0, broken: 0, since: now }, now)
  return Math.floor(((kept + ONE) * 1000) / (kept + broken + 2 * ONE))
}

/** How much was seen, in outcomes. */
export function weightOf(score: Score | undefined, now: number): number {
  const { kept, broken } = aged(score ?? { kept: 0, broken: 0, since: now }, now)
  return (kept + broken) / ONE
}

export const UNKNOWN_PERMILLE = permille(undefined, 0)

function aged(score: Score, now: number): Score {
  const halvings = Math.max(0, Math.floor((now - score.since) / HALF_LIFE_MS))
  if (halvings === 0) return score
  const half = (weight: number): number => Math.floor(weight / 2 ** Math.min(halvings, 60))
  return {
    kept: half(score.kept),
    broken: half(score.broken),
    since: score.since + halvings * HALF_LIFE_MS
  }
}
