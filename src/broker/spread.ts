/** Spreading the members of a slice as evenly as can be over the values of an attribute. Pure. */
import type { Place } from './compatibility.ts'
import type { Placement } from './placement.ts'
import type { Preferred } from './preference.ts'

/** A node that may be a member. */
export interface Seat extends Preferred {
  readonly place: Place
}

/** The values of the attribute to spread over, numbered; and how many members each has. */
export class Groups {
  readonly isSpread: boolean
  readonly counts: number[]
  readonly #numbers: readonly number[]

  constructor({ spread }: Placement, seats: readonly Seat[], held: readonly Place[]) {
    this.isSpread = spread !== undefined
    const numbers = new Map<Place['group'], number>()
    const numberOf = ({ group }: Place): number => {
      const known = numbers.get(group) ?? numbers.size
      numbers.set(group, known)
      return known
    }
    this.#numbers = seats.map(({ place }) => numberOf(place))
    const ofHeld = held.map(numberOf)
    this.counts = this.isSpread ? Array.from({ length: numbers.size }, () => 0) : []
    if (this.isSpread) for (const group of ofHeld) this.counts[group] = (this.counts[group] ?? 0) + 1
  }

  of(seat: number): number {
    return this.#numbers[seat] ?? 0
  }

  countsWith(set: readonly number[]): number[] {
    const counts = [...this.counts]
    for (const seat of set) counts[this.of(seat)] = (counts[this.of(seat)] ?? 0) + 1
    return counts
  }

  /** The largest group has at least so many when so many members come to those held. */
  fewestAtMost(more: number): number {
    const all = this.counts.reduce((sum, count) => sum + count, more)
    return Math.max(1, ...this.counts, Math.ceil(all / this.counts.length))
  }
}

/** Where any two may be members together: the first, or of those with room the first of a group that has fewest. */
export function fill(
  seats: readonly Seat[],
  held: readonly Place[],
  { count, placement }: { readonly count: number; readonly placement: Placement }
): Seat[] {
  if (placement.spread === undefined) return seats.slice(0, count)
  const groups = new Groups(placement, seats, held)
  const { counts } = groups
  const waiting: number[][] = counts.map(() => [])
  seats.forEach((_seat, index) => waiting[groups.of(index)]?.push(index))
  for (const queue of waiting) queue.reverse()
  const roomOf = (index: number): number => Number(seats[index]?.hasRoom ?? false)
  const compare = (one: number, other: number): number =>
    roomOf(other) - roomOf(one) ||
    (counts[groups.of(one)] ?? 0) - (counts[groups.of(other)] ?? 0) ||
    one - other
  const chosen: Seat[] = []
  while (chosen.length < count) {
    let best: number | undefined
    for (const queue of waiting) {
      const next = queue.at(-1)
      if (next !== undefined && (best === undefined || compare(next, best) < 0)) best = next
    }
    const seat = best === undefined ? undefined : seats[best]
    if (best === undefined || seat === undefined) break
    chosen.push(seat)
    const group = groups.of(best)
    waiting[group]?.pop()
    counts[group] = (counts[group] ?? 0) + 1
  }
  return chosen
}
