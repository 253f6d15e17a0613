import test from 'ava'
import { chainFault } from '../../src/ticket/chain.ts'
import { HOUR, NOW, amounts, delegate, makeKey } from '../ticket/fixtures.ts'
import {
  agentLab,
  ask,
  delegateAnew,
  handOver,
  outcome,
  request,
  ticketOf,
  type AgentLab
} from './agent-lab.ts'

const node = makeKey()
const holder = makeKey()
const stranger = makeKey()

async function ready(...args: Parameters<typeof agentLab>): Promise<AgentLab> {
  const lab = await agentLab(...args)
  await handOver(lab, node)
  return lab
}

test('a delegation is taken from the node that it is of, and nobody else', async (t) => {
  const lab = await agentLab()
  const delegation = delegate(node, lab.key).bytes
  await t.throwsAsync(lab.as(stranger.principal)('delegate', { delegation }), { code: 'DENIED' })
  t.deepEqual(lab.agent.nodes(), [])
  await lab.as(node.principal)('delegate', { delegation })
  t.deepEqual(lab.agent.nodes(), [node.principal])
})

test('a delegation for another agent is not taken', async (t) => {
  const lab = await agentLab()
  const delegation = delegate(node, stranger).bytes
  await t.throwsAsync(lab.as(node.principal)('delegate', { delegation }), { code: 'DENIED' })
  t.deepEqual(lab.agent.nodes(), [])
})

test('a delegation that has ended is not taken, and an older one does not replace a newer one', async (t) => {
  const lab = await agentLab()
  await t.throwsAsync(handOver(lab, node, { notAfter: NOW }), { code: 'TICKET_EXPIRED' })
  await handOver(lab, node, { seq: 2, resources: amounts(1) })
  await t.throwsAsync(handOver(lab, node, { seq: 1 }), { code: 'DENIED' })
  const [opened] = await ask(lab, holder, request(node, { resources: amounts(2) }))
  t.is(outcome(opened), 'OVERBOOKED')
})

test('delegations that ended make room for others and are gone from the disk', async (t) => {
  const lab = await agentLab()
  await handOver(lab, node, { notAfter: NOW + HOUR })
  await lab.clock.advance(HOUR + 75_000)
  const kept = await Array.fromAsync(lab.store.iterate('agent-sources'))
  t.is(kept.length, 0)
  t.is(outcome((await ask(lab, holder, request(node)))[0]), 'NOT_FOUND')
  // A node that lost its records begins to count anew.
  await handOver(lab, node, { seq: 0 })
  t.deepEqual(lab.agent.nodes(), [node.principal])
})

test('a granted ticket holds as a chain at its node', async (t) => {
  const lab = await agentLab()
  const delegation = delegate(node, lab.key)
  await lab.as(node.principal)('delegate', { delegation: delegation.bytes })
  const [opened] = await ask(lab, holder, request(node, { ports: [{ protocol: 'tcp' }] }))
  const chain = { delegation, tickets: [ticketOf(opened)] }
  const presentation = { node: node.principal, holder: holder.principal, now: NOW }
  t.is(chainFault(chain, presentation), undefined)
})

const refused: Readonly<Record<string, readonly [Partial<ReturnType<typeof request>>, string]>> = {
  'of a node that delegates nothing': [{ node: stranger.principal }, 'NOT_FOUND'],
  'of more than the delegation': [{ resources: amounts(11) }, 'OVERBOOKED'],
  'of a term longer than the delegation': [{ durationMs: 3 * HOUR }, 'QUOTA_EXCEEDED'],
  'of a term longer than the policy': [{ durationMs: 5 * HOUR }, 'QUOTA_EXCEEDED'],
  'of a right that the node does not delegate': [{ rights: ['raw-socket'] }, 'DENIED'],
  'of a port that is not delegated': [{ ports: [{ protocol: 'tcp', port: 80 }] }, 'PORT_TAKEN'],
  'of a protocol that is not delegated': [{ ports: [{ protocol: 'udp' }] }, 'PORT_TAKEN']
}
for (const [name, [changes, code]] of Object.entries(refused)) {
  test(`a request ${name} is refused as ${code}, signed`, async (t) => {
    const lab = await agentLab()
    await handOver(lab, node, { notAfter: NOW + 2 * HOUR })
    const [opened, other] = await ask(lab, holder, request(node, changes), request(node))
    t.is(outcome(opened), code)
    if (opened !== undefined && 'refusal' in opened) t.is(opened.refusal.body.issuer, lab.key.principal)
    t.is(outcome(other), 'granted', 'each request is decided by itself')
  })
}

