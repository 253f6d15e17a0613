/** How long another party may keep this one waiting. */
import type { Clock } from './clock.ts'

/** Aborts with `signal`, or with a `TimeoutError` when `ms` of the clock have passed. */
export function within(clock: Pick<Clock, 'timeout'>, ms: number, signal?: AbortSignal): AbortSignal {
  const limit = clock.timeout(ms)
  return signal === undefined ? limit : AbortSignal.any([signal, limit])
}
