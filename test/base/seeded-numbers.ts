/** Numbers of chance that are the same for the same seed (mulberry32), so that a failure can be played again. */

/** A whole number from 0 to below `max`. */
export type Numbers = (max: number) => number

export function numbersOf(seed: number): Numbers {
  let state = seed >>> 0
  return (max) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % max
  }
}
