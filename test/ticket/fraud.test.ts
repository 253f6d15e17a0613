import test from 'ava'
import type { AnyObject } from '../../src/ticket/any-object.ts'
import { bundleFinding, openBundle } from '../../src/ticket/fraud-bundle.ts'
import {
  delegatedPercent,
  equivocation,
  overDelegated,
  overIssued,
  portLeasedTwice,
  type Finding
} from '../../src/ticket/fraud.ts'
import { FraudWatch } from '../../src/ticket/fraud-watch.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import type { Lease } from '../../src/ticket/lease.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import type { Delegation } from '../../src/ticket/delegation.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { surrenderObject } from '../../src/ticket/surrender.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { HOUR, NOW, advertise, amounts, delegate, issue, lease as leaseOf, makeKey } from './fixtures.ts'

const [node, agent, other, holder, stranger] = [makeKey(), makeKey(), makeKey(), makeKey(), makeKey()]
const delegation = delegate(node, agent)
const plain = (seq: number, factor: number, changes: Partial<Ticket> = {}): Signed<Ticket> =>
  issue(delegation, agent, holder, { seq, resources: amounts(factor), ports: [], ...changes })
const port = (first: number) => [{ protocol: 'tcp' as const, first, last: first }]

test('tickets up to the limit are no fraud, one more is, and the proof names the fewest that show it', (t) => {
  const honest = [1, 2, 3].map((seq) => plain(seq, 3))
  t.is(overIssued(delegation, honest), undefined)
  const found = overIssued(delegation, [...honest, plain(4, 1), plain(5, 8)])
  t.is(found?.accused, agent.principal)
  t.is(found?.evidence.length, 3, 'the delegation, and the two largest')
})

test('overbooking that was allowed is no fraud', (t) => {
  const generous = delegate(node, agent, { overbookPercent: 200 })
  const tickets = [1, 2].map((seq) =>
    issue(generous, agent, holder, { seq, resources: amounts(10), ports: [] })
  )
  t.is(overIssued(generous, tickets), undefined)
  t.truthy(overIssued(generous, [...tickets, issue(generous, agent, holder, { seq: 3, ports: [] })]))
})

test('tickets one after the other are not added', (t) => {
  const first = plain(1, 8, { notAfter: NOW + 1000 })
  const second = plain(2, 8, { notBefore: NOW + 1000 })
  t.is(overIssued(delegation, [first, second]), undefined)
  t.truthy(overIssued(delegation, [first, plain(3, 8, { notBefore: NOW + 999 })]))
})

test('the tickets of a line count once, however often it was renewed, but only for one holder and slice', (t) => {
  const first = plain(1, 6)
  const line = [2, 3].map((seq) => plain(seq, 6, { supersedes: first.id, notAfter: NOW + seq * HOUR }))
  t.is(overIssued(delegation, [first, ...line]), undefined)
  t.is(overIssued(delegation, line), undefined, 'any of them without the first')
  const toAnother = issue(delegation, agent, stranger, { ...line[0]!.body, holder: stranger.principal })
  t.truthy(overIssued(delegation, [first, toAnother]))
  t.truthy(overIssued(delegation, [first, plain(4, 6, { supersedes: first.id, slice: 'another' })]))
})

test('a ticket that reaches beyond its parent is fraud by itself', (t) => {
  const beyond: Partial<Ticket>[] = [
    { resources: amounts(11) },
    { notAfter: delegation.body.notAfter + 1 },
    { ports: port(30_000) },
    { rights: ['raw-socket'] }
  ]
  for (const changes of beyond) t.truthy(overIssued(delegation, [plain(1, 1, changes)]))
  const closed = plain(1, 1, { canDelegate: false })
  t.truthy(overIssued(closed, [issue(closed, holder, stranger, { ports: [] })]))
})

test('one port for two holders at one instant is fraud, and one after the other is not', (t) => {
  const first = plain(1, 1, { ports: port(20_000), notAfter: NOW + 1000 })
  t.truthy(overIssued(delegation, [first, plain(2, 1, { ports: port(20_000) })]))
  t.is(
    overIssued(delegation, [first, plain(2, 1, { ports: port(20_000), notBefore: NOW + 1000 })]),
    undefined
  )
  t.is(overIssued(delegation, [first, plain(2, 1, { ports: port(20_001) })]), undefined)
})