test('the policy says who may hold tickets, for how long and with which rights', async (t) => {
  const policy = { holders: [holder.principal], durationMsMax: HOUR, rights: [] }
  const lab = await agentLab({ policy })
  await handOver(lab, node, { rights: ['raw-socket'] })
  const of = async (key: typeof holder, changes = {}): Promise<string> =>
    outcome((await ask(lab, key, request(node, changes)))[0])
  t.is(await of(holder), 'granted')
  t.is(await of(stranger), 'DENIED')
  t.is(await of(holder, { rights: ['raw-socket'] }), 'DENIED')
  t.is(await of(holder, { durationMs: HOUR + 1 }), 'QUOTA_EXCEEDED')
})

test('a ticket has the bounds that are asked for, and where none are those of policy and delegation', async (t) => {
  const shaping = { icmpBps: 64_000, optionsBps: 32_000, egressShare: 4 }
  const lab = await agentLab({ policy: { holders: 'anyone', durationMsMax: HOUR, rights: [], shaping } })
  await handOver(lab, node, { shaping: { optionsBps: 16_000, destinationsPerMinute: 100, egressShare: 2 } })
  const of = async (changes: object): ReturnType<typeof ask> => ask(lab, holder, request(node, changes))
  const bounds = { icmpBps: 64_000, optionsBps: 16_000, destinationsPerMinute: 100 }
  const [plain] = await of({})
  t.deepEqual(ticketOf(plain).body.shaping, bounds)
  const [less] = await of({ shaping: { icmpBps: 8000, destinationsPerMinute: 8, egressShare: 2 } })
  const own = { ...bounds, icmpBps: 8000, destinationsPerMinute: 8, egressShare: 2 }
  t.deepEqual(ticketOf(less).body.shaping, own)
  // Beyond the policy, and beyond the delegation.
  t.is(outcome((await of({ shaping: { icmpBps: 65_000 } }))[0]), 'QUOTA_EXCEEDED')
  t.is(outcome((await of({ shaping: { egressShare: 5 } }))[0]), 'QUOTA_EXCEEDED')
  t.is(outcome((await of({ shaping: { optionsBps: 17_000 } }))[0]), 'OVERBOOKED')
  t.is(outcome((await of({ shaping: { egressShare: 3 } }))[0]), 'OVERBOOKED')
  // A lease goes on with what it says, or not at all.
  const { id } = ticketOf(less)
  const [renewed] = await of({ shaping: own, supersedes: id })
  t.deepEqual(ticketOf(renewed).body.shaping, own)
  t.is(outcome((await of({ supersedes: id }))[0]), 'QUOTA_EXCEEDED')
})

test('without a word of policy and delegation there is no larger share, and no bound', async (t) => {
  const lab = await ready()
  const of = async (shaping: object): ReturnType<typeof ask> => ask(lab, holder, request(node, { shaping }))
  t.deepEqual(ticketOf((await of({ icmpBps: 1_000_000 }))[0]).body.shaping, { icmpBps: 1_000_000 })
  t.is(outcome((await of({ egressShare: 2 }))[0]), 'QUOTA_EXCEEDED')
})

test('an administrative slice is granted where policy and delegation name its rights, and refused to others', async (t) => {
  const rights = ['administrative' as const, 'cap-net-raw' as const]
  const terms = { grants: 'slices' as const, durationMsMax: HOUR, perPrincipal: {}, perOrganisation: {} }
  const match = { principals: [holder.principal], organisations: [] }
  const rules = [
    { name: 'administrators', match, terms: { ...terms, rights } },
    { name: 'others', terms: { ...terms, rights: [] } }
  ]
  const lab = await agentLab({ policy: { rules } })
  await handOver(lab, node, { rights })
  const of = async (key: typeof holder, changes = {}): Promise<string> => {
    const [opened] = await ask(lab, key, request(node, { rights, ...changes }))
    return opened !== undefined && 'refusal' in opened ? opened.refusal.body.message : outcome(opened)
  }
  t.is(await of(holder), 'granted')
  t.regex(await of(stranger), /does not grant the right administrative/)
  t.regex(await of(holder, { rights: ['administrative', 'cap-kill'] }), /does not grant the right cap-kill/)
  t.regex(await of(holder, { rights: ['cap-net-raw'] }), /needs the right administrative/)
  t.regex(await of(holder, { ports: [{ protocol: 'tcp' }] }), /own no ports/)
})

