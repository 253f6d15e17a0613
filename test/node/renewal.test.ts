import test from 'ava'
import type { Lease } from '../../src/ticket/lease.ts'
import type { Redeem } from '../../src/ticket/redeem.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { HOUR, NOW, amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import {
  codeOf,
  deleteLease,
  demandOf,
  leaseOf,
  nodeLab,
  redeem,
  renew,
  settleOne,
  type NodeLab,
  type Presented
} from './node-lab.ts'

const agent = makeKey()
const holder = makeKey()
const stranger = makeKey()
const PORT = [{ protocol: 'tcp' as const, first: 20_000, last: 20_000 }]

interface Held {
  readonly lab: NodeLab
  readonly presented: Presented
  readonly ticket: Signed<Ticket>
  readonly lease: Signed<Lease>
}

/** A lab with one lease of an hour. */
async function held(ticket: Partial<Ticket> = {}, from: Parameters<typeof nodeLab>[0] = {}): Promise<Held> {
  const lab = await nodeLab(from)
  const delegation = delegate(lab.key, agent)
  const first = issue(delegation, agent, holder, ticket)
  const presented = { delegation, tickets: [first], holder }
  return { lab, presented, ticket: first, lease: leaseOf(await redeem(lab, presented)) }
}

/** What renews a lease for another hour; parts may be replaced. */
function next(
  { presented, ticket, lease }: Held,
  changes: Partial<Ticket> = {},
  demand: Partial<Redeem> = {}
): Presented {
  const supersedes = ticket.body.supersedes ?? ticket.id
  const body = { seq: 2, notAfter: NOW + 2 * HOUR, supersedes, ...changes }
  const renewing = issue(presented.delegation, agent, holder, body)
  const nonce = new Uint8Array(16).fill(2)
  return { ...presented, tickets: [renewing], changes: { renews: lease.id, nonce, ...demand } }
}

test('a lease names the node’s address as it is when it is signed', async (t) => {
  let address = '198.18.0.1'
  const had = await held({}, { address: () => address })
  t.is(had.lease.body.address, '198.18.0.1')
  address = '198.18.0.6'
  const again = leaseOf(await redeem(had.lab, had.presented))
  t.is(again.id, had.lease.id, 'the same demand gets the same lease')
  t.is(leaseOf(await renew(had.lab, next(had))).body.address, '198.18.0.6')
})

test('a renewed lease lasts longer, names the one before, and has its virtual machine and its keys', async (t) => {
  const had = await held()
  const { lab, lease } = had
  await lab.as(holder.principal)('addKey', { lease: lease.id, key: 'ssh-ed25519 AAAA me' })
  const renewed = leaseOf(await renew(lab, next(had)))
  t.is(renewed.body.prev, lease.id)
  t.is(renewed.body.notAfter, NOW + 2 * HOUR)
  t.is(renewed.body.vserver, lease.body.vserver)
  t.like(await lab.as(holder.principal)('status', { lease: lease.id }), { notAfter: NOW + 2 * HOUR })
  t.is(lab.enforcer.created.length, 1, 'no other machine was made')
  t.deepEqual(await lab.as(holder.principal)('getKeys', { lease: renewed.id }), {
    keys: ['ssh-ed25519 AAAA me']
  })
  await lab.clock.advance(HOUR + 1000)
  t.like(await lab.as(holder.principal)('status', { lease: renewed.id }), {
    state: 'created',
    notAfter: NOW + 2 * HOUR
  })
  t.deepEqual(lab.leased(), amounts(1), 'it counts once')
  await lab.clock.advance(HOUR)
  t.deepEqual(await lab.enforcer.running(), [])
})

test('the same demand for a renewal gets the same lease, whatever happened between', async (t) => {
  const had = await held()
  const renewing = next(had)
  const demand = demandOf(renewing)
  const [one, other] = await Promise.all([1, 2].map(() => renew(had.lab, renewing, demand)))
  t.is(leaseOf(one!).id, leaseOf(other!).id)
  const again = await had.lab.restart()
  t.is(leaseOf(await renew(again, renewing, demand)).id, leaseOf(one!).id)
  const second = { ...renewing, changes: { ...renewing.changes, nonce: new Uint8Array(16).fill(3) } }
  t.is(codeOf(await renew(again, second)), 'TICKET_REDEEMED')
})

test('a lease is renewed again and again, by any of its names', async (t) => {
  const had = await held()
  const { lab, ticket } = had
  leaseOf(await renew(lab, next(had)))
  const third = next(had, { seq: 3, notAfter: NOW + 3 * HOUR }, { nonce: new Uint8Array(16).fill(3) })
  const lease = leaseOf(await renew(lab, third))
  t.is(lease.body.notAfter, NOW + 3 * HOUR)
  t.is(lab.manager.table.ofLine(lab.manager.table.ofTicket(ticket.id)?.line ?? '').length, 3)
  const again = await lab.restart()
  t.is(again.manager.table.current(had.lease.id)?.lease.id, lease.id, 'in this order after a restart too')
  await deleteLease(again, had.lease, holder)
  t.deepEqual(await lab.enforcer.running(), [])
})

