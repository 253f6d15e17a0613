/**
 * The node's own time, by which leases end: it follows the wall clock forward but never back, neither while the
 * process runs (the monotonic clock goes on) nor across a restart (a durable high-water mark), so that setting the
 * clock back cannot lengthen a lease.
 */
import type { Clock } from '../base/clock.ts'

export class SteadyClock {
  readonly #clock: Clock
  #mark: number
  #monotonicAtMark: number

  /** `highWater`: the latest time that an earlier run wrote down, UTC ms, or 0. */
  constructor(clock: Clock, highWater: number) {
    this.#clock = clock
    this.#mark = Math.max(highWater, clock.now())
    this.#monotonicAtMark = clock.monotonic()
  }

  /** UTC ms; never less than at an earlier call. */
  now(): number {
    const monotonic = this.#clock.monotonic()
    const counted = this.#mark + Math.floor(monotonic - this.#monotonicAtMark)
    const wall = this.#clock.now()
    if (wall > counted) {
      this.#mark = wall
      this.#monotonicAtMark = monotonic
      return wall
    }
    return counted
  }
}