test('requests at the same time never get the same share or port', async (t) => {
  const lab = await ready()
  const asked = Array.from({ length: 15 }, () =>
    ask(lab, holder, request(node, { ports: [{ protocol: 'tcp' }] }))
  )
  const opened = (await Promise.all(asked)).flat()
  const granted = opened.filter((one) => outcome(one) === 'granted').map(ticketOf)
  t.is(granted.length, 10)
  t.is(new Set(granted.map(({ body }) => body.ports[0]?.first)).size, 10)
  t.is(new Set(granted.map(({ body }) => body.seq)).size, 10)
})

test('a wish for any port leaves the ports that are named beside it alone', async (t) => {
  const lab = await ready()
  const any = { protocol: 'tcp' } as const
  const [opened] = await ask(
    lab,
    holder,
    request(node, { ports: [any, { protocol: 'tcp', port: 20_000 }, any] })
  )
  t.deepEqual(
    ticketOf(opened).body.ports.map(({ first }) => first),
    [20_001, 20_000, 20_002]
  )
})

test('a ticket is on the disk before its holder has it, and counts after a restart', async (t) => {
  const lab = await ready()
  const [opened] = await ask(lab, holder, request(node, { resources: amounts(10) }))
  const [[id] = []] = await Array.fromAsync(lab.store.disk.iterate('agent-tickets'))
  t.is(id, ticketOf(opened).id)
  const again = await lab.restart()
  t.is(outcome((await ask(again, holder, request(node)))[0]), 'OVERBOOKED')
})

test('when the store refuses a ticket nobody gets it and its share is free again', async (t) => {
  const lab = await ready()
  lab.store.plan(1, 'fail')
  await t.throwsAsync(ask(lab, holder, request(node, { resources: amounts(10) })))
  t.is(outcome((await ask(lab, holder, request(node, { resources: amounts(10) })))[0]), 'granted')
})

for (const fault of ['die-before', 'die-after'] as const) {
  test(`after a crash (${fault}) a ticket counts if and only if it was kept, and no number is used twice`, async (t) => {
    const lab = await ready()
    const first = ticketOf((await ask(lab, holder, request(node)))[0])
    lab.store.plan(1, fault)
    await t.throwsAsync(ask(lab, holder, request(node, { resources: amounts(9) })))
    const again = await lab.restart()
    t.is(
      outcome((await ask(again, holder, request(node, { resources: amounts(9) })))[0]),
      fault === 'die-after' ? 'OVERBOOKED' : 'granted'
    )
    const kept = await Array.fromAsync(lab.store.disk.iterate('agent-tickets'))
    t.is(kept.length, 2)
    t.true((await delegateAnew(again, node, { resources: amounts(20) })).taken)
    const last = ticketOf((await ask(again, holder, request(node)))[0])
    t.is(last.body.seq, 3)
    t.is(first.body.seq, 1)
  })
}

test('a hold that is over frees its share only when the node confirms that it lapsed, and delegates without it', async (t) => {
  const lab = await ready()
  const all = request(node, { resources: amounts(10) })
  const ticket = ticketOf((await ask(lab, holder, all))[0])
  await lab.clock.advance(400_000)
  t.true(lab.settled.length > 0)
  t.is(outcome((await ask(lab, holder, all))[0]), 'OVERBOOKED', 'the node said open')
  lab.answer = () => 'redeemed'
  await lab.clock.advance(15_000)
  t.is(outcome((await ask(lab, holder, all))[0]), 'OVERBOOKED', 'the node said redeemed')
  lab.answer = (asked) => (asked.id === ticket.id ? 'lapsed' : 'open')
  await lab.clock.advance(15_000)
  t.is(outcome((await ask(lab, holder, all))[0]), 'OVERBOOKED', 'what was signed can still be shown')
  t.true((await delegateAnew(lab, node)).taken)
  t.is(outcome((await ask(lab, holder, all))[0]), 'granted')
  t.is(outcome((await ask(await lab.restart(), holder, all))[0]), 'OVERBOOKED', 'the new one counts')
})