test('who never heard that a lease was renewed gives it up by its first name, after its first term too', async (t) => {
  const had = await held()
  const { lab } = had
  leaseOf(await renew(lab, next(had)))
  await lab.clock.advance(HOUR + 300_000)
  t.is(lab.manager.table.holding().length, 1)
  await deleteLease(lab, had.lease, holder)
  t.deepEqual(await lab.enforcer.running(), [])
  await lab.clock.advance(HOUR)
  t.is(lab.manager.table.all().length, 0, 'and nothing is remembered for ever')
})

for (const [name, code, changes, demand] of [
  ['an end that is not later', 'LEASE_NOT_EXTENDED', { notAfter: NOW + HOUR }, {}],
  ['other amounts', 'CHAIN_INVALID', { resources: amounts(2) }, {}],
  ['another bound', 'CHAIN_INVALID', { shaping: { icmpBps: 64_000 } }, {}],
  ['fewer ports', 'CHAIN_INVALID', { ports: [] }, {}],
  ['another image', 'CHAIN_INVALID', {}, { image: `sha256:${'cd'.repeat(32)}` }],
  ['a ticket of another line', 'CHAIN_INVALID', { supersedes: undefined }, {}],
  ['a slice of another name', 'CHAIN_INVALID', { slice: 'other' }, {}],
  ['a lease that is not there', 'LEASE_NOT_HELD', {}, { renews: `bafyrei${'a'.repeat(52)}` }]
] as const) {
  test(`a renewal with ${name} is refused as ${code}, and the old term stays`, async (t) => {
    const had = await held({ ports: PORT })
    const { supersedes, ...others } = { supersedes: had.ticket.id, ...changes }
    const body = supersedes === undefined ? others : { ...others, supersedes }
    const presented = next(had, body, demand)
    const [ticket] = presented.tickets
    const refused = { ...presented, tickets: ticket === undefined ? [] : [ticket] }
    t.is(codeOf(await renew(had.lab, supersedes === undefined ? withoutLine(had) : refused)), code)
    t.like(await had.lab.as(holder.principal)('status', { lease: had.lease.id }), { notAfter: NOW + HOUR })
  })
}

/** A ticket that begins a line of its own. */
function withoutLine(had: Held): Presented {
  const { supersedes: _own, ...body } = next(had).tickets[0]!.body
  const ticket = issue(had.presented.delegation, agent, holder, body)
  return { ...next(had), tickets: [ticket] }
}

test("nobody renews another's lease, nor one that has ended", async (t) => {
  const had = await held()
  const { lab, presented, ticket, lease } = had
  const body = { seq: 2, notAfter: NOW + 2 * HOUR, supersedes: ticket.id }
  const stolen = issue(presented.delegation, agent, stranger, body)
  const changes = { renews: lease.id }
  const asStranger = { ...presented, tickets: [stolen], holder: stranger, changes }
  t.is(codeOf(await renew(lab, asStranger)), 'LEASE_NOT_HELD')
  await deleteLease(lab, lease, holder)
  t.is(codeOf(await renew(lab, next(had))), 'LEASE_EXPIRED')
})

test('a ticket of a line is good for a renewal only, once a lease of that line was made', async (t) => {
  const had = await held()
  const renewing = next(had)
  const { renews: _none, ...changes } = renewing.changes ?? {}
  t.is(codeOf(await redeem(had.lab, { ...renewing, changes })), 'TICKET_REDEEMED')
  t.is(codeOf(await redeem(had.lab, renewing)), 'CHAIN_INVALID', 'a demand for a renewal is no redemption')
  t.is(codeOf(await renew(had.lab, renewing)), 'leased')
})

for (const fault of ['die-before', 'die-after', 'fail'] as const) {
  test(`a renewal whose commit ends in ${fault} leaves the old term or makes the new one, and a retry succeeds`, async (t) => {
    const had = await held()
    const renewing = next(had)
    const demand = demandOf(renewing)
    had.lab.store.plan(1, fault)
    await t.throwsAsync(renew(had.lab, renewing, demand))
    const again = await had.lab.restart()
    const record = again.manager.table.current(had.lease.id)
    t.is(record?.state, 'active')
    t.is(record?.lease.body.notAfter, NOW + (fault === 'die-after' ? 2 : 1) * HOUR)
    t.is(leaseOf(await renew(again, renewing, demand)).body.prev, had.lease.id)
    t.is((await had.lab.enforcer.running()).length, 1)
  })
}

test('a renewal finds no room where others have taken it for the new term, and the old term stays', async (t) => {
  const had = await held({ resources: amounts(6) })
  const other = delegate(had.lab.key, stranger)
  const later = issue(other, stranger, stranger, {
    resources: amounts(4),
    ports: [],
    notAfter: NOW + 3 * HOUR
  })
  leaseOf(await redeem(had.lab, { delegation: other, tickets: [later], holder: stranger }))
  const grown = next(had, { resources: amounts(6) })
  t.is(codeOf(await renew(had.lab, grown)), 'leased', 'its own amounts are not in its way')
})

test('what was renewed counts as ended, what renews it as redeemed', async (t) => {
  const had = await held()
  const renewing = next(had)
  await renew(had.lab, renewing)
  t.is(await settleOne(had.lab, agent, had.ticket), 'ended')
  t.is(await settleOne(had.lab, agent, renewing.tickets[0]!), 'redeemed')
})
