import test from 'ava'
import fc from 'fast-check'
import * as v from 'valibot'
import { LIMITS } from '../../src/base/limits.ts'
import { systemRandom } from '../../src/base/random.ts'
import { Vivaldi } from '../../src/peer/vivaldi.ts'
import { coordinateSchema, estimatedRttMs, type Coordinate } from '../../src/ticket/coordinate.ts'
import {
  estimateErrors,
  latencySpace,
  newcomerErrors,
  placed,
  quantile,
  triangleViolations,
  type Lie
} from './fixtures/latency-space.ts'

const HERE: Coordinate = { vector: [0, 0, 0, 0], height: 100, error: 100 }

test('peers that measure a few others estimate the times to all, detours and delays notwithstanding', (t) => {
  for (const seed of [1, 2, 3]) {
    const space = latencySpace(150, seed)
    const violated = triangleViolations(space)
    t.true(violated > 0.02, `${violated} of the triangles are violated`)
    const errors = estimateErrors(space, placed(space, { rounds: 200, neighbours: 16 }))
    t.log(`seed ${seed}: median ${quantile(errors, 0.5).toFixed(3)}, p90 ${quantile(errors, 0.9).toFixed(3)}`)
    t.true(quantile(errors, 0.5) <= 0.15)
    const untaught = estimateErrors(space, placed(space, { rounds: 1, neighbours: 16 }))
    t.true(quantile(untaught, 0.5) > 0.5, 'and they could not do so without measuring')
  }
})

test('one who joins those that have settled finds its place with few measurements', (t) => {
  const space = latencySpace(120, 4)
  const where = placed(space, { rounds: 200, neighbours: 16 })
  const median = (samples: number): number => {
    const all = [...where.keys()].flatMap((newcomer) => newcomerErrors(space, where, { newcomer, samples }))
    return quantile(
      all.sort((one, other) => one - other),
      0.5
    )
  }
  const [few, more] = [median(2), median(16)]
  t.log(`median after 2 ${few.toFixed(3)}, after 16 ${more.toFixed(3)}`)
  t.true(more <= 0.25 && more < few)
})

const far: Lie = (space) => [
  { vector: [0, 1, 2, 3].map(() => space.number(120_000_000) - 60_000_000), height: 0, error: 0 },
  0
]
const high: Lie = () => [{ vector: [0, 0, 0, 0], height: 60_000_000, error: 0 }, 0]
const slow: Lie = (_space, truth) => [{ ...truth, error: 0 }, 1_000_000]
const near: Lie = (space) => [
  {
    vector: [0, 1, 2, 3].map(() => space.number(400_000) - 200_000),
    height: space.number(50_000),
    error: 0
  },
  0
]
/** Of one mind, and careful to say nothing impossible. */
const united: Lie = () => [{ vector: [300_000, -200_000, 100_000, 0], height: 0, error: 0 }, 0]
const tall: Lie = (_space, _truth, sample) => [
  { vector: [0, 0, 0, 0], height: Math.round(sample * 0.9), error: 0 },
  0
]

for (const [name, lie] of Object.entries({ far, high, slow, near })) {
  test(`a fifth of liars (${name}) does not spoil the estimates of the others, but would without bounds`, (t) => {
    const liars = { percent: 20, lie }
    const median = (without?: 'bounds'): number => {
      const space = latencySpace(120, 7)
      const where = placed(space, {
        rounds: 200,
        neighbours: 16,
        liars,
        ...(without === undefined ? {} : { without })
      })
      return quantile(estimateErrors(space, where), 0.5)
    }
    const [bounded, unbounded] = [median(), median('bounds')]
    t.log(`median ${bounded.toFixed(3)}, without bounds ${unbounded.toFixed(3)}`)
    t.true(bounded <= 0.2)
    t.true(unbounded > 0.2)
  })
}

for (const [name, lie] of Object.entries({ united, tall })) {
  test(`a fifth of liars that say nothing impossible (${name}) costs accuracy within a bound`, (t) => {
    const space = latencySpace(120, 7)
    const where = placed(space, { rounds: 200, neighbours: 16, liars: { percent: 20, lie } })
    const errors = estimateErrors(space, where)
    t.log(`median ${quantile(errors, 0.5).toFixed(3)}`)
    t.true(quantile(errors, 0.5) <= 0.4)
  })
}

