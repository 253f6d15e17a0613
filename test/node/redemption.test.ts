import test from 'ava'
import { SteadyClock } from '../../src/node/steady-clock.ts'
import { portLeasedTwice } from '../../src/ticket/fraud.ts'
import { leaseObject } from '../../src/ticket/lease.ts'
import type { Redeem } from '../../src/ticket/redeem.ts'
import { ticketObject, type Ticket } from '../../src/ticket/ticket.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { settle } from '../base/manual-clock.ts'
import { HOUR, NOW, amounts, delegate, demand, issue, makeKey } from '../ticket/fixtures.ts'
import {
  codeOf,
  deleteLease,
  demandOf,
  leaseOf,
  nodeLab,
  redeem,
  type NodeLab,
  type Presented
} from './node-lab.ts'

const agent = makeKey()
const reseller = makeKey()
const holder = makeKey()
const stranger = makeKey()

/** A ticket of the agent's for the holder, each part changed as asked. */
function present(
  lab: NodeLab,
  changes: {
    ticket?: Partial<Ticket>
    redeem?: Partial<Redeem>
    delegation?: Parameters<typeof delegate>[2]
  } = {}
): Presented {
  const delegation = delegate(lab.key, agent, changes.delegation)
  const tickets = [issue(delegation, agent, holder, changes.ticket)]
  return { delegation, tickets, holder, changes: changes.redeem ?? {} }
}

const port = (first: number) => [{ protocol: 'tcp' as const, first, last: first }]

test('a good ticket becomes a lease of what it says, and a virtual machine runs', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab, { redeem: { keys: ['ssh-ed25519 AAAA me'] } })
  const { body } = leaseOf(await redeem(lab, presented))
  const [ticket] = presented.tickets
  t.like(body, {
    issuer: lab.key.principal,
    holder: holder.principal,
    ticket: ticket?.id,
    slice: 'mesh',
    resources: amounts(1),
    ports: port(20_000),
    notBefore: NOW,
    notAfter: ticket?.body.notAfter
  })
  t.deepEqual(await lab.enforcer.running(), [body.vserver])
  t.deepEqual(lab.enforcer.keysOf(body.vserver), ['ssh-ed25519 AAAA me'])
  t.is(lab.manager.free().memoryBytes, amounts(9).memoryBytes)
})

test('what a ticket says of the network is in its lease, and kept to by its virtual machine', async (t) => {
  const lab = await nodeLab()
  const shaping = { icmpBps: 32_000, destinationsPerMinute: 30, egressShare: 2 }
  const delegation = { shaping: { icmpBps: 64_000, egressShare: 4 } }
  const { body } = leaseOf(await redeem(lab, present(lab, { delegation, ticket: { shaping } })))
  t.deepEqual(body.shaping, shaping)
  t.deepEqual(lab.enforcer.created.at(-1)?.shaping, shaping)
})

