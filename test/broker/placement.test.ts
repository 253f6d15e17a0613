/** Members that are to lie to one another as a slice wants it: against all sets that there are, for small ones. */
import test from 'ava'
import fc from 'fast-check'
import { PairTimes } from '../../src/broker/pair-times.ts'
import { compilePlacement, type PlacementWish } from '../../src/broker/placement.ts'
import { advertBody } from './adverts.ts'
import { at, candidate, choose, offer, placed, still, type Candidate } from './candidates.ts'

const names = (candidates: readonly Candidate[], count: number, placement: PlacementWish): string[] =>
  choose(candidates, { count, placement }).members.map(({ node }) => node)

test('no two members have the same value of what is to be distinct, and none has no value', (t) => {
  const candidates = [
    placed('a', { site: 's1' }),
    placed('b', { site: 's1' }),
    placed('c', {}),
    placed('d', { site: 's2' })
  ]
  t.deepEqual(names(candidates, 3, { distinct: ['site'] }), ['a', 'd'])
  t.true(choose(candidates, { count: 3, placement: { distinct: ['site'] } }).isExhaustive)
})

test('of several attributes each is distinct, also where the preferred node has to give way', (t) => {
  const candidates = [
    placed('a', { site: 's1', organisation: 'o1' }),
    placed('b', { site: 's1', organisation: 'o2' }),
    placed('c', { site: 's2', organisation: 'o1' })
  ]
  t.deepEqual(names(candidates, 2, { distinct: ['site', 'organisation'] }), ['b', 'c'])
})

test('members are spread over the values of an attribute, and the preferred of each come first', (t) => {
  const candidates = ['a', 'b', 'c', 'd', 'e'].map((node) => placed(node, { organisation: 'o1' }))
  const others = [placed('f', { organisation: 'o2' }), placed('g', {})]
  t.deepEqual(names([...candidates, ...others], 4, { spread: 'organisation' }), ['a', 'f', 'g', 'b'])
  const held = advertBody({ issuer: 'z', attributes: { organisation: 'o1' } })
  const { members } = choose([...candidates, ...others], {
    count: 2,
    placement: { spread: 'organisation' },
    held: [held]
  })
  t.deepEqual(members.map(({ node }) => node).toSorted(), ['f', 'g'], 'what is held counts')
})

test('a set that is spread better takes the place of the first that was found', (t) => {
  const candidates = [
    placed('a', { organisation: 'o1', site: 's1' }),
    placed('b', { organisation: 'o2', site: 's1' }),
    placed('c', { organisation: 'o1', site: 's2' })
  ]
  t.deepEqual(names(candidates, 2, { distinct: ['site'], spread: 'organisation' }).toSorted(), ['b', 'c'])
})

test('nodes of higher rank come first, those without one last, and reliability and room count for more', (t) => {
  const ranked = (node: string, racks: number | undefined, changes: Partial<Candidate> = {}): Candidate => ({
    ...placed(node, racks === undefined ? {} : { racks }),
    ...changes
  })
  const full = ranked('full', 9)
  const candidates = [
    ranked('none', undefined),
    ranked('one', 1),
    ranked('three', 3),
    ranked('bad', 8, { reliability: 100 }),
    { ...full, advert: { ...full.advert, free: candidate('x', 1).advert.free } }
  ]
  t.deepEqual(names(candidates, 5, { rank: 'node.racks' }), ['three', 'one', 'none', 'bad', 'full'])
  t.deepEqual(names(candidates, 2, { rank: '-node.racks' }), ['one', 'three'])
})

test('a condition on pairs is sought for a set, not from one node on', (t) => {
  // The preferred node has one other near; three lie together elsewhere.
  const candidates = [
    placed('a', {}, at(0)),
    placed('b', {}, at(10)),
    placed('c', {}, at(500)),
    placed('d', {}, at(510)),
    placed('e', {}, at(520))
  ]
  t.deepEqual(names(candidates, 3, { pairwise: 'rtt_ms < 80' }), ['c', 'd', 'e'])
  t.deepEqual(names(candidates, 2, { pairwise: 'rtt_ms < 80' }), ['a', 'b'])
  t.deepEqual(names(candidates, 4, { pairwise: 'rtt_ms < 80' }), ['c', 'd', 'e'], 'the largest that there is')
})

