/** Round-trip times between nodes: what their pings gave of late, else what their coordinates make likely. */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import { estimatedRttMs } from '../ticket/coordinate.ts'
import type { Principal } from '../ticket/principal.ts'

/** In milliseconds; `undefined` where it is not known. */
export interface RttSource {
  rttMs(one: NodeAdvertisement, other: NodeAdvertisement): number | undefined
  isMeasured(one: Principal, other: Principal): boolean
}

interface Measured {
  readonly rttMs: number | undefined
  readonly until: number
}

/** The network changes. */
const KEPT_MS = 60_000

export class PairTimes implements RttSource {
  readonly #clock: Pick<Clock, 'monotonic'>
  /** By the one of a pair whose id is smaller, then by the other. */
  readonly #measured = new Map<Principal, Map<Principal, Measured>>()
  #size = 0

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock
  }

  /** Takes down what pings gave; `undefined`: they gave nothing, and so nothing is known of the pair. */
  set(one: Principal, other: Principal, rttMs: number | undefined): void {
    // What is lost is only measured again.
    if (this.#size >= LIMITS.pairTimesMax) this.#clear()
    const [first, second] = one < other ? [one, other] : [other, one]
    const ofFirst = this.#measured.get(first) ?? new Map<Principal, Measured>()
    this.#measured.set(first, ofFirst)
    if (!ofFirst.has(second)) this.#size += 1
    ofFirst.set(second, { rttMs, until: this.#clock.monotonic() + KEPT_MS })
  }

  isMeasured(one: Principal, other: Principal): boolean {
    return this.#get(one, other) !== undefined
  }

  rttMs(one: NodeAdvertisement, other: NodeAdvertisement): number | undefined {
    const measured = this.#get(one.issuer, other.issuer)
    return measured === undefined ? estimatedRttMs(one.coordinate, other.coordinate) : measured.rttMs
  }

  #get(one: Principal, other: Principal): Measured | undefined {
    const [first, second] = one < other ? [one, other] : [other, one]
    const measured = this.#measured.get(first)?.get(second)
    return measured !== undefined && measured.until > this.#clock.monotonic() ? measured : undefined
  }

  #clear(): void {
    this.#measured.clear()
    this.#size = 0
  }
}

/** Believes no estimate. */
export function measuredOnly(times: RttSource): RttSource {
  return {
    isMeasured: (one, other) => times.isMeasured(one, other),
    rttMs: (one, other) => (times.isMeasured(one.issuer, other.issuer) ? times.rttMs(one, other) : undefined)
  }
}