type Case = readonly [make: (lab: NodeLab) => Presented, code: string]
const refused: Readonly<Record<string, Case>> = {
  'for another node': [
    (lab) => present(lab, { ticket: { node: stranger.principal }, redeem: { node: lab.key.principal } }),
    'TICKET_WRONG_NODE'
  ],
  'whose demand is for another node': [
    (lab) => present(lab, { redeem: { node: stranger.principal } }),
    'TICKET_WRONG_NODE'
  ],
  'whose hold is over': [(lab) => present(lab, { ticket: { redeemBefore: NOW } }), 'TICKET_EXPIRED'],
  'whose term is over': [(lab) => present(lab, { ticket: { notAfter: NOW } }), 'TICKET_EXPIRED'],
  'whose term has not begun': [
    (lab) => present(lab, { ticket: { notBefore: NOW + 1 } }),
    'TICKET_NOT_YET_VALID'
  ],
  'whose demand is over': [(lab) => present(lab, { redeem: { notAfter: NOW } }), 'TICKET_EXPIRED'],
  'whose delegation is over': [
    (lab) =>
      present(lab, { delegation: { notAfter: NOW }, ticket: { notAfter: NOW, redeemBefore: NOW + 1 } }),
    'TICKET_EXPIRED'
  ],
  'held by another': [
    (lab) => present(lab, { ticket: { holder: stranger.principal } }),
    'TICKET_WRONG_HOLDER'
  ],
  'of a delegation that another node signed': [
    (lab) => {
      const delegation = delegate(stranger, agent)
      return { delegation, tickets: [issue(delegation, agent, holder, { node: lab.key.principal })], holder }
    },
    'CHAIN_INVALID'
  ],
  'issued by someone who does not hold the delegation': [
    (lab) => {
      const delegation = delegate(lab.key, agent)
      return { delegation, tickets: [issue(delegation, stranger, holder)], holder }
    },
    'CHAIN_INVALID'
  ],
  'with more than its delegation': [
    (lab) => present(lab, { ticket: { resources: amounts(11) } }),
    'TICKET_EXCEEDS_PARENT'
  ],
  'with a port that its delegation lacks': [
    (lab) => present(lab, { ticket: { ports: port(80) } }),
    'TICKET_EXCEEDS_PARENT'
  ],
  'with a right that its delegation lacks': [
    (lab) => present(lab, { ticket: { rights: ['raw-socket'] } }),
    'TICKET_EXCEEDS_PARENT'
  ],
  'with a bound that its delegation has and it has not': [
    (lab) => present(lab, { delegation: { shaping: { icmpBps: 64_000 } } }),
    'TICKET_EXCEEDS_PARENT'
  ],
  'with a larger share than its delegation': [
    (lab) => present(lab, { ticket: { shaping: { egressShare: 2 } } }),
    'TICKET_EXCEEDS_PARENT'
  ],
  'deeper than its delegation allows': [
    (lab) => {
      const delegation = delegate(lab.key, agent, { maxDepth: 2 })
      const first = issue(delegation, agent, reseller)
      const second = issue(first, reseller, reseller)
      return { delegation, tickets: [first, second, issue(second, reseller, holder)], holder }
    },
    'CHAIN_INVALID'
  ],
  'other than the one that the demand names': [
    (lab) => {
      const presented = present(lab)
      return { ...presented, changes: { ticket: present(lab, { ticket: { seq: 9 } }).tickets[0]?.id ?? '' } }
    },
    'CHAIN_INVALID'
  ]
}
for (const [name, [make, code]] of Object.entries(refused)) {
  test(`a ticket ${name} is refused as ${code}, signed, and nothing is made`, async (t) => {
    const lab = await nodeLab()
    const presented = make(lab)
    const outcome = await redeem(lab, presented)
    t.is(codeOf(outcome), code)
    if ('refusal' in outcome) t.is(outcome.refusal.body.issuer, lab.key.principal)
    t.is(lab.enforcer.created.length, 0)
    t.is(lab.manager.table.all().length, 0)
    t.is(codeOf(await redeem(lab, present(lab, { ticket: { seq: 77 } }))), 'leased', 'a good one is not')
  })
}

test('a demand that another principal signed is refused, even with the holder’s ticket in hand', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  const stolen = demandOf(presented)
  t.is(codeOf(await redeem(lab, { ...presented, holder: stranger }, stolen)), 'TICKET_WRONG_HOLDER')
  t.is(codeOf(await redeem(lab, presented, stolen)), 'leased')
})

test('a chain with a forged signature or more links than any chain has is not even read', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  const [ticket] = presented.tickets
  if (ticket === undefined) return t.fail()
  const bytes = ticket.bytes.slice()
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
  await t.throwsAsync(redeem(lab, { ...presented, tickets: [{ ...ticket, bytes }] }), {
    code: 'SIGNATURE_INVALID'
  })
  await t.throwsAsync(redeem(lab, { ...presented, tickets: Array.from({ length: 9 }, () => ticket) }), {
    code: 'PROTOCOL_ERROR'
  })
  return t.is(lab.enforcer.created.length, 0)
})

test('the same demand again gets the same lease, another nonce does not', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  const first = leaseOf(await redeem(lab, presented))
  t.is(leaseOf(await redeem(lab, presented)).id, first.id)
  const other = { ...presented, changes: { nonce: new Uint8Array(16).fill(7) } }
  t.is(codeOf(await redeem(lab, other)), 'TICKET_REDEEMED')
  const again = await lab.restart()
  t.is(leaseOf(await redeem(again, presented)).id, first.id, 'after a restart too')
  t.is(codeOf(await redeem(again, other)), 'TICKET_REDEEMED')
  t.is(lab.enforcer.created.length, 1)
})

test('a hundred retries at a time make one virtual machine and get one lease', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  const bytes = demandOf(presented)
  const outcomes = await Promise.all(Array.from({ length: 100 }, () => redeem(lab, presented, bytes)))
  t.is(new Set(outcomes.map((outcome) => leaseOf(outcome).id)).size, 1)
  t.is(lab.enforcer.created.length, 1)
})