const anyNumber = fc.oneof(fc.double(), fc.integer(), fc.constantFrom(0, -0, 1e-320, 1e308, 2 ** 53, -1))
const anyCoordinate = fc.record({
  vector: fc.array(anyNumber, { minLength: 0, maxLength: 6 }),
  height: anyNumber,
  error: anyNumber
})
const axis = fc.integer({ min: -60_000_000, max: 60_000_000 })
const goodCoordinate = fc.record({
  vector: fc.tuple(axis, axis, axis, axis).map((all) => [...all]),
  height: fc.integer({ min: 0, max: 60_000_000 }),
  error: fc.integer({ min: 0, max: 2000 })
})

test('whatever comes in, a coordinate stays one that an advert can carry', (t) => {
  const sample = fc.tuple(
    fc.constantFrom('a', 'b', 'c'),
    fc.oneof(goodCoordinate, anyCoordinate),
    fc.oneof(anyNumber, fc.integer({ min: 1, max: 500_000 }))
  )
  fc.assert(
    fc.property(
      fc.array(sample, { maxLength: 60 }),
      fc.option(fc.constant('bounds' as const), { nil: undefined }),
      fc.option(goodCoordinate, { nil: undefined }),
      (samples, without, from) => {
        const vivaldi = new Vivaldi(
          { random: systemRandom },
          { ...(without === undefined ? {} : { without }), ...(from === undefined ? {} : { from }) }
        )
        for (const [peer, other, rtt] of samples) {
          vivaldi.observe(peer, other, rtt)
          v.assert(coordinateSchema, vivaldi.coordinate())
        }
      }
    ),
    { numRuns: 300 }
  )
  t.pass()
})

test('what cannot be is refused and changes nothing', (t) => {
  const vivaldi = new Vivaldi({ random: systemRandom }, { from: HERE })
  const before = vivaldi.coordinate()
  for (const rtt of [0, -1, Number.NaN, Infinity, 10_000_001]) t.false(vivaldi.observe('a', HERE, rtt))
  t.false(vivaldi.observe('a', { ...HERE, height: 20_000 }, 10_000), 'its link alone takes longer')
  t.false(vivaldi.observe('a', { ...HERE, vector: [1, 2, 3] }, 10_000))
  t.deepEqual(vivaldi.coordinate(), before)
  t.true(vivaldi.observe('a', HERE, 10_000))
  t.notDeepEqual(vivaldi.coordinate(), before)
})

test('one delay among several times is no distance', (t) => {
  const moved = (rtts: readonly number[]): number => {
    const vivaldi = new Vivaldi({ random: systemRandom }, { from: HERE })
    const other = { ...HERE, vector: [10_000, 0, 0, 0] }
    for (const rtt of rtts) vivaldi.observe('a', other, rtt)
    return estimatedRttMs(vivaldi.coordinate(), other) ?? Number.NaN
  }
  const steady = moved([10_200, 10_200, 10_200, 10_200])
  t.is(moved([10_200, 10_200, 10_200, 300_000]), steady)
  t.true(moved([10_200, 10_200, 300_000, 300_000]) > steady, 'but two are')
})

test('an overlay that drifts is drawn back to the centre', (t) => {
  const out = { ...HERE, vector: [8_000_000, 0, 0, 0] }
  const vivaldi = new Vivaldi({ random: systemRandom }, { from: out })
  // Its neighbour drifts with it: nothing they measure tells them.
  for (let count = 0; count < 100; count++) vivaldi.observe('a', vivaldi.coordinate(), 200)
  t.true((vivaldi.coordinate().vector[0] ?? 0) < 7_900_000)
})

test('of many peers those measured last are remembered', (t) => {
  const vivaldi = new Vivaldi({ random: systemRandom }, { from: HERE })
  const other = { ...HERE, vector: [10_000, 0, 0, 0] }
  for (let count = 0; count < 3; count++) vivaldi.observe('first', other, 9000)
  for (let peer = 0; peer < LIMITS.neighboursMax; peer++) vivaldi.observe(String(peer), other, 10_200)
  const before = vivaldi.coordinate()
  vivaldi.observe('first', other, 200_000)
  t.notDeepEqual(vivaldi.coordinate(), before, 'its times from before were forgotten')
})

test('times are estimated only where both ends know where they are', (t) => {
  const there = { vector: [3000, 4000, 0, 0], height: 500, error: 200 }
  t.is(estimatedRttMs(HERE, there), 5.6)
  t.is(estimatedRttMs(HERE, undefined), undefined)
  t.is(estimatedRttMs(undefined, there), undefined)
  t.is(estimatedRttMs(HERE, { ...there, error: 1000 }), undefined)
  t.is(estimatedRttMs(new Vivaldi({ random: systemRandom }).coordinate(), there), undefined)
})
