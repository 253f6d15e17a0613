import test from 'ava'
import { faultsOf, simulateAll, traceHashOf } from './campaign.ts'
import { FLAWS, type Flaw } from './flaws.ts'
import type { Outcome } from './simulation.ts'

const SEEDS = Array.from({ length: 25 }, (_none, index) => index + 1)

test.serial('whatever goes wrong, no invariant is violated, and all comes right in the end', async (t) => {
  const outcomes = await simulateAll({ seeds: SEEDS })
  t.deepEqual(
    outcomes.flatMap(({ seed, violations }) => violations.map((one) => ({ seed, ...one }))),
    []
  )
  for (const { seed, operations, leases } of outcomes) {
    t.true(operations > 150, `seed ${seed}`)
    t.true(leases > 0, `seed ${seed}`)
  }
  const counts = Object.entries(faultsOf(outcomes))
  t.deepEqual(
    counts.filter(([, count]) => count === 0),
    []
  )
})

test.serial('the same seed gives the same trace, another seed another', async (t) => {
  const once = await simulateAll({ seeds: [1, 2, 3] })
  const again = await simulateAll({ seeds: [3, 2, 1] })
  t.is(traceHashOf(once), traceHashOf(again.reverse()))
  t.is(new Set(once.map(({ hash }) => hash)).size, 3)
})

const NOTICED: Readonly<Record<Flaw, string>> = {
  'store-acknowledges-early': 'an acknowledged lease is kept',
  'admission-ignores-leases': 'no more than there is',
  'redeemed-tickets-forgotten': 'a ticket is redeemed at most once',
  'vservers-left-behind': 'what runs is leased'
}

for (const [flaw, what] of Object.entries(FLAWS) as [Flaw, string][]) {
  test.serial(`it is noticed when ${what}`, async (t) => {
    const isNoticed = ({ violations }: Outcome): boolean =>
      violations.some(({ invariant }) => invariant === NOTICED[flaw])
    const outcomes = await simulateAll({ seeds: SEEDS.slice(0, 10), flaw, until: isNoticed })
    const violated = outcomes.flatMap(({ violations }) => violations.map(({ invariant }) => invariant))
    t.true(outcomes.some(isNoticed), violated.join(', '))
  })
}
