/**
 * How often one signer may change its advert, or one peer bring a proof: a token bucket, so that nobody can keep the
 * overlay busy.
 */
import { LIMITS } from '../base/limits.ts'

export interface SignerRateInit {
  readonly burst: number
  readonly perMinute: number
}

const ADVERTS: SignerRateInit = {
  burst: LIMITS.advertsPerSignerBurst,
  perMinute: LIMITS.advertsPerSignerPerMinute
}

export class SignerRate {
  readonly #init: SignerRateInit
  #tokens: number
  #filledAt = 0

  constructor(init: SignerRateInit = ADVERTS) {
    this.#init = init
    this.#tokens = init.burst
  }

  /** Takes one or more, `monotonicMs` being the time on the monotonic clock; false, and none taken, when fewer are left. */
  take(monotonicMs: number, amount = 1): boolean {
    const { burst, perMinute } = this.#init
    const gained = (Math.max(0, monotonicMs - this.#filledAt) * perMinute) / 60_000
    this.#tokens = Math.min(burst, this.#tokens + gained)
    this.#filledAt = monotonicMs
    if (this.#tokens < amount) return false
    this.#tokens -= amount
    return true
  }
}