test('nothing is known of nodes without a coordinate, nor of one whose coordinate says so', (t) => {
  const candidates = [
    placed('a', {}),
    placed('b', {}, at(1)),
    placed('c', {}, at(2)),
    placed('d', {}, at(1, 1000))
  ]
  t.deepEqual(names(candidates, 3, { pairwise: 'rtt_ms < 80' }), ['b', 'c'])
})

test('what pings gave counts for more than estimates, for a while', (t) => {
  let now = 0
  const times = new PairTimes({ monotonic: () => now })
  const candidates = ['a', 'b', 'c'].map((node, index) => placed(node, {}, at(index)))
  times.set('b', 'a', 300)
  const found = (): string[] =>
    choose(candidates, { count: 2, placement: { pairwise: 'rtt_ms < 80' }, times }).members.map(
      ({ node }) => node
    )
  t.deepEqual(found(), ['a', 'c'])
  times.set('a', 'c', undefined)
  t.deepEqual(found(), ['b', 'c'])
  now = 60_000
  t.deepEqual(found(), ['a', 'b'])
})

test('new members go with those held, and with one of which nothing is known nobody goes', (t) => {
  const candidates = [placed('a', { site: 's1' }, at(0)), placed('b', { site: 's2' }, at(50))]
  const chosen = (held: Candidate, placement: PlacementWish): string[] =>
    choose(candidates, { count: 2, placement, held: [held.advert] }).members.map(({ node }) => node)
  t.deepEqual(chosen(placed('h', { site: 's1' }), { distinct: ['site'] }), ['b'])
  t.deepEqual(chosen(placed('h', {}, at(120)), { pairwise: 'rtt_ms < 80' }), ['b'])
  t.deepEqual(chosen(placed('h', {}), { distinct: ['site'] }), [])
})

test('a search that is too hard is given up and says so, with what it found', (t) => {
  // Pairs of different halves of 1, 2, 4, … go together: a graph in which colours say little.
  const candidates = Array.from({ length: 300 }, (_one, index) =>
    placed(`n${String(index).padStart(3, '0')}`, { x: (index * 7919) % 997, y: (index * 104_729) % 991 })
  )
  const pairwise = '(a.x * b.x + a.y * b.y) % 10 < 9'
  const { members, isExhaustive } = choose(candidates, { count: 200, placement: { pairwise } })
  t.false(isExhaustive)
  t.true(members.length > 3)
})

test('of more nodes than are searched at once those around the set that was found are looked at as well', (t) => {
  // The preferred nodes lie far from one another; each has others near that are not among the preferred.
  const candidates = Array.from({ length: 3000 }, (_one, index) =>
    placed(`n${String(index).padStart(4, '0')}`, {}, at((index % 1500) * 1000 + Math.floor(index / 1500)))
  )
  const { members } = choose(candidates, { count: 2, placement: { pairwise: 'rtt_ms < 80' } })
  t.deepEqual(
    members.map(({ node }) => node),
    ['n0000', 'n1500']
  )
})

/** The largest number of members, and how many of one group it has at least, by looking at every set. */
function bruteForce(
  candidates: readonly Candidate[],
  count: number,
  goes: (one: Candidate, other: Candidate) => boolean,
  groupOf: (one: Candidate) => unknown
): { size: number; largestGroup: number } {
  let size = 0
  let largestGroup = 0
  const pairs = candidates.map((one) => candidates.map((other) => goes(one, other)))
  for (let set = 0; set < 2 ** candidates.length; set++) {
    const members = [...candidates.keys()].filter((index) => (set & (1 << index)) !== 0)
    if (members.length > count || members.length < size) continue
    const isTogether = members.every((one, at) => members.slice(at + 1).every((other) => pairs[one]?.[other]))
    if (!isTogether) continue
    const named = members.map((index) => groupOf(candidates[index] as Candidate))
    const groups = [...Map.groupBy(named, (group) => group).values()].map((group) => group.length)
    const largest = Math.max(0, ...groups)
    if (members.length > size) {
      size = members.length
      largestGroup = largest
    } else largestGroup = Math.min(largestGroup, largest)
  }
  return { size, largestGroup }
}