test('of many demands with different nonces at a time one gets a lease', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  const outcomes = await Promise.all(
    Array.from({ length: 10 }, (_one, index) =>
      redeem(lab, { ...presented, changes: { nonce: new Uint8Array(16).fill(index) } })
    )
  )
  t.is(outcomes.filter((outcome) => codeOf(outcome) === 'leased').length, 1)
  t.is(outcomes.filter((outcome) => codeOf(outcome) === 'TICKET_REDEEMED').length, 9)
})

test('what does not fit beside the leases is refused as OVERBOOKED, and fits when one of them ends', async (t) => {
  const lab = await nodeLab()
  const big = { resources: amounts(6), ports: [] }
  const overbooked = { overbookPercent: 200 }
  const first = leaseOf(await redeem(lab, present(lab, { ticket: big, delegation: overbooked })))
  const second = present(lab, { ticket: { ...big, seq: 2 }, delegation: overbooked })
  t.is(codeOf(await redeem(lab, second)), 'OVERBOOKED')
  await deleteLease(lab, first, holder)
  t.is(codeOf(await redeem(lab, second)), 'leased')
})

test('demands at the same time never get more than there is', async (t) => {
  const lab = await nodeLab()
  const outcomes = await Promise.all(
    Array.from({ length: 8 }, (_one, seq) =>
      redeem(
        lab,
        present(lab, {
          ticket: { seq, resources: amounts(3), ports: [] },
          delegation: { overbookPercent: 900 }
        })
      )
    )
  )
  t.is(outcomes.filter((outcome) => codeOf(outcome) === 'leased').length, 3)
  t.is(lab.leased().memoryBytes, amounts(9).memoryBytes)
})

test('a port that is leased is refused as PORT_TAKEN', async (t) => {
  const lab = await nodeLab()
  leaseOf(await redeem(lab, present(lab)))
  const delegation = delegate(lab.key, stranger)
  const same = { delegation, tickets: [issue(delegation, stranger, holder)], holder }
  t.is(codeOf(await redeem(lab, same)), 'PORT_TAKEN', 'by two agents of one node: its own mistake')
  t.is(codeOf(await redeem(lab, present(lab, { ticket: { seq: 3, ports: port(20_001) } }))), 'leased')
  t.is(codeOf(await redeem(lab, present(lab, { ticket: { seq: 4 } }))), 'ISSUER_CHEATED', 'by one agent')
})

test('a port is leased again when its holder gave it up, and the next lease shows that it did', async (t) => {
  const lab = await nodeLab()
  const first = leaseOf(await redeem(lab, present(lab)))
  await deleteLease(lab, first, holder)
  const delegation = delegate(lab.key, stranger)
  const next = leaseOf(
    await redeem(lab, { delegation, tickets: [issue(delegation, stranger, holder)], holder })
  )
  t.is(next.body.released?.length, 1)
  t.is(portLeasedTwice(first, next), undefined)
  const { released: _kept, ...silent } = next.body
  t.is(portLeasedTwice(first, leaseObject.sign(silent, lab.key))?.accused, lab.key.principal)
})

test('the port of a lease that the node itself ended stays taken until its term is over', async (t) => {
  const lab = await nodeLab()
  leaseOf(await redeem(lab, present(lab)))
  const [record] = lab.manager.table.holding()
  if (record === undefined) return t.fail()
  await lab.manager.end(record, 'the node is given up')
  const delegation = delegate(lab.key, stranger)
  const next = { delegation, tickets: [issue(delegation, stranger, holder)], holder }
  t.is(codeOf(await redeem(lab, next)), 'PORT_TAKEN')
  return t.is(codeOf(await redeem(await lab.restart(), next)), 'PORT_TAKEN')
})

test('tickets cut from one ticket get no more together than it has', async (t) => {
  const lab = await nodeLab()
  const delegation = delegate(lab.key, agent)
  const middle = issue(delegation, agent, reseller, { resources: amounts(3), ports: [] })
  const child = (seq: number, factor: number): Signed<Ticket> =>
    issue(middle, reseller, holder, { seq, resources: amounts(factor), ports: [] })
  const cut = (ticket: Signed<Ticket>): Presented => ({ delegation, tickets: [middle, ticket], holder })
  const first = leaseOf(await redeem(lab, cut(child(1, 2))))
  const second = cut(child(2, 2))
  t.is(codeOf(await redeem(lab, second)), 'ISSUER_CHEATED')
  t.is(
    codeOf(await redeem(lab, { delegation, tickets: [middle], holder: reseller })),
    'ISSUER_CHEATED',
    'nor with it'
  )
  t.is(codeOf(await redeem(lab, cut(child(3, 1)))), 'leased', 'but as much as it has')
  await deleteLease(lab, first, holder)
  t.is(codeOf(await redeem(await lab.restart(), second)), 'leased')
})

