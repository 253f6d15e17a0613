/**
 * The largest set of nodes of which every two are compatible, up to a size: by branch and bound, in the order of
 * preference, so that the first set of that size is the one preferred. The problem (a clique of a graph) is hard, so the
 * steps are bounded, and it is said whether they sufficed. A generator, so that whoever runs it can do so in pieces. Pure.
 */
import { Bits } from './bits.ts'

export interface Graph {
  readonly size: number
  /** Whether two may be in one set; asked once a pair at most. */
  isEdge(one: number, other: number): boolean
  /** Among which of the groups, numbered from 0, that sets are spread over; absent where they are not. */
  readonly groupOf?: (one: number) => number
  /** Those from here on are taken only when no others are left: they come last in order. */
  readonly lastResort: number
}

export interface SearchWish {
  /** Size of the set. */
  readonly want: number
  /** How many each group has already. */
  readonly counts: readonly number[]
  /** No group may have more. */
  readonly cap?: number
  /** Those that are considered; all when absent. */
  readonly among?: Bits
}

export interface SearchResult {
  /** In the order in which they were taken. */
  readonly set: readonly number[]
  /** Whether it is as large as can be: all was tried. */
  readonly isExhaustive: boolean
}

/** What is spent of it is not had again. */
export interface Budget {
  steps: number
}

interface Frame {
  /** What may still be added to those chosen before. */
  readonly allowed: Bits
  /** Chosen of these, to go back to. */
  readonly depth: number
}

/** A few milliseconds of work. */
const COST_AT_ONCE = 2000

/** Yields now and then, what it cost since. */
export function* searchLargest(
  rows: Rows,
  wish: SearchWish,
  budget: Budget
): Generator<number, SearchResult, undefined> {
  const { graph } = rows
  const chosen: number[] = []
  const counts = [...wish.counts]
  let best: readonly number[] = []
  let hasTurnedBack = false
  const frames: Frame[] = [{ allowed: rows.open(wish, counts), depth: 0 }]
  for (;;) {
    const frame = frames.at(-1)
    if (frame === undefined) return { set: best, isExhaustive: true }
    leave(chosen, frame.depth, counts, graph)
    const cost = 1 + graph.size / 32 + rows.takeCost()
    budget.steps -= cost
    if (budget.steps < 0) return { set: best, isExhaustive: false }
    yield cost
    const needed = best.length - chosen.length
    // The first way down is the greedy one and costs no bounds.
    const isHopeless =
      frame.allowed.size <= needed ||
      (hasTurnedBack && !(yield* rows.hasColours(frame.allowed, needed + 1, budget)))
    if (isHopeless) {
      frames.pop()
      hasTurnedBack = true
      continue
    }
    const next = preferred(frame.allowed, counts, graph)
    frame.allowed.delete(next)
    chosen.push(next)
    const group = graph.groupOf?.(next)
    if (group !== undefined) counts[group] = (counts[group] ?? 0) + 1
    if (chosen.length > best.length) best = [...chosen]
    if (best.length >= wish.want) return { set: best, isExhaustive: true }
    let allowed = frame.allowed.and(rows.row(next))
    if (group !== undefined && (counts[group] ?? 0) >= (wish.cap ?? Number.POSITIVE_INFINITY)) {
      allowed = allowed.without(rows.group(group))
    }
    frames.push({ allowed, depth: chosen.length })
  }
}

/** Of those with room one of a group that has fewest; else the first. */
function preferred(allowed: Bits, counts: readonly number[], { groupOf, lastResort }: Graph): number {
  if (groupOf === undefined) return allowed.first()
  let best = -1
  let fewest = Number.POSITIVE_INFINITY
  for (const one of allowed) {
    if (best >= 0 && one >= lastResort && best < lastResort) break
    const count = counts[groupOf(one)] ?? 0
    if (count >= fewest) continue
    best = one
    fewest = count
    if (count === 0) break
  }
  return best
}

function leave(chosen: number[], depth: number, counts: number[], { groupOf }: Graph): void {
  while (chosen.length > depth) {
    const one = chosen.pop()
    const group = one === undefined ? undefined : groupOf?.(one)
    if (group !== undefined) counts[group] = (counts[group] ?? 0) - 1
  }
}

/** A graph as rows of who is compatible with whom, each made when it is needed. */
export class Rows {
  readonly graph: Graph
  readonly #rows: (Bits | undefined)[]
  readonly #groups: Bits[] = []
  #cost = 0

  constructor(graph: Graph) {
    this.graph = graph
    this.#rows = Array.from({ length: graph.size })
    if (graph.groupOf === undefined) return
    for (let one = 0; one < graph.size; one++) {
      const group = graph.groupOf(one)
      this.#groups[group] ??= new Bits(graph.size)
      this.#groups[group].add(one)
    }
  }

  /** Those that may come first. */
  open({ among, cap }: SearchWish, counts: readonly number[]): Bits {
    let open = among?.copy() ?? Bits.full(this.graph.size)
    counts.forEach((count, group) => {
      if (cap !== undefined && count >= cap) open = open.without(this.group(group))
    })
    return open
  }

  row(one: number): Bits {
    const known = this.#rows[one]
    if (known !== undefined) return known
    const row = new Bits(this.graph.size)
    for (let other = 0; other < this.graph.size; other++) {
      if (other === one) continue
      const before = this.#rows[other]
      if (before === undefined) this.#cost += 1
      if (before?.has(one) ?? this.graph.isEdge(one, other)) row.add(other)
    }
    this.#rows[one] = row
    return row
  }

  group(group: number): Bits {
    return this.#groups[group] ?? new Bits(this.graph.size)
  }

  /**
   * Whether as many colours are needed, by a greedy colouring, so that those of one colour are not compatible: a set has
   * at most one of each. Where the budget ends, they might be.
   */
  *hasColours(allowed: Bits, many: number, budget: Budget): Generator<number, boolean, undefined> {
    let rest = allowed
    for (let colours = 0; colours < many; colours++) {
      if (rest.first() < 0) return false
      let same = rest
      rest = rest.copy()
      for (let one = same.first(); one >= 0; one = same.first()) {
        rest.delete(one)
        same = same.without(this.row(one))
        same.delete(one)
        this.#cost += 1
        if (this.#cost < COST_AT_ONCE) continue
        const cost = this.takeCost()
        budget.steps -= cost
        yield cost
        if (budget.steps < 0) return true
      }
    }
    return true
  }

  /** What was done since this was asked last. */
  takeCost(): number {
    const cost = this.#cost
    this.#cost = 0
    return cost
  }
}
