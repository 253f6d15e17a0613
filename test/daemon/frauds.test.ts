import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { FraudFinder } from '../../src/daemon/fraud-finder.ts'
import { ProofKeeper } from '../../src/daemon/proof-keeper.ts'
import { ProofTable } from '../../src/peer/proof-table.ts'
import type { Proofs } from '../../src/peer/proofs.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { Store } from '../../src/store/store.ts'
import { FaultyStore } from '../base/faulty-store.ts'
import { ManualClock, settle } from '../base/manual-clock.ts'
import { makeKey } from '../ticket/fixtures.ts'
import { equivocating, fraud, proofOf } from '../ticket/frauds.ts'

/** Proofs as a peer alone has them. */
function lonely(clock = new ManualClock()): Proofs {
  const table = new ProofTable({ clock, isKnown: () => false })
  return {
    publish: async ({ bytes }) => void table.offer(bytes),
    load: (bytes) => table.offer(bytes) === 'new',
    has: (principal) => table.all().filter(({ finding }) => finding.accused === principal),
    all: () => table.all(),
    on: (_event, listener) => table.on(listener)
  }
}

function finder(proofs: Proofs): FraudFinder {
  return new FraudFinder({ key: makeKey(), proofs, clock: new ManualClock(), logger: silentLogger })
}

test('what contradicts itself is found, proven by this peer’s key, and told of once', async (t) => {
  const proofs = lonely()
  const frauds = finder(proofs)
  const { accused, evidence } = equivocating()
  const [first, second] = evidence.map(({ bytes }) => bytes)
  frauds.observeBytes([first ?? new Uint8Array()])
  t.false(frauds.isProven(accused))
  frauds.observeBytes([second ?? new Uint8Array(), new Uint8Array(5)])
  await settle()
  t.true(frauds.isProven(accused))
  t.like(proofs.has(accused)[0]?.finding, { kind: 'equivocation', accused })
  frauds.observeBytes(evidence.map(({ bytes }) => bytes))
  t.is(proofs.all().length, 1)
})

test('the order in which they come makes no difference', async (t) => {
  const proofs = lonely()
  const { accused, evidence } = equivocating()
  finder(proofs).observeBytes(evidence.map(({ bytes }) => bytes).toReversed())
  await settle()
  t.is(proofs.has(accused).length, 1)
})

async function keptBy(store: Store): Promise<string[]> {
  const rows = await Array.fromAsync(store.iterate('proofs'))
  return rows.map(([key]) => key)
}

test('proofs are known after a restart, and forgotten when they are over', async (t) => {
  const clock = new ManualClock()
  const store = await FaultyStore.open()
  const proofs = lonely(clock)
  const keeper = new ProofKeeper({ store, proofs, logger: silentLogger })
  await keeper.start()
  const early = clock.now() - LIMITS.proofLifeMsMax + 1000
  const [one, other] = [fraud(), proofOf(equivocating(), { now: early })]
  await proofs.publish(one)
  await proofs.publish(other)
  await keeper.stop()
  t.is((await keptBy(store)).length, 2)
  const again = lonely(clock)
  const afresh = new ProofKeeper({ store, proofs: again, logger: silentLogger })
  await afresh.start()
  await afresh.stop()
  t.deepEqual(
    again
      .all()
      .map(({ proof }) => proof.id)
      .toSorted(),
    [one.proof.id, other.proof.id].toSorted()
  )
  await clock.advance(2000)
  const later = new ProofKeeper({ store, proofs: lonely(clock), logger: silentLogger })
  await later.start()
  await later.stop()
  t.deepEqual(await keptBy(store), [`equivocation/${one.finding.accused}`])
})

test('a store that fails takes no proof from the peer', async (t) => {
  const store = await FaultyStore.open()
  const proofs = lonely()
  const keeper = new ProofKeeper({ store, proofs, logger: silentLogger })
  await keeper.start()
  store.plan(1, 'fail')
  const { finding, ...bundle } = fraud()
  await proofs.publish({ ...bundle, finding })
  await t.notThrowsAsync(keeper.stop())
  t.is(proofs.has(finding.accused).length, 1)
})
