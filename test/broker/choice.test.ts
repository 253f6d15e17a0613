import test from 'ava'
import fc from 'fast-check'
import type { Assignment } from '../../src/broker/preference.ts'
import { NOW, HOUR, amounts } from '../ticket/fixtures.ts'
import { candidate, choose, offer, type Candidate, type WishChanges } from './candidates.ts'

const wish = (count: number, granted: [string, number][] = []): WishChanges => ({
  count,
  granted: new Map(granted)
})
const chooseMembers = (candidates: readonly Candidate[], changes: WishChanges): readonly Assignment[] =>
  choose(candidates, changes).members

test('a slice is spread over the agents, counting what they granted before', (t) => {
  const candidates = ['a', 'b', 'c', 'd'].map((node) => candidate(node, 5, offer('x'), offer('y')))
  const count = (agent: string, granted: [string, number][] = []): number =>
    chooseMembers(candidates, wish(4, granted)).filter((one) => one.agent === agent).length
  t.is(count('x'), 2)
  t.is(count('x', [['x', 2]]), 1)
  t.is(count('x', [['x', 9]]), 0)
})

test('nodes with more free come first, those without room by their own word last', (t) => {
  const candidates = [
    candidate('full', 1, offer('x')),
    candidate('some', 3, offer('x')),
    candidate('most', 9, offer('x'))
  ]
  t.deepEqual(
    chooseMembers(candidates, wish(2)).map(({ node }) => node),
    ['most', 'some']
  )
  t.deepEqual(
    chooseMembers(candidates, wish(3)).map(({ node }) => node),
    ['most', 'some', 'full']
  )
})

test('an offer that is too small or ends too early is no offer', (t) => {
  const candidates = [
    candidate('a', 9, offer('small', 1), offer('short', 10, NOW + HOUR - 1)),
    candidate('b', 5, offer('x'))
  ]
  t.deepEqual(chooseMembers(candidates, wish(2)), [{ node: 'b', agent: 'x' }])
})

test('a node is chosen once at most, never more than asked for, and the same adverts give the same choice', (t) => {
  const arbitrary = fc.uniqueArray(
    fc
      .record({
        node: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
        free: fc.nat({ max: 4 }),
        reliability: fc.nat({ max: 1000 }),
        offers: fc.array(
          fc.record({
            agent: fc.constantFrom('x', 'y', 'z'),
            available: fc.nat({ max: 4 }).map(amounts),
            until: fc.constant(NOW + HOUR),
            reliability: fc.nat({ max: 1000 })
          }),
          { maxLength: 4 }
        )
      })
      .map(({ node, free, reliability, offers }) => ({ ...candidate(node, free, ...offers), reliability })),
    { selector: ({ advert }) => advert.issuer }
  )
  fc.assert(
    fc.property(arbitrary, fc.nat({ max: 9 }), (candidates, count) => {
      const chosen = chooseMembers(candidates, wish(count))
      t.is(new Set(chosen.map(({ node }) => node)).size, chosen.length)
      t.true(chosen.length <= count)
      t.deepEqual(chooseMembers(candidates.toReversed(), wish(count)), chosen)
    })
  )
})

test('among nodes with room those that can be relied on come first, and those that are alike by what is free', (t) => {
  const of = (node: string, free: number, reliability: number): Candidate => ({
    ...candidate(node, free, offer('x')),
    reliability
  })
  const candidates = [
    of('new', 9, 500),
    of('good', 3, 900),
    of('fine', 4, 760),
    of('bad', 9, 100),
    of('full', 1, 999)
  ]
  t.deepEqual(
    chooseMembers(candidates, wish(5)).map(({ node }) => node),
    ['fine', 'good', 'new', 'bad', 'full']
  )
})

test('of the agents of a node one that can be relied on is asked, however much it granted already', (t) => {
  const candidates = ['a', 'b', 'c'].map((node) =>
    candidate(node, 5, offer('bad', 10, NOW + HOUR, 300), offer('good', 10, NOW + HOUR, 800))
  )
  t.deepEqual(
    chooseMembers(candidates, wish(3)).map(({ agent }) => agent),
    ['good', 'good', 'good']
  )
})
