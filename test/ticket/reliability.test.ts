import test from 'ava'
import fc from 'fast-check'
import { openReceipt, outcomeOf } from '../../src/ticket/receipt.ts'
import { leaseObject } from '../../src/ticket/lease.ts'
import { refusalObject, type Refusal } from '../../src/ticket/refusal.ts'
import {
  permille,
  rate,
  UNKNOWN_PERMILLE,
  weightOf,
  type Outcome,
  type Score
} from '../../src/ticket/reliability.ts'
import { HOUR, IMAGE, NOW, amounts, delegate, demand, issue, makeKey } from './fixtures.ts'

const WEEK = 7 * 24 * HOUR

function scoreOf(outcomes: readonly Outcome[], now = NOW): Score | undefined {
  return outcomes.reduce<Score | undefined>((score, outcome) => rate(score, outcome, now), undefined)
}
const times = (count: number, outcome: Outcome): Outcome[] => Array.from({ length: count }, () => outcome)

test('who is not known lies between those who kept and those who broke', (t) => {
  t.is(UNKNOWN_PERMILLE, 500)
  t.is(permille(scoreOf(['kept']), NOW), 666)
  t.is(permille(scoreOf(['broken']), NOW), 333)
  t.is(permille(scoreOf(['kept', 'broken']), NOW), 500)
})

test('every outcome moves the score its way, and it stays between 1 and 999', (t) => {
  const outcomes = fc.array(fc.record({ kept: fc.boolean(), after: fc.nat({ max: 3 * WEEK }) }), {
    maxLength: 200
  })
  fc.assert(
    fc.property(outcomes, (all) => {
      let score: Score | undefined
      let now = NOW
      for (const { kept, after } of all) {
        now += after
        const before = permille(score, now)
        score = rate(score, kept ? 'kept' : 'broken', now)
        const value = permille(score, now)
        t.true(kept ? value >= before : value <= before)
        t.true(value >= 1 && value <= 999 && Number.isSafeInteger(score.kept + score.broken))
      }
    }),
    { numRuns: 200 }
  )
})

test('the past weighs half as much every week, and a clock set back changes nothing', (t) => {
  const score = scoreOf(times(8, 'broken'))
  t.is(weightOf(score, NOW), 8)
  t.is(weightOf(score, NOW + WEEK), 4)
  t.is(weightOf(score, NOW - WEEK), 8)
  t.is(permille(score, NOW + 1000 * WEEK), UNKNOWN_PERMILLE)
})

test('a long good past does not hide that somebody has turned', (t) => {
  const score = scoreOf([...times(10_000, 'kept'), ...times(60, 'broken')])
  t.true(permille(score, NOW) < 500)
})

const node = makeKey()
const agent = makeKey()
const holder = makeKey()
const ticket = issue(delegate(node, agent), agent, holder)
const redeem = demand(ticket, holder)
const refusal = (changes: Partial<Refusal> = {}, key = node): Uint8Array =>
  refusalObject.sign(
    {
      issuer: key.principal,
      notBefore: NOW,
      notAfter: NOW + HOUR,
      seq: 1,
      code: 'OVERBOOKED',
      message: 'full',
      request: redeem.id,
      evidence: [],
      ...changes
    },
    key
  ).bytes
const lease = (of = ticket.id, key = node): Uint8Array =>
  leaseObject.sign(
    {
      issuer: key.principal,
      notBefore: NOW,
      notAfter: NOW + HOUR,
      seq: 1,
      ticket: of,
      holder: holder.principal,
      slice: 'mesh',
      image: IMAGE,
      resources: amounts(1),
      ports: [],
      rights: [],
      address: '192.0.2.1',
      vserver: 'v1',
      epoch: 1
    },
    key
  ).bytes

const cases: Readonly<Record<string, readonly [Parameters<typeof openReceipt>[0], Outcome | undefined]>> = {
  'a lease': [{ redeem: redeem.bytes, lease: lease() }, 'kept'],
  'a refusal for want of room': [{ redeem: redeem.bytes, refusal: refusal() }, 'broken'],
  'a refusal that is the holder’s own fault': [
    { redeem: redeem.bytes, refusal: refusal({ code: 'TICKET_EXPIRED' }) },
    undefined
  ],
  'a refusal of another demand': [
    { redeem: redeem.bytes, refusal: refusal({ request: ticket.id }) },
    undefined
  ],
  'a refusal by somebody else': [{ redeem: redeem.bytes, refusal: refusal({}, holder) }, undefined],
  'a lease by somebody else': [{ redeem: redeem.bytes, lease: lease(ticket.id, holder) }, undefined],
  'a lease for another ticket': [{ redeem: redeem.bytes, lease: lease(redeem.id) }, undefined],
  'a demand of somebody else': [{ redeem: demand(ticket, agent).bytes, refusal: refusal() }, undefined]
}
for (const [name, [receipt, outcome]] of Object.entries(cases)) {
  test(`a receipt with ${name} is ${outcome ?? 'nothing'}`, (t) => {
    t.is(outcomeOf(openReceipt(receipt), ticket), outcome)
  })
}

test('a receipt has one answer', (t) => {
  t.throws(() => openReceipt({ redeem: redeem.bytes }), { code: 'ENCODING_INVALID' })
  const both = { redeem: redeem.bytes, lease: lease(), refusal: refusal() }
  t.throws(() => openReceipt(both), { code: 'ENCODING_INVALID' })
})
