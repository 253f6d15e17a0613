/**
 * Virtual time: events happen one at a time in the order of their instants, and all that one leads to without waiting
 * is done before the next. Nothing in a simulation waits for real time.
 */

/** Instants are milliseconds since the simulation began. */
interface Event {
  readonly time: number
  /** Among events of one instant, the order in which they were planned. */
  readonly order: number
  run: (() => void) | undefined
}

export class Scheduler {
  /** A binary heap: the next event is at its top. */
  readonly #heap: Event[] = []
  #now = 0
  #order = 0

  get now(): number {
    return this.#now
  }

  /** Plans `run` for `ms` from now. Gives what takes it off the plan again. */
  after(ms: number, run: () => void): () => void {
    const event: Event = { time: this.#now + Math.max(0, Math.ceil(ms)), order: this.#order++, run }
    this.#push(event)
    return () => {
      event.run = undefined
    }
  }

  /** Lets events happen up to and with the instant `until`, or until `afterEach` says that it is enough. */
  async runUntil(until: number, afterEach: () => boolean): Promise<void> {
    for (let next = this.#heap[0]; next !== undefined && next.time <= until; next = this.#heap[0]) {
      this.#pop()
      if (next.run === undefined) continue
      this.#now = next.time
      next.run()
      await quiet()
      if (afterEach()) return
    }
    this.#now = Math.max(this.#now, until)
  }

  #push(event: Event): void {
    const heap = this.#heap
    let at = heap.push(event) - 1
    while (at > 0) {
      const above = (at - 1) >> 1
      if (!isBefore(event, heap[above]!)) break
      heap[at] = heap[above]!
      at = above
    }
    heap[at] = event
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= heap.length) break
      if (below + 1 < heap.length && isBefore(heap[below + 1]!, heap[below]!)) below += 1
      if (!isBefore(heap[below]!, last)) break
      heap[at] = heap[below]!
      at = below
    }
    heap[at] = last
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.time < b.time || (a.time === b.time && a.order < b.order)
}

/** All microtasks, those that they make included, are done before a macrotask comes. */
async function quiet(): Promise<void> {
  await new Promise<void>((resolve) => setImmediate(resolve))
}
