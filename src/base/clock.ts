/**
 * Time as a component, so that tests and the simulation own it. Wall-clock times are UTC milliseconds; intervals are
 * measured on the monotonic clock, which no administrator can set back.
 */
import { setTimeout as delay } from 'node:timers/promises'

export interface Clock {
  /** UTC milliseconds since 1970. */
  now(): number
  /** Milliseconds since an arbitrary start; never goes backwards. */
  monotonic(): number
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  sleep(ms: number, options?: { readonly signal?: AbortSignal }): Promise<void>
  /** Aborts with a `TimeoutError` after `ms`; keeps no process alive. */
  timeout(ms: number): AbortSignal
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, options = {}) {
    options.signal?.throwIfAborted()
    try {
      await delay(ms, undefined, options.signal === undefined ? {} : { signal: options.signal })
    } catch (error) {
      options.signal?.throwIfAborted()
      throw error
    }
  },
  timeout: (ms) => AbortSignal.timeout(ms)
}