test('the tickets of a line yield no more together than one of them, however many are cut from', async (t) => {
  const lab = await nodeLab()
  const delegation = delegate(lab.key, agent)
  const middle = issue(delegation, agent, reseller, { resources: amounts(3), ports: [] })
  const [child, own] = [
    { resources: amounts(2), ports: [] },
    { resources: amounts(3), ports: [] }
  ]
  const later = issue(delegation, agent, reseller, { ...own, seq: 2, supersedes: middle.id })
  const chain = (parent: Signed<Ticket>, seq: number, changes: Partial<Ticket> = child): Presented => {
    return { delegation, tickets: [parent, issue(parent, reseller, holder, { ...changes, seq })], holder }
  }
  t.is(codeOf(await redeem(lab, chain(middle, 3))), 'leased')
  t.is(codeOf(await redeem(lab, chain(later, 4))), 'TICKET_EXCEEDS_PARENT')
  const itself = { delegation, tickets: [later], holder: reseller }
  t.is(codeOf(await redeem(lab, itself)), 'TICKET_EXCEEDS_PARENT', 'nor with it')
  const again = await lab.restart()
  t.is(codeOf(await redeem(again, chain(later, 5))), 'TICKET_EXCEEDS_PARENT', 'after a restart too')
  t.is(codeOf(await redeem(again, chain(later, 6, { resources: amounts(1), ports: [] }))), 'leased')
  const other = issue(delegation, agent, reseller, { ...own, seq: 7 })
  t.is(codeOf(await redeem(again, chain(other, 8))), 'leased', 'another line has its own')
})

test('nothing is cut from a ticket that was redeemed itself', async (t) => {
  const lab = await nodeLab()
  const delegation = delegate(lab.key, agent)
  const middle = issue(delegation, agent, reseller, { ports: [] })
  const own = leaseOf(await redeem(lab, { delegation, tickets: [middle], holder: reseller }))
  await deleteLease(lab, own, reseller)
  const child = { delegation, tickets: [middle, issue(middle, reseller, holder, { ports: [] })], holder }
  t.is(codeOf(await redeem(lab, child)), 'TICKET_REDEEMED')
})

test('an agent that issues twice gets leases for what it may issue, and another agent is not robbed', async (t) => {
  const lab = await nodeLab()
  const half = { resources: amounts(5) }
  const greedy = (seq: number): Presented =>
    present(lab, { delegation: half, ticket: { seq, resources: amounts(3), ports: [] } })
  t.is(codeOf(await redeem(lab, greedy(1))), 'leased')
  const second = await redeem(lab, greedy(2))
  t.is(codeOf(second), 'ISSUER_CHEATED')
  if ('refusal' in second) t.is(second.refusal.body.evidence.length, 3)
  const delegation = delegate(lab.key, stranger, half)
  const fair = {
    delegation,
    tickets: [issue(delegation, stranger, holder, { resources: amounts(5), ports: [] })],
    holder
  }
  t.is(codeOf(await redeem(lab, fair)), 'leased')
  const again = await lab.restart()
  t.is(codeOf(await redeem(again, greedy(3))), 'ISSUER_CHEATED', 'what was presented is remembered')
})

test('a ticket whose vserver would have the name of another lease’s is refused and the other runs on', async (t) => {
  const lab = await nodeLab()
  const lease = leaseOf(await redeem(lab, present(lab)))
  const record = lab.manager.table.ofLease(lease.id)
  if (record === undefined) return t.fail()
  // Names end in 35 bits of the ticket's id: found by trying in hours, here by renaming the one that is there.
  const next = present(lab, { ticket: { seq: 2, ports: [] } })
  const name = `mesh-${next.tickets[0]?.id.slice(-7)}`
  const renamed = { ...lease, body: { ...lease.body, vserver: name } }
  await lab.manager.table.put({ ...record, lease: renamed }, new SteadyClock(lab.clock, 0))
  t.is(codeOf(await redeem(lab, next)), 'VSERVER_FAILED')
  return t.deepEqual(lab.enforcer.destroyed, [])
})

test('when the virtual machine cannot be made nothing is left and the ticket is good again', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  lab.enforcer.createsToFail = 1
  t.is(codeOf(await redeem(lab, presented)), 'VSERVER_FAILED')
  t.deepEqual(await lab.enforcer.running(), [])
  t.is(lab.manager.table.all().length, 0)
  t.deepEqual(lab.manager.free(), amounts(10))
  t.is(codeOf(await redeem(lab, presented)), 'leased')
})

