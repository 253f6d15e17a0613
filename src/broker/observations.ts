/**
 * How far nodes and agents can be relied on, by what this broker's own tickets came to and by what agents tell. In
 * memory and bounded: whoever was seen longest ago is forgotten.
 */
import { LIMITS } from '../base/limits.ts'
import type { Principal } from '../ticket/principal.ts'
import {
  permille,
  rate,
  UNKNOWN_PERMILLE,
  weightOf,
  type Outcome,
  type Score
} from '../ticket/reliability.ts'

export type Role = 'node' | 'agent'

/** What others tell weighs as much as so many outcomes of one's own. */
const TOLD_WEIGHT = 4

export class Observations {
  readonly #max: number
  readonly #scores = new Map<string, Score>()

  constructor(init: { readonly ratedMax?: number } = {}) {
    this.#max = init.ratedMax ?? LIMITS.ratedMax
  }

  add(role: Role, principal: Principal, outcome: Outcome, now: number): void {
    const subject = `${role} ${principal}`
    const score = rate(this.#scores.get(subject), outcome, now)
    this.#scores.delete(subject)
    this.#scores.set(subject, score)
    const [oldest] = this.#scores.keys()
    if (this.#scores.size > this.#max && oldest !== undefined) this.#scores.delete(oldest)
  }

  /** From 0 to 1000, of what was seen alone; `undefined` when nothing was. */
  seen(role: Role, principal: Principal, now: number): number | undefined {
    const score = this.#scores.get(`${role} ${principal}`)
    return score && permille(score, now)
  }

  /** From 0 to 1000, of what was seen and of what others tell, each of them one number. */
  of(role: Role, principal: Principal, told: readonly number[], now: number): number {
    const score = this.#scores.get(`${role} ${principal}`)
    const weight = weightOf(score, now)
    const own = permille(score, now) * weight
    return Math.floor((own + median(told) * TOLD_WEIGHT) / (weight + TOLD_WEIGHT))
  }
}

/** Whoever praises or slanders alone does not move it; of two in the middle the lower. */
function median(told: readonly number[]): number {
  const sorted = [...told].sort((a, b) => a - b)
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? UNKNOWN_PERMILLE
}
