/** Long work in small pieces, so that a process goes on with everything else in between. */
import { setImmediate } from 'node:timers/promises'
import type { Clock } from './clock.ts'

/** Work goes on for so long before others have their turn. */
const TURN_MS = 10
/** Reading the clock costs as much as some pieces. */
const PIECES_PER_LOOK = 64

export interface PaceInit {
  /** What the work may take in all, others' turns not counted; default no limit. */
  readonly msMax?: number
  /** Made when it takes longer. */
  readonly tooLong?: () => Error
}

export class Pace {
  readonly #clock: Pick<Clock, 'monotonic'>
  readonly #init: PaceInit
  #began: number
  #spent = 0
  #pieces = 0

  constructor(clock: Pick<Clock, 'monotonic'>, init: PaceInit = {}) {
    this.#clock = clock
    this.#init = init
    this.#began = clock.monotonic()
  }

  /** Whether to wait for `pause` before the next piece. `cost`: how many pieces this one is worth. */
  isDue(cost = 1): boolean {
    this.#pieces += cost
    if (this.#pieces < PIECES_PER_LOOK) return false
    this.#pieces = 0
    return this.#clock.monotonic() - this.#began >= TURN_MS
  }

  /** Lets others have their turn. Throws the signal's reason, and what `tooLong` makes. */
  async pause(signal?: AbortSignal): Promise<void> {
    this.#spent += this.#clock.monotonic() - this.#began
    const { msMax = Number.POSITIVE_INFINITY, tooLong } = this.#init
    if (this.#spent > msMax && tooLong !== undefined) throw tooLong()
    await setImmediate()
    signal?.throwIfAborted()
    this.#began = this.#clock.monotonic()
  }
}

/** Runs a generator to its end in pieces; what it yields is what each piece cost. */
export async function paced<T>(
  work: Generator<number, T, undefined>,
  pace: Pace,
  signal?: AbortSignal
): Promise<T> {
  for (;;) {
    const { done, value } = work.next()
    if (done === true) return value
    if (pace.isDue(value)) await pace.pause(signal)
  }
}
