import test from 'ava'
import { LIMITS } from '../../src/base/limits.ts'
import { ProofTable } from '../../src/peer/proof-table.ts'
import { bundleFinding } from '../../src/ticket/fraud-bundle.ts'
import { fraudProofObject } from '../../src/ticket/fraud-proof.ts'
import { decodeCbor, encodeCbor } from '../../src/wire/cbor.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { makeKey, NOW } from '../ticket/fixtures.ts'
import { equivocating, fraud, proofOf } from '../ticket/frauds.ts'

function makeTable(isKnown: (principal: string) => boolean = () => false) {
  const clock = new ManualClock()
  return { clock, table: new ProofTable({ clock, isKnown }) }
}

const PEER = makeKey().principal
const DAY = 24 * 3_600_000

test('one proof of each kind and accused is kept, and told of once', (t) => {
  const { table } = makeTable()
  const told: string[] = []
  table.on(({ finding }) => void told.push(finding.accused))
  const accused = makeKey()
  t.is(table.offer(fraud({ accused }).bytes, PEER), 'new')
  // Another's proof of another pair of tickets.
  t.is(table.offer(fraud({ accused }).bytes, PEER), 'known')
  t.is(table.offer(fraud().bytes, PEER), 'new')
  t.is(table.all().length, 2)
  t.is(told.length, 2)
  t.is(told[0], accused.principal)
})

test('what proves nothing is not kept, whoever signed it', (t) => {
  const { table } = makeTable()
  const one = fraud()
  const another = fraud()
  const finder = makeKey()
  const swap = (bundle: typeof one, evidence: unknown): Uint8Array =>
    encodeCbor({ ...(decodeCbor(bundle.bytes, { bytesMax: 1e6, depthMax: 4 }) as object), evidence })
  const [first, second] = one.finding.evidence.map(({ bytes }) => bytes)
  const forged = Uint8Array.from(second ?? [])
  const at = Buffer.from(forged).indexOf('signature') + 'signature'.length + 20
  forged[at] = (forged[at] ?? 0) ^ 1
  const slander = { ...one.finding, accused: makeKey().principal }
  const bad: Record<string, Uint8Array> = {
    'nothing at all': new Uint8Array(3),
    'evidence of another fraud': swap(
      one,
      another.finding.evidence.map(({ bytes }) => bytes)
    ),
    'evidence in another order': swap(one, [second, first]),
    'half of the evidence': swap(one, [first, first]),
    'evidence with a forged signature': swap(one, [first, forged]),
    'somebody else accused': bundleFinding(slander, finder, { now: NOW, seq: 1 }).bytes,
    'another kind': bundleFinding({ ...one.finding, kind: 'port-leased-twice' }, finder, { now: NOW, seq: 1 })
      .bytes
  }
  for (const [what, bytes] of Object.entries(bad)) t.is(table.offer(bytes, PEER), 'invalid', what)
  t.is(table.all().length, 0)
  t.is(table.offer(one.bytes, PEER), 'new')
})

test('a peer that brings many is heard less, others and this one itself as before', async (t) => {
  const { table, clock } = makeTable(() => true)
  const verdicts = Array.from({ length: LIMITS.proofsPerPeerBurst + 2 }, () =>
    table.offer(fraud().bytes, PEER)
  )
  t.deepEqual(verdicts.slice(-3), ['new', 'too-often', 'too-often'])
  t.is(table.offer(fraud().bytes, makeKey().principal), 'new')
  t.is(table.offer(fraud().bytes), 'new')
  await clock.advance(60_000 / LIMITS.proofsPerPeerPerMinute)
  t.is(table.offer(fraud().bytes, PEER), 'new')
})

test('a proof is kept until its time, no longer than any may, and not before', async (t) => {
  const { table, clock } = makeTable()
  const now = clock.now()
  const { finding } = fraud()
  t.is(table.offer(proofOf(finding, { now: now - LIMITS.proofLifeMsMax }).bytes), 'expired')
  t.is(table.offer(proofOf(finding, { now: now + DAY }).bytes), 'not-yet')
  const finder = makeKey()
  const body = { ...proofOf(finding, { finder }).proof.body, notAfter: NOW + LIMITS.proofLifeMsMax + 1 }
  const lasting = encodeCbor({
    proof: fraudProofObject.sign(body, finder).bytes,
    evidence: finding.evidence.map(({ bytes }) => bytes)
  })
  t.is(table.offer(lasting), 'invalid')
  t.is(table.offer(proofOf(finding, { now: now - LIMITS.proofLifeMsMax + 1000 }).bytes), 'new')
  // One that is good for longer takes its place.
  t.is(table.offer(proofOf(finding, { now }).bytes), 'new')
  t.is(table.all().length, 1)
  await clock.advance(2000)
  table.sweep()
  t.is(table.all().length, 1)
  await clock.advance(LIMITS.proofLifeMsMax)
  t.is(table.all().length, 0)
})

test('proofs against those whom nobody knows make room for others', (t) => {
  const known = makeKey()
  const { table } = makeTable((principal) => principal === known.principal)
  t.is(table.offer(fraud({ accused: known }).bytes), 'new')
  for (let i = 0; i < LIMITS.proofsKeptMax + 5; i++) t.is(table.offer(proofOf(equivocating()).bytes), 'new')
  t.true(table.all().length <= LIMITS.proofsKeptMax)
  t.true(table.all().some(({ finding }) => finding.accused === known.principal))
})
