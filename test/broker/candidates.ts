/** Candidates for members, and choices among them, for tests. */
import { chooseMembers, type Choice, type Wish } from '../../src/broker/choice.ts'
import { PairTimes } from '../../src/broker/pair-times.ts'
import { compilePlacement, type PlacementWish } from '../../src/broker/placement.ts'
import type { AgentOffer, Candidate } from '../../src/broker/preference.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import type { Coordinate } from '../../src/ticket/coordinate.ts'
import { HOUR, NOW, amounts } from '../ticket/fixtures.ts'
import { advertBody } from './adverts.ts'

export type { Candidate }
export type WishChanges = Partial<Omit<Wish, 'placement'>> & { readonly placement?: PlacementWish }

export const offer = (agent: string, factor = 10, until = NOW + HOUR, reliability = 500): AgentOffer => ({
  agent,
  available: amounts(factor),
  until,
  reliability
})

export const candidate = (node: string, free: number, ...offers: AgentOffer[]): Candidate => ({
  advert: advertBody({ issuer: node, name: node, free: amounts(free) }),
  reliability: 500,
  offers
})

/** One that has room, and of which an agent offers enough. */
export const placed = (
  node: string,
  attributes: NodeAdvertisement['attributes'],
  coordinate?: Coordinate
): Candidate => ({
  advert: advertBody({
    issuer: node,
    name: node,
    attributes,
    free: amounts(5),
    ...(coordinate === undefined ? {} : { coordinate })
  }),
  reliability: 500,
  offers: [offer('x')]
})

/** A place so many milliseconds along a line. */
export const at = (ms: number, error = 100): Coordinate => ({
  vector: [ms * 1000, 0, 0, 0],
  height: 0,
  error
})

export const still = { monotonic: () => 0 }

export function choose(
  candidates: readonly Candidate[],
  { placement = {}, ...changes }: WishChanges
): Choice {
  const work = chooseMembers(candidates, {
    count: 1,
    resources: amounts(2),
    notAfter: NOW + HOUR,
    granted: new Map(),
    times: new PairTimes(still),
    ...changes,
    placement: compilePlacement(placement)
  })
  for (;;) {
    const { done, value } = work.next()
    if (done === true) return value
  }
}
