/** What a broker makes of what tickets came to, and how it renews. */
import test from 'ava'
import type { Holding } from '../../src/broker/grant.ts'
import { Observations } from '../../src/broker/observations.ts'
import { leaseObject } from '../../src/ticket/lease.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { refusalObject } from '../../src/ticket/refusal.ts'
import { HOUR, IMAGE, NOW, demand } from '../ticket/fixtures.ts'
import { lab, replace, type Lab } from './broker-lab.ts'

function keyOf(one: Lab, principal: string): SigningKey {
  const key = one.nodes.find((node) => node.principal === principal)
  if (key === undefined) throw new TypeError('no such node')
  return key
}

function refused(one: Lab, { ticket, agent, node }: Holding): Parameters<Lab['broker']['observe']>[0] {
  const redeem = demand(ticket, one.holder)
  const key = keyOf(one, node)
  const body = { issuer: node, notBefore: NOW, notAfter: NOW + HOUR, seq: 1, message: '', evidence: [] }
  const refusal = refusalObject.sign({ ...body, code: 'OVERBOOKED', request: redeem.id }, key)
  return { agent, ticket, redeem: redeem.bytes, refusal: refusal.bytes }
}

function leased(one: Lab, { ticket, agent, node }: Holding): Parameters<Lab['broker']['observe']>[0] {
  const redeem = demand(ticket, one.holder)
  const { resources, ports, rights, notBefore, notAfter, holder, slice = '' } = ticket.body
  const lease = leaseObject.sign(
    {
      issuer: node,
      notBefore,
      notAfter,
      seq: 1,
      ticket: ticket.id,
      holder,
      slice,
      image: IMAGE,
      resources,
      ports,
      rights,
      address: '192.0.2.1',
      vserver: 'v1',
      epoch: 1
    },
    keyOf(one, node)
  )
  return { agent, ticket, redeem: redeem.bytes, lease: lease.bytes }
}

async function first(one: Lab): Promise<Holding> {
  const [holding] = await one.broker.getTickets(one.search(1))
  if (holding === undefined) throw new TypeError('no ticket')
  return holding
}

test('a node that broke a ticket comes after the others, and by what it keeps it comes back', async (t) => {
  const one = await lab(2, 1)
  const holding = await first(one)
  for (let times = 0; times < 6; times++) one.broker.observe(refused(one, holding))
  t.not((await first(one)).node, holding.node)
  for (let times = 0; times < 40; times++) one.broker.observe(leased(one, holding))
  t.is((await first(one)).node, holding.node)
})

test('how far a node can be relied on is told of those that something is known of', async (t) => {
  const one = await lab(2, 1)
  const holding = await first(one)
  t.is(one.broker.reliabilityOf(holding.node), undefined)
  one.broker.observe(leased(one, holding))
  const kept = one.broker.reliabilityOf(holding.node) ?? 0
  t.true(kept > 500 && kept < 1000, `${kept}`)
  for (let times = 0; times < 3; times++) one.broker.observe(refused(one, holding))
  t.true((one.broker.reliabilityOf(holding.node) ?? 0) < 500)
  one.proven.add(holding.node)
  t.is(one.broker.reliabilityOf(holding.node), 0)
})

test('a node that gave no answer counts as one that broke the ticket', async (t) => {
  const one = await lab(2, 1)
  const holding = await first(one)
  const redeem = demand(holding.ticket, one.holder).bytes
  for (let times = 0; times < 6; times++) one.broker.observe({ ...holding, redeem })
  t.not((await first(one)).node, holding.node)
})

test('who was shown to cheat is neither asked nor chosen', async (t) => {
  const one = await lab(2, 2)
  const holding = await first(one)
  one.proven.add(holding.node).add(holding.agent)
  const holdings = await one.broker.getTickets(one.search(2))
  t.is(holdings.length, 1)
  t.not(holdings[0]?.node, holding.node)
  t.not(holdings[0]?.agent, holding.agent)
})