test('what could not be taken back holds its resources until it is gone, and then the ticket is good again', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab, { ticket: { resources: amounts(6) }, delegation: { overbookPercent: 200 } })
  const other = present(lab, {
    ticket: { seq: 2, resources: amounts(6), ports: [] },
    delegation: { overbookPercent: 200 }
  })
  lab.enforcer.createsToFail = 1
  lab.enforcer.destroysToFail = 2
  await t.throwsAsync(redeem(lab, presented), { code: 'BUSY' })
  await t.throwsAsync(redeem(lab, presented), { code: 'BUSY' }, 'asked again')
  t.is(codeOf(await redeem(lab, other)), 'OVERBOOKED')
  await lab.clock.advance(1500)
  t.is(lab.leased().memoryBytes, 0)
  t.is(codeOf(await redeem(lab, presented)), 'leased')
})

test('while one virtual machine is being made another ticket is redeemed', async (t) => {
  const lab = await nodeLab()
  const { promise, resolve } = Promise.withResolvers<void>()
  lab.enforcer.createGate = promise
  const slow = redeem(lab, present(lab))
  await settle()
  lab.enforcer.createGate = undefined
  t.is(codeOf(await redeem(lab, present(lab, { ticket: { seq: 2, ports: [] } }))), 'leased')
  resolve()
  t.is(codeOf(await slow), 'leased')
})

test('the end of a term is the ticket’s, whatever the demand says', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  const bytes = demand(presented.tickets[0] as Signed<Ticket>, holder, { notAfter: NOW + 100 * HOUR }).bytes
  t.is(leaseOf(await redeem(lab, presented, bytes)).body.notAfter, NOW + HOUR)
})

test('an object of another type is not taken for a ticket', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  const delegation = presented.delegation as unknown as Signed<Ticket>
  await t.throwsAsync(redeem(lab, { ...presented, tickets: [delegation] }, demandOf(presented)), {
    code: 'ENCODING_INVALID'
  })
  t.throws(() => ticketObject.open(presented.delegation.bytes))
})

test('a ticket for more than its parent is proof against its issuer, though nothing is leased for it', async (t) => {
  const lab = await nodeLab()
  const wide = present(lab, { ticket: { resources: amounts(11), ports: [] } })
  t.is(codeOf(await redeem(lab, wide)), 'TICKET_EXCEEDS_PARENT')
  t.deepEqual(
    lab.findings.map(({ kind, accused }) => [kind, accused]),
    [['over-issued', agent.principal]]
  )
  const forged = { ...wide.tickets[0]!, bytes: wide.tickets[0]!.bytes.slice() }
  forged.bytes[forged.bytes.length - 1]! ^= 1
  const other = await nodeLab({ key: lab.key })
  await t.throwsAsync(redeem(other, { ...wide, tickets: [forged] }), { code: 'SIGNATURE_INVALID' })
  t.deepEqual(other.findings, [], 'what nobody signed proves nothing')
})

test('what strangers have barred takes a bounded room, and agents are not kept out by it', async (t) => {
  const lab = await nodeLab({
    delegations: { fault: () => undefined, isAgent: (who) => who === agent.principal, freed: () => {} }
  })
  const far = { redeemBefore: 8_000_000_000_000_000, notAfter: 8_000_000_000_000_000 }
  const foreign = (seq: number): Signed<Ticket> =>
    issue(delegate(lab.key, stranger), stranger, stranger, { ...far, seq, ports: [] })
  const cancel = (tickets: readonly Signed<Ticket>[], by = stranger): Promise<unknown> =>
    lab.as(by.principal)('settleTickets', { tickets: tickets.map(({ bytes }) => bytes), cancel: true })
  for (let seq = 0; seq < 4096; seq += 32) {
    await cancel(Array.from({ length: 32 }, (_one, at) => foreign(seq + at)))
  }
  await t.throwsAsync(cancel([foreign(5000)]), { code: 'QUOTA_EXCEEDED' })
  const own = present(lab)
  await cancel(own.tickets, agent)
  t.is(codeOf(await redeem(lab, own)), 'TICKET_EXPIRED', 'cancelled as ever')
  const elsewhere = issue(delegate(stranger, stranger), stranger, stranger, { ports: [] })
  await t.throwsAsync(cancel([elsewhere]), { code: 'TICKET_WRONG_NODE' })
})