test('what counts is what the agent signed for this parent, and what the delegation counts besides', (t) => {
  const mine = plain(1, 6)
  const forged = issue(delegation, stranger, holder, { seq: 2, resources: amounts(6), ports: [] })
  const elsewhere = issue(delegate(node, agent, { seq: 2 }), agent, holder, { seq: 3, resources: amounts(6) })
  t.is(overIssued(delegation, [mine, forged, elsewhere]), undefined)
  const next = delegate(node, agent, { seq: 3, counts: [mine.id] })
  const under = issue(next, agent, holder, { seq: 4, resources: amounts(6), ports: [] })
  t.truthy(overIssued(next, [mine, under]))
  t.is(overIssued(next, [elsewhere, under]), undefined)
})

test('what a node counts together is not the fault of an agent that issued nothing more', (t) => {
  const tickets = [1, 2].map((seq) => plain(seq, 5))
  const smaller = delegate(node, agent, {
    seq: 2,
    resources: amounts(2),
    counts: tickets.map(({ id }) => id).sort()
  })
  t.is(overIssued(smaller, tickets), undefined)
  const more = issue(smaller, agent, holder, { seq: 3, ports: [] })
  t.truthy(overIssued(smaller, [...tickets, more]))
  const later = issue(smaller, agent, holder, {
    seq: 3,
    ports: [],
    notBefore: NOW + HOUR,
    notAfter: NOW + 2 * HOUR
  })
  t.is(overIssued(smaller, [...tickets, later]), undefined, 'nor what it issued for another time')
})

const asAny = {
  delegation: (object: Signed<Delegation>): AnyObject => ({ type: 'delegation', object }),
  ticket: (object: Signed<Ticket>): AnyObject => ({ type: 'ticket', object }),
  lease: (object: Signed<Lease>): AnyObject => ({ type: 'lease', object })
}

test('two objects of one sequence number are fraud; tickets are numbered for each node', (t) => {
  t.truthy(equivocation(asAny.ticket(plain(1, 1)), asAny.ticket(plain(1, 2))))
  t.is(equivocation(asAny.ticket(plain(1, 1)), asAny.ticket(plain(1, 1))), undefined, 'the same one')
  const elsewhere = issue(delegate(stranger, agent), agent, holder, { seq: 1, ports: [] })
  t.is(equivocation(asAny.ticket(plain(1, 1)), asAny.ticket(elsewhere)), undefined)
  t.truthy(equivocation(asAny.delegation(delegation), asAny.delegation(delegate(node, other))))
  t.is(equivocation(asAny.delegation(delegation), asAny.ticket(plain(1, 1))), undefined)
})

const advert = (percent: number, changes: Partial<NodeAdvertisement> = {}): Signed<NodeAdvertisement> =>
  advertise(node, percent, changes)

test('a node may delegate what it declares, and no more; a later delegation replaces the one before', (t) => {
  const both = [delegate(node, agent), delegate(node, other, { seq: 2, resources: amounts(5) })]
  t.is(overDelegated(advert(150), both), undefined)
  t.is(overDelegated(advert(149), both)?.accused, node.principal)
  t.is(overDelegated(advert(149), both.slice(1)), undefined)
  const again = delegate(node, other, { seq: 3, resources: amounts(4) })
  t.is(overDelegated(advert(150), [...both, again]), undefined)
  const newer = delegate(node, other, { seq: 3, resources: amounts(9), epoch: 2 })
  t.is(overDelegated(advert(150), [both[0]!, newer]), undefined, 'a later start may delegate more')
  t.truthy(overDelegated(advert(150, { epoch: 2 }), [both[0]!, newer]))
  const past = delegate(node, other, { seq: 4, notAfter: NOW - 1 })
  t.is(overDelegated(advert(100), [both[0]!, past]), undefined)
})

test('the percentage that a node declares covers just what it delegates', (t) => {
  t.is(delegatedPercent([amounts(10), amounts(5)], amounts(10)), 150)
  t.is(delegatedPercent([], amounts(10)), 0)
  t.is(delegatedPercent([{ ...amounts(0), pids: 1 }], amounts(10)), 1)
})

const lease = (seq: number, changes: Partial<Lease> = {}, by = node): Signed<Lease> =>
  leaseOf(by, holder, seq, changes)

