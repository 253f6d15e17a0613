/** What an agent thinks of nodes and of other agents, by receipts. Bounded; who was heard of longest ago is forgotten. */
import { LIMITS } from '../base/limits.ts'
import type { Rating } from '../protocol/agent-protocol.ts'
import type { Entry } from '../store/store.ts'
import type { Principal } from '../ticket/principal.ts'
import { permille, rate, type Outcome, type Score } from '../ticket/reliability.ts'
import { ratingEntry } from './agent-tables.ts'

/** One principal may be both, and is rated as each. */
export type Role = 'node' | 'agent'

export interface RatingsComponents {
  /** Whether a valid proof of fraud against somebody is known. */
  readonly isProven: (principal: Principal) => boolean
}

export class Ratings {
  readonly #components: RatingsComponents
  readonly #max: number
  /** By role and principal, in the order in which they were last heard of. */
  readonly #scores = new Map<string, Score>()

  constructor(components: RatingsComponents, init: { readonly ratedMax?: number } = {}) {
    this.#components = components
    this.#max = init.ratedMax ?? LIMITS.ratedMax
  }

  restore(kept: readonly (readonly [subject: string, score: Score])[]): void {
    for (const [subject, score] of kept) this.#scores.set(subject, score)
  }

  /** Takes an outcome; gives what to write down. */
  add(role: Role, principal: Principal, outcome: Outcome, now: number): Entry[] {
    const subject = subjectOf(role, principal)
    const score = rate(this.#scores.get(subject), outcome, now)
    this.#scores.delete(subject)
    this.#scores.set(subject, score)
    const [oldest] = this.#scores.keys()
    if (this.#scores.size <= this.#max || oldest === undefined) return [ratingEntry(subject, score)]
    this.#scores.delete(oldest)
    return [ratingEntry(subject, score), ratingEntry(oldest, null)]
  }

  /** From 0 to 1000; 0 is proven fraud, and nothing else. */
  of(role: Role, principal: Principal, now: number): number {
    if (this.#components.isProven(principal)) return 0
    return permille(this.#scores.get(subjectOf(role, principal)), now)
  }

  /** Of other agents, those heard of last. */
  agents(now: number): Rating[] {
    return [...this.#scores.keys()]
      .filter((subject) => subject.startsWith('agent '))
      .slice(-LIMITS.ratingsMax)
      .map((subject) => {
        const agent = subject.slice('agent '.length)
        return { agent, reliability: this.of('agent', agent, now) }
      })
  }
}

function subjectOf(role: Role, principal: Principal): string {
  return `${role} ${principal}`
}
