/**
 * Caps over time, and the largest that holds at an instant of a window. Caps do not add up, so that a sum over steps
 * cannot tell what is left when one goes. They are kept in about √n blocks from the largest down, each with the union
 * of its intervals: the first block that touches the window has the answer. A change and a question take
 * O(√n log n), and nearly always the first block answers.
 */
import { overlaps, type Interval } from './interval.ts'

interface Cap extends Interval {
  readonly cap: number
}

interface Block {
  readonly caps: Cap[]
  /** None of its caps is smaller, none of a later block is larger. */
  least: number
  /** Disjoint intervals in order; made when a question needs it. */
  covered: readonly Interval[] | undefined
}

const BLOCK_MIN = 32

export class CapList {
  readonly #blocks: Block[] = []
  #size = 0
  /** Of the first block; made when a question needs it. */
  #largestEver: number | undefined

  /** `interval` is not empty. */
  add(cap: number, { notBefore, notAfter }: Interval): void {
    if (cap === 0) return
    this.#size++
    if (this.#largestEver !== undefined) this.#largestEver = Math.max(this.#largestEver, cap)
    const one = { cap, notBefore, notAfter }
    const block = this.#blocks.find(({ least }) => least <= cap) ?? this.#blocks.at(-1)
    if (block === undefined) {
      this.#blocks.push({ caps: [one], least: cap, covered: undefined })
      return
    }
    block.caps.push(one)
    block.least = Math.min(block.least, cap)
    block.covered = undefined
    if (block.caps.length > 2 * this.#blockSize) this.#split(block)
  }

  /** Undoes one `add` of the same cap and interval. */
  remove(cap: number, { notBefore, notAfter }: Interval): void {
    if (cap === 0) return
    // Equal caps may lie in several blocks.
    for (const [at, block] of this.#blocks.entries()) {
      if (block.least > cap) continue
      const index = block.caps.findIndex(
        (one) => one.cap === cap && one.notBefore === notBefore && one.notAfter === notAfter
      )
      if (index < 0) continue
      this.#size--
      if (cap === this.#largestEver) this.#largestEver = undefined
      block.caps.splice(index, 1)
      block.covered = undefined
      // Small neighbours become one, so that there are never many more blocks than a list of this size needs.
      this.#joinWithNext(at)
      this.#joinWithNext(at - 1)
      return
    }
    throw new TypeError(`no cap of ${cap} is held in this interval`)
  }

  /** The largest that holds at an instant of `window`; 0 when none does. */
  largest(window: Interval): number {
    for (const block of this.#blocks) {
      if (block.covered !== undefined && !touches(block.covered, window)) continue
      let largest = 0
      for (const one of block.caps) if (one.cap > largest && overlaps(one, window)) largest = one.cap
      if (largest > 0) return largest
      block.covered ??= union(block.caps)
    }
    return 0
  }

  /** The largest of all. */
  largestEver(): number {
    const first = this.#blocks[0]
    if (first === undefined) return 0
    this.#largestEver ??= first.caps.reduce((largest, { cap }) => Math.max(largest, cap), 0)
    return this.#largestEver
  }

  get #blockSize(): number {
    return Math.max(BLOCK_MIN, Math.ceil(Math.sqrt(this.#size)))
  }

  #split(block: Block): void {
    block.caps.sort((a, b) => b.cap - a.cap)
    const caps = block.caps.splice(block.caps.length >> 1)
    this.#blocks.splice(this.#blocks.indexOf(block) + 1, 0, { caps, least: block.least, covered: undefined })
    block.least = block.caps.at(-1)?.cap ?? block.least
  }

  #joinWithNext(at: number): void {
    const [block, next] = [this.#blocks[at], this.#blocks[at + 1]]
    if (block === undefined || next === undefined) return
    if (block.caps.length + next.caps.length > this.#blockSize) return
    block.caps.push(...next.caps)
    block.least = next.least
    block.covered = undefined
    this.#blocks.splice(at + 1, 1)
  }
}

function union(intervals: readonly Interval[]): Interval[] {
  const disjoint: { notBefore: number; notAfter: number }[] = []
  for (const { notBefore, notAfter } of intervals.toSorted((a, b) => a.notBefore - b.notBefore)) {
    const last = disjoint.at(-1)
    if (last !== undefined && notBefore <= last.notAfter) last.notAfter = Math.max(last.notAfter, notAfter)
    else disjoint.push({ notBefore, notAfter })
  }
  return disjoint
}

/** Whether one of the disjoint intervals overlaps `window`: the first that ends after its beginning would. */
function touches(disjoint: readonly Interval[], window: Interval): boolean {
  let low = 0
  let high = disjoint.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (disjoint[middle]!.notAfter > window.notBefore) high = middle
    else low = middle + 1
  }
  const candidate = disjoint[low]
  return candidate !== undefined && overlaps(candidate, window)
}
