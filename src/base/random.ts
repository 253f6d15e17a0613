/** Randomness as a component, so that tests and the simulation own it. */
import { randomFillSync } from 'node:crypto'

export interface Random {
  /** `length` fresh bytes, fit for keys and nonces. */
  bytes(length: number): Uint8Array
}

export const systemRandom: Random = {
  bytes: (length) => randomFillSync(new Uint8Array(length))
}
