/**
 * Virtual time for many peers: what is planned for one millisecond happens together, in the order in which it was
 * planned, and all that it leads to without waiting is done before the next one.
 */

interface Plan {
  run: (() => void) | undefined
}

export class VirtualTime {
  readonly #plans = new Map<number, Plan[]>()
  /** A binary heap of the instants that something is planned for. */
  readonly #instants: number[] = []
  #now = 0

  /** Milliseconds since the simulation began. */
  get now(): number {
    return this.#now
  }

  /** Plans `run` for `ms` from now. Gives what takes it off the plan again. */
  after(ms: number, run: () => void): () => void {
    const instant = this.#now + Math.max(0, Math.ceil(ms))
    const plan: Plan = { run }
    const same = this.#plans.get(instant)
    if (same === undefined) {
      this.#plans.set(instant, [plan])
      push(this.#instants, instant)
    } else {
      same.push(plan)
    }
    return () => {
      plan.run = undefined
    }
  }

  /** Lets `ms` pass. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms
    for (let next = this.#instants[0]; next !== undefined && next <= end; next = this.#instants[0]) {
      this.#now = next
      pop(this.#instants)
      const plans = this.#plans.get(next) ?? []
      this.#plans.delete(next)
      for (const { run } of plans) run?.()
      await quiet()
    }
    this.#now = end
  }
}

/** All microtasks, those that they make included, are done before a macrotask comes. */
async function quiet(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve))
}

function push(heap: number[], value: number): void {
  let at = heap.push(value) - 1
  while (at > 0) {
    const above = (at - 1) >> 1
    if (heap[above]! <= value) break
    heap[at] = heap[above]!
    at = above
  }
  heap[at] = value
}

function pop(heap: number[]): void {
  const last = heap.pop()
  if (last === undefined || heap.length === 0) return
  let at = 0
  for (;;) {
    let below = 2 * at + 1
    if (below >= heap.length) break
    if (below + 1 < heap.length && heap[below + 1]! < heap[below]!) below += 1
    if (heap[below]! >= last) break
    heap[at] = heap[below]!
    at = below
  }
  heap[at] = last
}
