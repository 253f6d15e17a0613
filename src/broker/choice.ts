/**
 * Choosing the members of a slice: as many nodes as are wanted, preferred ones first, of which every two fulfil the
 * slice's conditions, spread as evenly as can be. A generator, so that it can be run in pieces. Pure.
 */
import { LIMITS } from '../base/limits.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { Bits } from './bits.ts'
import { Compatibility, type Place } from './compatibility.ts'
import { Rows, searchLargest, type Budget, type Graph } from './member-search.ts'
import type { RttSource } from './pair-times.ts'
import type { Placement } from './placement.ts'
import {
  assignAgents,
  inOrder,
  isAble,
  type Assignment,
  type Candidate,
  type TicketWish
} from './preference.ts'
import { fill, Groups, type Seat } from './spread.ts'

export interface Wish extends TicketWish {
  readonly count: number
  /** How many members of the slice each agent has granted already. */
  readonly granted: ReadonlyMap<Principal, number>
  readonly placement: Placement
  readonly times: RttSource
  /** Members that the slice has; those of which nothing is known any more have an advert without attributes. */
  readonly held?: readonly NodeAdvertisement[]
}

export interface Choice {
  readonly members: readonly Assignment[]
  /** Whether there is no larger set; else the search was given up before all was tried. */
  readonly isExhaustive: boolean
}

/** At most `count` assignments, a node at most once. Yields what it cost since it yielded last. */
export function* chooseMembers(
  candidates: readonly Candidate[],
  wish: Wish
): Generator<number, Choice, undefined> {
  const { placement } = wish
  const able = candidates.filter(({ offers }) => offers.some((offer) => isAble(offer, wish)))
  const compatibility = new Compatibility(placement, wish.times)
  const held = (wish.held ?? []).map((advert) => compatibility.place(advert))
  const seats: Seat[] = []
  for (const preferred of inOrder(able, wish.resources, placement.rank)) {
    const place = compatibility.place(preferred.candidate.advert)
    yield 1 + held.length
    if (compatibility.lacking(place).length > 0) continue
    if (held.every((member) => compatibility.holds(place, member))) seats.push({ ...preferred, place })
  }
  const { chosen, isExhaustive } = yield* chooseSeats(seats, held, wish, compatibility)
  return {
    members: assignAgents(
      chosen.map(({ candidate }) => candidate),
      wish,
      wish.granted
    ),
    isExhaustive
  }
}

interface Chosen {
  readonly chosen: readonly Seat[]
  readonly isExhaustive: boolean
}

function* chooseSeats(
  seats: readonly Seat[],
  held: readonly Place[],
  wish: Wish,
  compatibility: Compatibility
): Generator<number, Chosen, undefined> {
  const { count, placement } = wish
  const hasPairs = placement.pairwise !== undefined
  const apart = hasPairs ? seats : unlike(seats)
  const isFree = !hasPairs && (placement.distinct.length === 0 || haveAllDistinct(apart))
  if (isFree) return { chosen: fill(apart, held, wish), isExhaustive: true }
  const first = yield* searchPool(apart.slice(0, LIMITS.placementNodesMax), held, wish, compatibility)
  if (apart.length <= LIMITS.placementNodesMax || first.chosen.length === count) return first
  // Of many nodes the preferred lie everywhere: those that go with one of the set found may make a larger one.
  const [seed] = first.chosen
  if (seed === undefined) return { ...first, isExhaustive: false }
  const around: Seat[] = [seed]
  for (const seat of apart) {
    if (around.length >= LIMITS.placementNodesMax) break
    if (seat !== seed && compatibility.holds(seat.place, seed.place)) around.push(seat)
    yield 1
  }
  const second = yield* searchPool(around, held, wish, compatibility)
  const { chosen } = second.chosen.length > first.chosen.length ? second : first
  return { chosen, isExhaustive: chosen.length === count }
}

function* searchPool(
  pool: readonly Seat[],
  held: readonly Place[],
  { count, placement }: Wish,
  compatibility: Compatibility
): Generator<number, Chosen, undefined> {
  const groups = new Groups(placement, pool, held)
  const resort = pool.findIndex(({ hasRoom }) => !hasRoom)
  const graph: Graph = {
    size: pool.length,
    isEdge: (one, other) => compatibility.holds(placeAt(pool, one), placeAt(pool, other)),
    ...(groups.isSpread ? { groupOf: (one: number) => groups.of(one) } : {}),
    lastResort: resort < 0 ? pool.length : resort
  }
  const budget = { steps: LIMITS.placementStepsMax }
  const rows = new Rows(graph)
  const first = yield* searchLargest(rows, { want: count, counts: groups.counts }, budget)
  const set = groups.isSpread ? yield* spreadOut(rows, first.set, groups, budget) : first.set
  return { chosen: set.flatMap((index) => pool[index] ?? []), isExhaustive: first.isExhaustive }
}

/** Looks for a set of the same size whose largest group is smaller, as long as there is one and steps are left. */
function* spreadOut(
  rows: Rows,
  found: readonly number[],
  groups: Groups,
  budget: Budget
): Generator<number, readonly number[], undefined> {
  let set = found
  // What has no room by its own word is not taken only to be spread.
  const among = new Bits(rows.graph.size)
  for (let one = 0; one < rows.graph.lastResort; one++) among.add(one)
  for (const one of found) among.add(one)
  while (set.length > 0) {
    const cap = Math.max(...groups.countsWith(set)) - 1
    if (cap < groups.fewestAtMost(set.length)) return set
    const wish = { want: set.length, counts: groups.counts, cap, among }
    const better = yield* searchLargest(rows, wish, budget)
    if (better.set.length < set.length) return set
    set = better.set
  }
  return set
}

/** Of nodes that are alike in what is to be distinct and in group, one can be a member: the preferred one. */
function unlike(seats: readonly Seat[]): readonly Seat[] {
  const first = new Map<string, Seat>()
  for (const seat of seats) {
    if (seat.place.values.length === 0) return seats
    const key = JSON.stringify([seat.place.values, seat.place.group])
    if (!first.has(key)) first.set(key, seat)
  }
  return [...first.values()]
}

function haveAllDistinct(seats: readonly Seat[]): boolean {
  const [seat] = seats
  return (seat?.place.values ?? []).every(
    (_value, index) => new Set(seats.map(({ place }) => place.values[index])).size === seats.length
  )
}

function placeAt(seats: readonly Seat[], index: number): Place {
  const seat = seats[index]
  if (seat === undefined) throw new TypeError('no such seat')
  return seat.place
}
