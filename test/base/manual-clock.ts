/** A clock that stands still until the test moves it. */
import type { Clock } from '../../src/base/clock.ts'
import { NOW } from '../ticket/fixtures.ts'

interface Sleeper {
  readonly due: number
  readonly wake: () => void
}

export class ManualClock implements Clock {
  #wall: number
  #monotonic = 1000
  readonly #sleepers = new Set<Sleeper>()

  constructor(wall = NOW) {
    this.#wall = wall
  }

  now(): number {
    return this.#wall
  }

  monotonic(): number {
    return this.#monotonic
  }

  async sleep(ms: number, { signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    signal?.throwIfAborted()
    await new Promise<void>((resolve, reject) => {
      const sleeper = { due: this.#monotonic + ms, wake: resolve }
      this.#sleepers.add(sleeper)
      signal?.addEventListener(
        'abort',
        () => {
          this.#sleepers.delete(sleeper)
          reject(signal.reason as Error)
        },
        { once: true }
      )
    })
  }

  /** In real time: a test that waits for a party that never answers does not turn the clock for it. */
  timeout(ms: number): AbortSignal {
    return AbortSignal.timeout(ms)
  }

  /** What an administrator does: the wall clock jumps, the monotonic one does not. */
  setWall(wall: number): void {
    this.#wall = wall
  }

  /** Time passes: whoever sleeps wakes in order, and what they then do is done before the next one wakes. */
  async advance(ms: number): Promise<void> {
    const end = this.#monotonic + ms
    await settle()
    for (;;) {
      const [next] = [...this.#sleepers].filter(({ due }) => due <= end).sort((a, b) => a.due - b.due)
      if (next === undefined) break
      this.#pass(Math.max(0, next.due - this.#monotonic))
      this.#sleepers.delete(next)
      next.wake()
      await settle()
    }
    this.#pass(end - this.#monotonic)
  }

  #pass(ms: number): void {
    this.#monotonic += ms
    this.#wall += ms
  }
}

/** Lets everything that waits for nothing outside the process go on as far as it can. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
}
