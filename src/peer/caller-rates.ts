/** How often callers may have something done: each of them, and all together. */
import { LIMITS } from '../base/limits.ts'
import type { Principal } from '../ticket/principal.ts'
import { SignerRate, type SignerRateInit } from './signer-rate.ts'

export class CallerRates {
  readonly #each: SignerRateInit
  readonly #all: SignerRate
  readonly #callers = new Map<Principal, SignerRate>()

  constructor(init: { readonly each: SignerRateInit; readonly all: SignerRateInit }) {
    this.#each = init.each
    this.#all = new SignerRate(init.all)
  }

  take(caller: Principal, monotonicMs: number, amount = 1): boolean {
    const rate = this.#callers.get(caller) ?? new SignerRate(this.#each)
    this.#callers.delete(caller)
    this.#callers.set(caller, rate)
    const [oldest] = this.#callers.keys()
    // Whoever comes back under new names is held by the rate of all.
    if (this.#callers.size > LIMITS.ratedCallersMax && oldest !== undefined) this.#callers.delete(oldest)
    return rate.take(monotonicMs, amount) && this.#all.take(monotonicMs, amount)
  }
}
