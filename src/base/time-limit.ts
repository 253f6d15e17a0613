/** How long another party may keep this one waiting. In real time: the silence of a peer is no matter of anybody's clock. */

/** Aborts with `signal`, or with a `TimeoutError` after `ms`. */
export function within(ms: number, signal?: AbortSignal): AbortSignal {
  const limit = AbortSignal.timeout(ms)
  return signal === undefined ? limit : AbortSignal.any([signal, limit])
}
