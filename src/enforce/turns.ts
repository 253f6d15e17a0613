/** Lets work on one thing happen one after the other, and on different things at the same time up to a maximum. */
import { SlicenetError } from '../base/errors.ts'

export interface TurnsInit {
  readonly atOnceMax: number
  readonly waitingMax: number
}

export class Turns {
  readonly #init: TurnsInit
  readonly #last = new Map<string, Promise<unknown>>()
  readonly #queue: (() => void)[] = []
  #running = 0
  #known = 0

  constructor(init: TurnsInit) {
    this.#init = init
  }

  /** Runs `work` when its turn comes. Throws `BUSY` when too many wait. */
  async take<T>(key: string, work: () => Promise<T>): Promise<T> {
    if (this.#known >= this.#init.atOnceMax + this.#init.waitingMax) {
      throw new SlicenetError('BUSY', 'too much work waits for its turn on this node')
    }
    this.#known++
    const before = this.#last.get(key) ?? Promise.resolve()
    const mine = before.then(() => this.#withSlot(work))
    const settled = mine.then(
      () => {},
      () => {}
    )
    this.#last.set(key, settled)
    try {
      return await mine
    } finally {
      this.#known--
      if (this.#last.get(key) === settled) this.#last.delete(key)
    }
  }

  /** Resolves when no work is left. */
  async idle(): Promise<void> {
    while (this.#last.size > 0) await Promise.all(this.#last.values())
  }

  async #withSlot<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#init.atOnceMax) {
      // The slot is handed over by who leaves, so the count stays.
      await new Promise<void>((resolve) => this.#queue.push(resolve))
    } else {
      this.#running++
    }
    try {
      return await work()
    } finally {
      const next = this.#queue.shift()
      if (next === undefined) this.#running--
      else next()
    }
  }
}
