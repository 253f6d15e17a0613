/** Lets work on one thing happen one after the other, and of the costly work no more than so much at a time. */
import { SlicenetError } from '../base/errors.ts'

export interface TurnsInit {
  /** Pieces of costly work at the same time. */
  readonly atOnceMax: number
  /** Callers that wait or work, of every kind. */
  readonly callersMax: number
}

export class Turns {
  readonly #init: TurnsInit
  readonly #last = new Map<string, Promise<unknown>>()
  readonly #queue: (() => void)[] = []
  #running = 0
  #callers = 0

  constructor(init: TurnsInit) {
    this.#init = init
  }

  /** Runs `work` after what was asked for the same thing before. Throws `BUSY` when too many wait. */
  async take<T>(key: string, work: () => Promise<T>): Promise<T> {
    if (this.#callers >= this.#init.callersMax) {
      throw new SlicenetError('BUSY', 'too much work waits for its turn on this node')
    }
    this.#callers++
    const before = this.#last.get(key) ?? Promise.resolve()
    const mine = before.then(work)
    const settled = mine.then(
      () => {},
      () => {}
    )
    this.#last.set(key, settled)
    try {
      return await mine
    } finally {
      this.#callers--
      if (this.#last.get(key) === settled) this.#last.delete(key)
    }
  }

  /** The same for costly work, which also waits for one of the few places. */
  async takeCostly<T>(key: string, work: () => Promise<T>): Promise<T> {
    return this.take(key, () => this.#inPlace(work))
  }

  /** Resolves when no work is left. */
  async idle(): Promise<void> {
    while (this.#last.size > 0) await Promise.all(this.#last.values())
  }

  async #inPlace<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#init.atOnceMax) {
      // Who leaves hands the place over, so the count stays.
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
