/**
 * Whether the caller of a call that made something is there to have it. A reply may be on its way when its caller gives up,
 * and would then leave something that nobody knows of; so a caller can say that it will confirm.
 */
import { SlicenetError } from '../base/errors.ts'

export interface Confirming {
  /** False, at the beginning: it will be confirmed. True, when it was made: it is kept. */
  readonly kept: boolean
}

export class Confirmation {
  readonly #signal: AbortSignal
  readonly #gone = new AbortController()
  readonly #kept = Promise.withResolvers<boolean>()
  /** Whether the caller said that it will confirm; known when it said something, or closed its half. */
  readonly #confirms = Promise.withResolvers<boolean>()

  constructor(input: AsyncIterable<Confirming>, signal: AbortSignal) {
    this.#signal = signal
    const onAbort = (): void => {
      this.#confirms.resolve(true)
      this.#kept.resolve(false)
    }
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    void this.#kept.promise.then(() => signal.removeEventListener('abort', onAbort))
    void this.#read(input)
  }

  /** Aborted when one who was to confirm went away. */
  get gone(): AbortSignal {
    return this.#gone.signal
  }

  /** `ask`: tells the caller that it is made. Callers that said nothing keep it, unless they are known to be gone. */
  async keeps(ask: () => Promise<void>): Promise<boolean> {
    if (!(await this.#confirms.promise)) return !this.#signal.aborted
    try {
      await ask()
    } catch {
      return false
    }
    return this.#kept.promise
  }

  async #read(input: AsyncIterable<Confirming>): Promise<void> {
    try {
      for await (const { kept } of input) {
        this.#confirms.resolve(true)
        if (kept) return this.#kept.resolve(true)
      }
    } catch {
      // A stream that breaks is one that ended.
    }
    this.#confirms.resolve(false)
    this.#kept.resolve(false)
    if (await this.#confirms.promise) this.#gone.abort(new SlicenetError('INTERRUPTED', 'the caller gave up'))
  }
}