const attribute = fc.option(fc.constantFrom('v1', 'v2', 'v3', 'v4'), { nil: undefined })
const candidatesOf = fc
  .array(
    fc.record({
      site: attribute,
      organisation: attribute,
      racks: fc.option(fc.nat({ max: 3 }), { nil: undefined }),
      place: fc.option(fc.nat({ max: 200 }), { nil: undefined }),
      reliability: fc.constantFrom(100, 500, 900)
    }),
    { maxLength: 9 }
  )
  .map((all) =>
    all.map(({ site, organisation, racks, place, reliability }, index) => ({
      ...placed(
        `n${index}`,
        {
          ...(site === undefined ? {} : { site }),
          ...(organisation === undefined ? {} : { organisation }),
          ...(racks === undefined ? {} : { racks })
        },
        place === undefined ? undefined : at(place)
      ),
      reliability
    }))
  )
const placementOf = fc.record(
  {
    distinct: fc.constantFrom<string[]>(['site'], ['organisation'], ['site', 'organisation']),
    spread: fc.constantFrom<string>('site', 'organisation'),
    rank: fc.constant<string>('node.racks'),
    pairwise: fc.constantFrom<string>(
      'rtt_ms < 80',
      'rtt_ms > 20 && rtt_ms < 150',
      'a.racks != b.racks',
      'rtt_ms < 50 || a.site == b.site'
    )
  },
  { requiredKeys: [] }
)

test('a choice is as large and as even as one of all sets can be, breaks nothing, and is the same for the same adverts', (t) => {
  fc.assert(
    fc.property(candidatesOf, placementOf, fc.integer({ min: 1, max: 6 }), (candidates, wish, count) => {
      const placement = compilePlacement(wish)
      const times = new PairTimes(still)
      const goes = (one: Candidate, other: Candidate): boolean => {
        const values = (name: string): unknown[] => [one, other].map(({ advert }) => advert.attributes[name])
        const apart = placement.distinct.every((name) => {
          const [first, second] = values(name)
          return first !== undefined && second !== undefined && first !== second
        })
        const { pairwise } = placement
        const rttMs = times.rttMs(one.advert, other.advert)
        return (
          apart && (pairwise?.holds(pairwise.view(one.advert), pairwise.view(other.advert), rttMs) ?? true)
        )
      }
      const able = candidates.filter(({ advert }) =>
        placement.distinct.every((name) => advert.attributes[name] !== undefined)
      )
      const groupOf = ({ advert }: Candidate): unknown => advert.attributes[wish.spread ?? '']
      const { members, isExhaustive } = choose(candidates, { count, placement: wish })
      const chosen = members.flatMap(
        ({ node }) => candidates.find(({ advert }) => advert.issuer === node) ?? []
      )
      t.true(isExhaustive)
      t.is(new Set(chosen).size, members.length)
      for (const [index, one] of chosen.entries()) {
        for (const other of chosen.slice(index + 1)) t.true(goes(one, other))
      }
      const best = bruteForce(able, count, goes, groupOf)
      t.is(chosen.length, best.size)
      if (wish.spread !== undefined) {
        const groups = [...Map.groupBy(chosen, groupOf).values()].map((group) => group.length)
        t.is(Math.max(0, ...groups), best.largestGroup)
      }
      t.deepEqual(choose(candidates.toReversed(), { count, placement: wish }).members, members)
    }),
    { numRuns: 300 }
  )
})

test('an agent is chosen for each member among those that offer enough', (t) => {
  const candidates = ['a', 'b'].map((node) => ({
    ...placed(node, { site: node }),
    offers: [offer('small', 1), offer('y'), offer('z')]
  }))
  const { members } = choose(candidates, { count: 2, placement: { distinct: ['site'] } })
  t.deepEqual(
    members.map(({ agent }) => agent),
    ['y', 'z']
  )
})