test('one port for two virtual machines at one instant is fraud of the node, unless it was given up', (t) => {
  t.is(portLeasedTwice(lease(1), lease(2))?.accused, node.principal)
  t.is(portLeasedTwice(lease(1), lease(2, { ports: port(20_001) })), undefined)
  t.is(portLeasedTwice(lease(1), lease(2, {}, stranger)), undefined, 'of another node')
  t.is(portLeasedTwice(lease(1), lease(2, { vserver: 'mesh-1' })), undefined, 'a renewal')
  t.is(portLeasedTwice(lease(1), lease(2, { notBefore: NOW + HOUR, notAfter: NOW + 2 * HOUR })), undefined)
  const surrender = (by: SigningKey, vserver: string): Uint8Array => {
    const term = { notBefore: NOW, notAfter: NOW + HOUR }
    const body = {
      issuer: by.principal,
      ...term,
      seq: 1,
      node: node.principal,
      lease: delegation.id,
      vserver
    }
    return surrenderObject.sign(body, by).bytes
  }
  t.is(portLeasedTwice(lease(1), lease(2, { released: [surrender(holder, 'mesh-1')] })), undefined)
  t.truthy(portLeasedTwice(lease(1), lease(2, { released: [surrender(stranger, 'mesh-1')] })))
  t.truthy(portLeasedTwice(lease(1), lease(2, { released: [surrender(holder, 'mesh-3')] })))
  t.truthy(portLeasedTwice(lease(1), lease(2, { released: [surrender(holder, 'mesh-1').subarray(1)] })))
})

const FINDINGS: readonly (Finding | undefined)[] = [
  overIssued(delegation, [plain(1, 6), plain(2, 6)]),
  equivocation(asAny.ticket(plain(1, 1)), asAny.ticket(plain(1, 2))),
  overDelegated(advert(100), [delegation, delegate(node, other, { seq: 2 })]),
  portLeasedTwice(lease(1), lease(2))
]
for (const finding of FINDINGS) {
  test(`a proof of ${finding?.kind} holds with nothing but its bytes, and not with a part of them`, (t) => {
    if (finding === undefined) return t.fail('nothing was found')
    const bundle = bundleFinding(finding, stranger, { now: NOW, seq: 1 })
    const opened = openBundle(bundle.bytes)
    t.is(opened.finding.accused, finding.accused)
    t.is(opened.finding.message, finding.message)
    const [first, ...rest] = finding.evidence
    const less = { ...finding, evidence: [first!, ...rest.slice(1), rest[0]!].slice(0, -1) }
    const accusesOther = { ...finding, accused: holder.principal }
    for (const wrong of [accusesOther, ...(less.evidence.length >= 2 ? [less] : [])]) {
      const { bytes } = bundleFinding(wrong, stranger, { now: NOW, seq: 1 })
      t.throws(() => openBundle(bytes), { code: 'PROOF_INVALID' })
    }
    return t.throws(() => openBundle(bundle.bytes.subarray(1)), { code: 'ENCODING_INVALID' })
  })
}

test('the watch finds fraud whatever the order in which the pieces pass it', (t) => {
  const ticket = plain(1, 6)
  const next = delegate(node, agent, { seq: 7, counts: [ticket.id] })
  const under = issue(next, agent, holder, { seq: 9, resources: amounts(6), ports: [] })
  const pieces = [asAny.ticket(ticket), asAny.delegation(next), asAny.ticket(under)]
  for (const order of [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0]
  ]) {
    const watch = new FraudWatch()
    const found = order.map((index) => watch.observe(pieces[index]!).length)
    t.deepEqual(found, [0, 0, 1], order.join())
    t.is(watch.observe(asAny.ticket(under)).length, 1, 'and says so again')
  }
})

test('the watch finds the other kinds, and forgets the oldest when it is full', (t) => {
  const watch = new FraudWatch({ objectsMax: 3 })
  t.is(watch.observe(asAny.lease(lease(1))).length, 0)
  t.is(watch.observe(asAny.lease(lease(2))).length, 1)
  const declared: AnyObject = { type: 'advertisement', object: advert(100) }
  t.is(watch.observe(declared).length, 0)
  t.is(watch.observe(asAny.delegation(delegation)).length, 0)
  t.is(watch.observe(asAny.delegation(delegate(node, other, { seq: 2 })))[0]?.kind, 'over-delegated')
  t.is(watch.observe(asAny.lease(lease(3))).length, 0, 'the leases are forgotten')
})