test('while a node does not answer its tickets go on counting, and those of others are settled', async (t) => {
  const lab = await ready()
  const other = makeKey()
  await handOver(lab, other)
  await ask(
    lab,
    holder,
    request(node, { resources: amounts(10) }),
    request(other, { resources: amounts(10) })
  )
  lab.answer = (ticket) => (ticket.body.node === node.principal ? new Promise(() => {}) : 'lapsed')
  await lab.clock.advance(300_000)
  // The silent node is given up in real time, after which the loop goes on.
  await new Promise((resolve) => setTimeout(resolve, 100))
  const states = (): unknown[] =>
    lab.agent.tickets().map(({ node: of, state }) => [of === other.principal, state])
  t.deepEqual(states(), [
    [false, 'out'],
    [true, 'settled']
  ])
  lab.answer = () => 'lapsed'
  await lab.clock.advance(15_000)
  t.deepEqual(states()[0], [false, 'settled'], 'it was asked again')
})

test('a ticket whose term is over stops counting without the node, but not before every clock agrees', async (t) => {
  const lab = await ready()
  lab.answer = () => {
    throw new Error('unreachable')
  }
  const all = request(node, { resources: amounts(10) })
  const { body } = ticketOf((await ask(lab, holder, all))[0])
  await lab.clock.advance(body.notAfter - NOW + 30_000)
  t.is(outcome((await ask(lab, holder, all))[0]), 'OVERBOOKED')
  await lab.clock.advance(45_000)
  t.is(outcome((await ask(lab, holder, all))[0]), 'granted')
})

test('released tickets are cancelled at their node; those of another holder are left alone', async (t) => {
  const lab = await ready()
  const ticket = ticketOf((await ask(lab, holder, request(node, { resources: amounts(10) })))[0])
  lab.answer = (_ticket, cancel) => (cancel ? 'lapsed' : 'open')
  await lab.as(stranger.principal)('releaseTickets', { tickets: [ticket.id] })
  t.is(lab.settled.length, 0)
  t.is(outcome((await ask(lab, holder, request(node)))[0]), 'OVERBOOKED')
  await lab.as(holder.principal)('releaseTickets', { tickets: [ticket.id] })
  t.deepEqual(
    lab.settled.map(({ tickets, cancel }) => [tickets[0]?.id, cancel]),
    [[ticket.id, true]]
  )
  t.true((await delegateAnew(lab, node)).taken)
  t.is(outcome((await ask(lab, holder, request(node)))[0]), 'granted')
})

test('releasing a ticket that was redeemed frees nothing', async (t) => {
  const lab = await ready()
  const ticket = ticketOf((await ask(lab, holder, request(node, { resources: amounts(10) })))[0])
  lab.answer = () => 'redeemed'
  await lab.as(holder.principal)('releaseTickets', { tickets: [ticket.id] })
  t.is(outcome((await ask(lab, holder, request(node)))[0]), 'OVERBOOKED')
})

test('a crash between the node’s word and the disk leaves the ticket counting', async (t) => {
  const lab = await ready()
  const ticket = ticketOf((await ask(lab, holder, request(node, { resources: amounts(10) })))[0])
  lab.answer = () => 'lapsed'
  lab.store.plan(1, 'fail')
  await lab.as(holder.principal)('releaseTickets', { tickets: [ticket.id] })
  t.is(lab.agent.tickets()[0]?.state, 'out', 'nothing is settled that is not kept')
  lab.store.plan(1, 'die-before')
  await lab.as(holder.principal)('releaseTickets', { tickets: [ticket.id] })
  const again = await lab.restart()
  t.is(again.agent.tickets()[0]?.state, 'out')
})

test('a full message of requests, each with many ports, is answered in one message', async (t) => {
  const lab = await agentLab()
  await handOver(lab, node, {
    resources: amounts(100),
    ports: Array.from({ length: 64 }, (_one, index) => ({
      protocol: 'tcp' as const,
      first: 20_000 + 100 * index,
      last: 20_090 + 100 * index
    }))
  })
  const ports = Array.from({ length: 64 }, () => ({ protocol: 'tcp' as const }))
  const opened = await ask(lab, holder, ...Array.from({ length: 32 }, () => request(node, { ports })))
  t.true(opened.every((one) => outcome(one) === 'granted'))
  const taken = opened.flatMap((one) => ticketOf(one).body.ports.map(({ first }) => first))
  t.is(new Set(taken).size, 32 * 64)
})
