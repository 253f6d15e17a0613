/**
 * Levels that step up and down over time, several at once, and the highest that each reaches in a window: a balanced
 * (AVL) tree of the instants at which they step, each subtree with its sum of steps and the highest of its running
 * sums. A step and a question each take O(log n). Exact as long as no level passes 2^53.
 */
import type { Interval } from './interval.ts'

interface Instant {
  readonly at: number
  /** How many begin or end here; an instant without any is taken out. */
  changes: number
  readonly step: number[]
  readonly sum: number[]
  /** The highest that the running sum is after an instant of this subtree, counted from before its first. */
  readonly highest: number[]
  height: number
  left: Instant | undefined
  right: Instant | undefined
}

export class LevelTree {
  readonly #levels: number
  #root: Instant | undefined

  constructor(levels: number) {
    this.#levels = levels
  }

  /** Lifts the levels by `amounts` for `interval`, which is not empty. */
  raise(amounts: readonly number[], { notBefore, notAfter }: Interval): void {
    const negated = amounts.map((amount) => -amount)
    this.#root = this.#changed(this.#root, notBefore, amounts, 1)
    this.#root = this.#changed(this.#root, notAfter, negated, 1)
  }

  /** Undoes one `raise` of the same amounts and interval. */
  lower(amounts: readonly number[], { notBefore, notAfter }: Interval): void {
    const negated = amounts.map((amount) => -amount)
    this.#root = this.#changed(this.#root, notBefore, negated, -1)
    this.#root = this.#changed(this.#root, notAfter, amounts, -1)
  }

  /** The highest of each level at an instant of `window`. */
  highest({ notBefore, notAfter }: Interval): number[] {
    const running = this.#at(notBefore)
    const highest = [...running]
    rise(this.#root, notBefore, notAfter, running, highest)
    return highest
  }

  /** The highest of each level at any instant, in O(1). */
  highestEver(): number[] {
    return this.#root === undefined ? this.#zeros() : this.#root.highest.map((level) => Math.max(0, level))
  }

  #zeros(): number[] {
    return Array<number>(this.#levels).fill(0)
  }

  #at(instant: number): number[] {
    const level = this.#zeros()
    for (let node = this.#root; node !== undefined;) {
      if (instant < node.at) {
        node = node.left
      } else {
        if (node.left !== undefined) add(level, node.left.sum)
        add(level, node.step)
        node = node.right
      }
    }
    return level
  }

  #changed(
    node: Instant | undefined,
    at: number,
    step: readonly number[],
    changes: 1 | -1
  ): Instant | undefined {
    if (node === undefined) {
      if (changes < 0) throw new TypeError(`nothing begins or ends at ${at}`)
      const fresh = { at, changes, step: [...step], sum: this.#zeros(), highest: this.#zeros() }
      return refreshed({ ...fresh, height: 1, left: undefined, right: undefined })
    }
    if (at < node.at) {
      node.left = this.#changed(node.left, at, step, changes)
    } else if (at > node.at) {
      node.right = this.#changed(node.right, at, step, changes)
    } else {
      node.changes += changes
      if (node.changes === 0) return joined(node.left, node.right)
      add(node.step, step)
    }
    return balanced(node)
  }
}

/** Goes over the instants strictly between `from` and `to` in order: `running` becomes the level after the last. */
function rise(
  node: Instant | undefined,
  from: number,
  to: number,
  running: number[],
  highest: number[]
): void {
  if (node === undefined) return
  if (from === -Infinity && to === Infinity) {
    for (let i = 0; i < running.length; i++)
      highest[i] = Math.max(highest[i]!, running[i]! + node.highest[i]!)
    add(running, node.sum)
  } else if (node.at <= from) {
    rise(node.right, from, to, running, highest)
  } else if (node.at >= to) {
    rise(node.left, from, to, running, highest)
  } else {
    rise(node.left, from, Infinity, running, highest)
    add(running, node.step)
    for (let i = 0; i < running.length; i++) highest[i] = Math.max(highest[i]!, running[i]!)
    rise(node.right, -Infinity, to, running, highest)
  }
}

function add(to: number[], amounts: readonly number[]): void {
  for (let i = 0; i < to.length; i++) to[i]! += amounts[i]!
}

function heightOf(node: Instant | undefined): number {
  return node === undefined ? 0 : node.height
}

/** Reckons what is kept of a subtree anew from its two halves, which are right. */
function refreshed(node: Instant): Instant {
  const { left, right, step, sum, highest } = node
  node.height = 1 + Math.max(heightOf(left), heightOf(right))
  for (let i = 0; i < step.length; i++) {
    const here = (left === undefined ? 0 : left.sum[i]!) + step[i]!
    let most = here
    if (left !== undefined) most = Math.max(most, left.highest[i]!)
    if (right !== undefined) most = Math.max(most, here + right.highest[i]!)
    highest[i] = most
    sum[i] = here + (right === undefined ? 0 : right.sum[i]!)
  }
  return node
}

/** The root of the same instants, when the heights of the two halves differ by two at most. */
function balanced(node: Instant): Instant {
  const { left, right } = node
  if (left !== undefined && left.height > heightOf(right) + 1) {
    if (heightOf(left.right) > heightOf(left.left)) node.left = rotated(left, 'right')
    return rotated(node, 'left')
  }
  if (right !== undefined && right.height > heightOf(left) + 1) {
    if (heightOf(right.left) > heightOf(right.right)) node.right = rotated(right, 'left')
    return rotated(node, 'right')
  }
  return refreshed(node)
}

/** Makes the child on `side` the root. */
function rotated(node: Instant, side: 'left' | 'right'): Instant {
  const other = side === 'left' ? 'right' : 'left'
  const child = node[side]
  if (child === undefined) throw new TypeError('no child to rotate up')
  node[side] = child[other]
  child[other] = refreshed(node)
  return refreshed(child)
}

/** One tree of two whose instants are all before and all after one that was taken out between them. */
function joined(left: Instant | undefined, right: Instant | undefined): Instant | undefined {
  if (left === undefined) return right
  if (right === undefined) return left
  const { first, rest } = withoutFirst(right)
  first.left = left
  first.right = rest
  return balanced(first)
}

function withoutFirst(node: Instant): { first: Instant; rest: Instant | undefined } {
  if (node.left === undefined) return { first: node, rest: node.right }
  const { first, rest } = withoutFirst(node.left)
  node.left = rest
  return { first, rest: balanced(node) }
}
