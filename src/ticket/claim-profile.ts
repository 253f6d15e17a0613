/**
 * The same answer as `peakClaimed`, over claims that come and go one by one, without walking them: what lets an agent
 * with thousands of tickets out, or a node with a thousand leases, decide on one more as fast as on the first.
 */
import { CapList } from './cap-list.ts'
import type { Claim } from './claims.ts'
import type { Interval } from './interval.ts'
import { LevelTree } from './level-tree.ts'
import { CAPS, RESOURCE_NAMES, type Resources } from './resources.ts'

const CONSUMED = RESOURCE_NAMES.filter((name) => !CAPS.has(name))

export class ClaimProfile {
  readonly #claims = new Set<Claim>()
  readonly #consumed = new LevelTree(CONSUMED.length)
  readonly #caps = [...CAPS].map((name) => ({ name, list: new CapList() }))

  /** How many claims are in it. */
  get size(): number {
    return this.#claims.size
  }

  has(claim: Claim): boolean {
    return this.#claims.has(claim)
  }

  /** O(log n), caps O(√n). Throws `TypeError` if this claim is in it already. */
  add(claim: Claim): void {
    if (this.#claims.has(claim)) throw new TypeError('this claim counts already')
    this.#claims.add(claim)
    if (claim.notBefore >= claim.notAfter) return
    this.#consumed.raise(consumedBy(claim), claim)
    for (const { name, list } of this.#caps) list.add(claim.resources[name], claim)
  }

  /** Takes out the very claim that was added. Throws `TypeError` if it is not in it. */
  remove(claim: Claim): void {
    if (!this.#claims.delete(claim)) throw new TypeError('this claim does not count')
    if (claim.notBefore >= claim.notAfter) return
    this.#consumed.lower(consumedBy(claim), claim)
    for (const { name, list } of this.#caps) list.remove(claim.resources[name], claim)
  }

  /** For each resource, the most that the claims hold together at one instant of `window`, which is not empty. */
  peak(window: Interval): Resources {
    const levels = this.#consumed.highest(window)
    return this.#resources(levels, (list) => list.largest(window))
  }

  /** The peak over all time: never less than that of a window, and known without looking. */
  peakEver(): Resources {
    return this.#resources(this.#consumed.highestEver(), (list) => list.largestEver())
  }

  #resources(levels: readonly number[], cap: (list: CapList) => number): Resources {
    const amounts: Partial<Record<keyof Resources, number>> = {}
    for (const [index, name] of CONSUMED.entries()) amounts[name] = levels[index] ?? 0
    for (const { name, list } of this.#caps) amounts[name] = cap(list)
    return amounts as Resources
  }
}

function consumedBy({ resources }: Claim): number[] {
  return CONSUMED.map((name) => resources[name])
}
