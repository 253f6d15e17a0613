/** How long another party may keep this one waiting, and who waits no more. */
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

/** Waits for work that never rejects, but no longer than `ms`; it goes on behind the back of whoever waited. */
export async function waitAtMost(
  clock: Pick<Clock, 'sleep'>,
  ms: number,
  work: Promise<void>
): Promise<void> {
  const done = new AbortController()
  const finished = work.finally(() => done.abort(new Error('done')))
  await Promise.race([finished, clock.sleep(ms, { signal: done.signal }).catch(() => {})])
}

/** Waits for work, or rejects with the signal's reason; the work goes on. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const over = new AbortController()
  return Promise.race([work, abortion(signal, over.signal)]).finally(() => over.abort(new Error('over')))
}

/** Whether the work, which never rejects, is done when the signal aborts; it goes on if it is not. */
export async function endsBefore(work: Promise<unknown>, signal: AbortSignal): Promise<boolean> {
  const done = work.then(() => true)
  return orAborted(done, signal).catch(() => false)
}

/** Resolves when `ms` of the clock have passed. */
export async function elapsed(clock: Pick<Clock, 'timeout'>, ms: number): Promise<void> {
  const limit = clock.timeout(ms)
  if (limit.aborted) return
  await new Promise<void>((resolve) => {
    limit.addEventListener('abort', () => resolve(), { once: true })
  })
}

/**
 * Rejects with the signal's reason when it aborts, and never resolves; for races. It may be left alone, and listens no
 * more once `over` aborts.
 */
export async function abortion(signal: AbortSignal | undefined, over: AbortSignal): Promise<never> {
  const gone = new Promise<never>((_resolve, reject) => {
    if (signal === undefined) return
    const fail = (): void => reject(signal.reason as Error)
    if (signal.aborted) fail()
    else signal.addEventListener('abort', fail, { once: true, signal: over })
  })
  gone.catch(() => {})
  return gone
}