test('agents are shown what their tickets came to, in several messages, and one that is silent is passed over', async (t) => {
  const one = await lab(2, 1)
  const holding = await first(one)
  const reports: number[] = []
  replace(one, 0, {
    report: async ({ receipts }) => {
      reports.push(receipts.length)
      return {}
    }
  })
  await one.broker.report(Array.from({ length: 10 }, () => leased(one, holding)))
  t.deepEqual(reports, [7, 3])
  await one.broker.report([{ ...holding, redeem: demand(holding.ticket, one.holder).bytes }])
  t.is(reports.length, 2, 'there is nothing to show')
  replace(one, 0, { report: async () => Promise.reject(new Error('out of order')) })
  await t.notThrowsAsync(one.broker.report([leased(one, holding)]))
})

test('a receipt that reached its agent moves what it tells of the node', async (t) => {
  const one = await lab(1, 1)
  const holding = await first(one)
  const told: number[] = []
  const onItem = ({ reliability }: { reliability: number }): void => void told.push(reliability)
  const agent = one.handlers.get(holding.agent)
  const call = { principal: '', signal: new AbortController().signal, input: (async function* () {})() }
  await one.broker.report([leased(one, holding)])
  await agent?.getAds({}, { ...call, emit: async (item) => onItem(item) })
  t.deepEqual(told, [666])
})

test('a ticket is renewed by the agent that issued it, as one line', async (t) => {
  const one = await lab(1, 2)
  const [holding] = await one.broker.getTickets(
    one.search(1, { ports: [{ protocol: 'tcp' }], durationMs: HOUR / 2 })
  )
  if (holding === undefined) return t.fail()
  const { ticket } = await one.broker.renewTicket({ ...holding, durationMs: HOUR })
  t.is(ticket.body.supersedes, holding.ticket.id)
  t.deepEqual(ticket.body.ports, holding.ticket.body.ports)
  t.is(ticket.body.notAfter, NOW + HOUR)
  const again = await one.broker.renewTicket({ ...holding, ticket, durationMs: HOUR })
  return t.is(again.ticket.body.supersedes, holding.ticket.id, 'a line is named by its first ticket')
})

for (const [ports, asks] of [
  [[], 2],
  [[{ protocol: 'tcp' as const }], 1]
] as const) {
  test(`when the issuer does not renew a ticket with ${ports.length} ports, ${asks - 1} others are asked`, async (t) => {
    const one = await lab(1, 2)
    const [holding] = await one.broker.getTickets(one.search(1, { ports: [...ports] }))
    if (holding === undefined) return t.fail()
    const index = one.agents.findIndex(({ principal }) => principal === holding.agent)
    replace(one, index, { getTickets: async () => Promise.reject(new Error('out of order')) })
    const before = one.calls.length
    const renewing = one.broker.renewTicket({ ...holding, durationMs: HOUR })
    if (asks === 1) await t.throwsAsync(renewing, { code: 'INTERNAL' })
    else t.not((await renewing).agent, holding.agent)
    return t.is(one.calls.length - before, asks)
  })
}

test('what is told by many weighs more than what one tells, and what was seen more than what is told', (t) => {
  const observations = new Observations({ ratedMax: 2 })
  t.is(observations.of('node', 'a', [], NOW), 500)
  t.is(observations.of('node', 'a', [900, 900, 0], NOW), 900)
  t.is(observations.of('node', 'a', [900, 0], NOW), 0)
  for (let times = 0; times < 16; times++) observations.add('node', 'a', 'kept', NOW)
  t.true(observations.of('node', 'a', [0], NOW) > 700)
  observations.add('node', 'b', 'kept', NOW)
  observations.add('node', 'c', 'kept', NOW)
  t.is(observations.of('node', 'a', [], NOW), 500, 'whoever was seen longest ago is forgotten')
})
