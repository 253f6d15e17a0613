/** Randomness as a component, so that tests and the simulation own it. */
import { randomFillSync } from 'node:crypto'

export interface Random {
  /** `length` fresh bytes, fit for keys and nonces. */
  bytes(length: number): Uint8Array
}

export const systemRandom: Random = {
  bytes: (length) => randomFillSync(new Uint8Array(length))
}

/** A number from 0 to below 1. */
export function fraction(random: Random): number {
  const [a = 0, b = 0, c = 0, d = 0] = random.bytes(4)
  return (a * 2 ** 24 + b * 2 ** 16 + c * 2 ** 8 + d) / 2 ** 32
}
