import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { peakClaimed, type Claim } from '../../src/ticket/claims.ts'
import { ClaimProfile } from '../../src/ticket/claim-profile.ts'
import type { Interval } from '../../src/ticket/interval.ts'
import {
  NO_RESOURCES,
  RESOURCE_NAMES,
  resourcesExceeding,
  type Resources
} from '../../src/ticket/resources.ts'
import { numbersOf } from '../base/seeded-numbers.ts'

type Step =
  | { readonly kind: 'add'; readonly claim: Claim }
  | { readonly kind: 'remove'; readonly index: number }
  | { readonly kind: 'peak'; readonly window: Interval }

const resources = fc
  .array(fc.integer({ min: 0, max: 9 }), {
    minLength: RESOURCE_NAMES.length,
    maxLength: RESOURCE_NAMES.length
  })
  .map(
    (amounts) => Object.fromEntries(RESOURCE_NAMES.map((name, index) => [name, amounts[index]])) as Resources
  )

/** Few instants, so that many claims begin and end together. */
function intervals(lengthMin: number): fc.Arbitrary<Interval> {
  return fc
    .tuple(fc.integer({ min: 0, max: 24 }), fc.integer({ min: lengthMin, max: 12 }))
    .map(([notBefore, length]) => ({ notBefore, notAfter: notBefore + length }))
}

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(intervals(0), resources)
      .map(([interval, amounts]) => ({ kind: 'add' as const, claim: { ...interval, resources: amounts } }))
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), index: fc.nat({ max: 999 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('peak' as const), window: intervals(1) }) }
)

/** Plays a history on the profile and on a plain list of claims, and compares every answer. */
function compare(t: ExecutionContext, steps: readonly Step[]): void {
  const profile = new ClaimProfile()
  const claims: Claim[] = []
  for (const one of steps) {
    if (one.kind === 'add') {
      profile.add(one.claim)
      claims.push(one.claim)
    } else if (one.kind === 'remove' && claims.length > 0) {
      const [claim] = claims.splice(one.index % claims.length, 1)
      if (claim !== undefined) profile.remove(claim)
    } else if (one.kind === 'peak') {
      const peak = profile.peak(one.window)
      assertEqual(t, peak, peakClaimed(claims, one.window))
      if (resourcesExceeding(peak, profile.peakEver()).length > 0)
        t.fail('a window passes the peak over all time')
    }
  }
  assertEqual(t, profile.peakEver(), peakClaimed(claims, { notBefore: 0, notAfter: 1e6 }))
}

/** AVA's own comparison, taken half a million times, would be most of the test. */
function assertEqual(t: ExecutionContext, actual: Resources, expected: Resources): void {
  if (RESOURCE_NAMES.some((name) => !Object.is(actual[name], expected[name]))) t.deepEqual(actual, expected)
}

test('over 10,000 histories a profile answers as the walk over all claims does', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40, size: 'max' }), (steps) => compare(t, steps)),
    { numRuns: 10_000 }
  )
  t.pass()
})

test('with a thousand claims, caps all different and gaps between, a profile answers as the walk does', (t) => {
  for (let seed = 1; seed <= 10; seed++) {
    const below = numbersOf(seed)
    const steps = Array.from({ length: 1400 }, (_one, index): Step => {
      // It grows for a thousand steps and shrinks again.
      const kind = below(25) === 0 ? 'peak' : below(1400) > index ? 'add' : 'remove'
      const begin = below(100_000)
      const interval = { notBefore: begin, notAfter: begin + 1 + below(below(10) === 0 ? 50_000 : 50) }
      if (kind === 'peak') return { kind, window: interval }
      if (kind === 'remove') return { kind, index: below(1_000_000) }
      const amounts = RESOURCE_NAMES.map((name) => [name, below(1_000_000)])
      return { kind, claim: { ...interval, resources: Object.fromEntries(amounts) as Resources } }
    })
    compare(t, steps)
  }
  t.pass()
})

test('claims that come in order make no list of the tree: 20,000 of them do not exhaust the stack', (t) => {
  const profile = new ClaimProfile()
  const claims = Array.from({ length: 20_000 }, (_one, index) => ({
    notBefore: index,
    notAfter: index + 2,
    resources: { ...NO_RESOURCES, pids: 1, cpuMillisMax: index }
  }))
  for (const claim of claims) profile.add(claim)
  t.is(profile.peak({ notBefore: 0, notAfter: 30_000 }).pids, 2)
  t.is(profile.peak({ notBefore: 70, notAfter: 71 }).cpuMillisMax, 70)
  for (const claim of claims) profile.remove(claim)
  t.deepEqual(profile.peakEver(), NO_RESOURCES)
  t.is(profile.size, 0)
})

test('a claim counts once, and only what counts can be taken out', (t) => {
  const profile = new ClaimProfile()
  const claim = { notBefore: 0, notAfter: 1, resources: { ...NO_RESOURCES, pids: 3 } }
  profile.add(claim)
  t.true(profile.has(claim))
  t.throws(() => profile.add(claim), { instanceOf: TypeError })
  t.throws(() => profile.remove({ ...claim }), { instanceOf: TypeError })
  t.is(profile.peak(claim).pids, 3)
  profile.remove(claim)
  t.throws(() => profile.remove(claim), { instanceOf: TypeError })
})
