/** Choices whose distances are checked by pings of the chosen, with nodes that are honest, lie, or say nothing. */
import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { chooseChecked } from '../../src/broker/checked-choice.ts'
import { Compatibility } from '../../src/broker/compatibility.ts'
import { PairTimes } from '../../src/broker/pair-times.ts'
import { compilePlacement } from '../../src/broker/placement.ts'
import type { Candidate } from '../../src/broker/preference.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { HOUR, NOW, amounts } from '../ticket/fixtures.ts'
import { at, placed } from './candidates.ts'

/** What a node says of another: milliseconds, null when it does not reach it, or it throws when it does not answer. */
type Says = (asked: Principal, target: Principal) => number | null

interface Checked {
  readonly members: readonly Principal[]
  readonly isExhaustive: boolean
  readonly asked: readonly string[]
  readonly times: PairTimes
}

async function check(
  candidates: readonly Candidate[],
  count: number,
  says: Says | undefined,
  pairwise = 'rtt_ms < 80'
): Promise<Checked> {
  const clock = new ManualClock()
  const times = new PairTimes(clock)
  const asked: string[] = []
  const callMeasure =
    says &&
    ((node: Principal) =>
      (async (_method: string, { targets }: { targets: string[] }) => {
        if (targets.length > LIMITS.pingTargetsMax) throw new TypeError('more than a call takes')
        asked.push(...targets.map((target) => `${node}→${target}`))
        return {
          rttMicros: targets.map((target) => {
            const ms = says(node, target)
            return ms === null ? null : ms * 1000
          })
        }
      }) as never)
  const choice = await chooseChecked({ clock, logger: silentLogger, callMeasure, times }, candidates, {
    count,
    resources: amounts(2),
    notAfter: NOW + HOUR,
    granted: new Map(),
    placement: compilePlacement({ pairwise })
  })
  return { ...choice, members: choice.members.map(({ node }) => node), asked, times }
}

/** Six that are near one another by what they say of themselves. */
const six = ['a', 'b', 'c', 'd', 'e', 'f'].map((node, index) => placed(node, {}, at(index)))
const near: Says = () => 10

test('each of two that are chosen is asked once for the other, and nobody else is', async (t) => {
  const { members, asked, isExhaustive } = await check(six, 3, near)
  t.deepEqual(members, ['a', 'b', 'c'])
  t.true(isExhaustive)
  t.deepEqual(asked.toSorted(), ['a→b', 'a→c', 'b→a', 'b→c', 'c→a', 'c→b'])
})

test('where a ping shows that two are far apart, others are chosen', async (t) => {
  const far = new Set(['a b', 'b a', 'a c', 'c a'])
  const { members } = await check(six, 3, (one, other) => (far.has(`${one} ${other}`) ? 300 : 10))
  t.deepEqual(members, ['a', 'd', 'e'])
})

test('a node that lies about being near is found out by those that it is far from', async (t) => {
  const says: Says = (one, other) => {
    if (one === 'a') return 1
    return other === 'a' ? 400 : 10
  }
  t.deepEqual((await check(six, 3, says)).members, ['b', 'c', 'd'])
  const believed = await check(six, 3, undefined)
  t.deepEqual(believed.members, ['a', 'b', 'c'], 'without pings it is taken at its word')
})

test('a node that says that all are far, or that it reaches nobody, keeps only itself out', async (t) => {
  for (const lie of [500, null]) {
    const { members } = await check(six, 5, (one) => (one === 'c' ? lie : 10))
    t.deepEqual(members, ['a', 'b', 'd', 'e', 'f'], String(lie))
  }
})

test('where one of two does not answer, the word of the other counts; where neither does, nothing is known', async (t) => {
  const silent =
    (nodes: string): Says =>
    (one) => {
      if (nodes.includes(one)) throw new Error('no answer')
      return 10
    }
  t.deepEqual((await check(six, 3, silent('a'))).members, ['a', 'b', 'c'])
  const { members, times } = await check(six, 3, silent('ab'))
  t.deepEqual(members, ['a', 'c', 'd'])
  const compatibility = new Compatibility(compilePlacement({ pairwise: 'rtt_ms < 80' }), times)
  const [a, b] = six.map(({ advert }) => compatibility.place(advert))
  if (a === undefined || b === undefined) return t.fail()
  return t.deepEqual(compatibility.failures(b, a), [
    { clause: 'pairwise: rtt_ms < 80', value: 'not known with member a by their pings' }
  ])
})

test('nodes that have no place yet are pinged when too few others make the slice', async (t) => {
  const fresh = ['g', 'h', 'i'].map((node) => placed(node, {}))
  const { members } = await check(fresh, 2, near)
  t.deepEqual(members, ['g', 'h'])
  t.deepEqual((await check(fresh, 2, undefined)).members.length, 1, 'without pings nothing is known of them')
  const enough = await check([...six, ...fresh], 3, near)
  t.false(
    enough.asked.some((asked) => asked.includes('g')),
    'where others make it they are left alone'
  )
  const far = await check(fresh, 2, () => 300)
  t.is(far.members.length, 1)
})

test('pings are bounded, and what could not be confirmed is not believed', async (t) => {
  // Every pair is far: whatever is chosen does not stand.
  const many = Array.from({ length: 60 }, (_one, index) => placed(`n${index + 10}`, {}, at(index % 50)))
  const { members, isExhaustive, asked } = await check(many, 4, () => 500)
  t.true(members.length <= 1)
  t.false(isExhaustive)
  t.true(asked.length <= 2 * LIMITS.pingPairsMax)
})

test('of a slice that is too large for all to ping one another those are checked that are likely to be far apart', async (t) => {
  const many = Array.from({ length: 70 }, (_one, index) => placed(`n${index + 10}`, {}, at(index)))
  const { members, asked } = await check(many, 70, near)
  t.is(members.length, 70)
  t.is(asked.length, 2 * LIMITS.pingPairsMax)
  t.true(asked.includes('n10→n79'))
  t.false(asked.includes('n10→n11'))
})

test('a condition that does not look at times asks nobody', async (t) => {
  const { members, asked } = await check(six, 3, near, 'a.name != b.name')
  t.is(members.length, 3)
  t.deepEqual(asked, [])
})

test('whoever waits no more does not wait for pings', async (t) => {
  const clock = new ManualClock()
  const controller = new AbortController()
  const never = (() => async () => {
    controller.abort(new Error('enough'))
    return new Promise(() => {})
  }) as never
  const choosing = chooseChecked(
    { clock, logger: silentLogger, callMeasure: never, times: new PairTimes(clock) },
    six,
    {
      count: 2,
      resources: amounts(2),
      notAfter: NOW + HOUR,
      granted: new Map(),
      placement: compilePlacement({ pairwise: 'rtt_ms < 80' })
    },
    controller.signal
  )
  await t.throwsAsync(choosing, { message: 'enough' })
})
