/** How often one signer may change its advert: a token bucket, so that nobody can keep the overlay busy. */
import { LIMITS } from '../base/limits.ts'

const MS_PER_TOKEN = 60_000 / LIMITS.advertsPerSignerPerMinute

export class SignerRate {
  #tokens: number = LIMITS.advertsPerSignerBurst
  #filledAt = 0

  /** Takes one, `monotonicMs` being the time on the monotonic clock; false when none is left. */
  take(monotonicMs: number): boolean {
    const gained = Math.max(0, monotonicMs - this.#filledAt) / MS_PER_TOKEN
    this.#tokens = Math.min(LIMITS.advertsPerSignerBurst, this.#tokens + gained)
    this.#filledAt = monotonicMs
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }
}
