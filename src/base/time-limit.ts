/** How long another party may keep this one waiting. */
import type { Clock } from './clock.ts'

/** Aborts with `signal`, or with a `TimeoutError` when `ms` of the clock have passed. */
export function within(clock: Pick<Clock, 'timeout'>, ms: number, signal?: AbortSignal): AbortSignal {
  const limit = clock.timeout(ms)
  return signal === undefined ? limit : AbortSignal.any([signal, limit])
}

/** A search that has found something waits only so long for more: some never end by themselves. */
export class Patience implements Disposable {
  /** Aborts with the signal of the whole search, or when the rest took too long. */
  readonly signal: AbortSignal
  readonly #clock: Pick<Clock, 'sleep'>
  readonly #ms: number
  readonly #enough = new AbortController()
  readonly #over = new AbortController()
  #isShort = false

  constructor(components: { readonly clock: Pick<Clock, 'sleep'> }, ms: number, signal: AbortSignal) {
    this.#clock = components.clock
    this.#ms = ms
    this.signal = AbortSignal.any([signal, this.#enough.signal])
  }

  /** Something was found: from the first call on, the rest has its time. */
  shorten(): void {
    if (this.#isShort) return
    this.#isShort = true
    void this.#clock.sleep(this.#ms, { signal: this.#over.signal }).then(
      () => this.#enough.abort(new Error('enough was found')),
      () => {}
    )
  }

  [Symbol.dispose](): void {
    this.#over.abort(new Error('the search is over'))
  }
}
