/** All chance of one simulation, drawn from its seed in the order in which it is asked for. */
import { createHash } from 'node:crypto'
import type { Random } from '../../src/base/random.ts'
import { numbersOf, type Numbers } from '../base/seeded-numbers.ts'

export class Chance implements Random {
  readonly #numbers: Numbers

  constructor(seed: number) {
    // Neighbouring seeds are to have nothing in common.
    this.#numbers = numbersOf(
      createHash('sha256').update(`slicenet simulation ${seed}`).digest().readUInt32LE()
    )
  }

  /** A whole number from `min` to `max`, both possible. */
  between(min: number, max: number): number {
    return min + this.#numbers(max - min + 1)
  }

  /** True `permille` times of a thousand. */
  happens(permille: number): boolean {
    return this.#numbers(1000) < permille
  }

  /** One of a list that is not empty. */
  pick<T>(items: readonly T[]): T {
    const item = items[this.#numbers(items.length)]
    if (item === undefined) throw new TypeError('nothing to pick from')
    return item
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#numbers(256))
  }
}
