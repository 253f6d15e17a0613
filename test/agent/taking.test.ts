/** Delegations that count what is out, tickets taken back, and what a holder may have. */
import test from 'ava'
import { TICKETS_PER_HOLDER } from '../../src/agent/admission-policy.ts'
import type { AnyObject } from '../../src/ticket/any-object.ts'
import { equivocation } from '../../src/ticket/fraud.ts'
import { ticketObject } from '../../src/ticket/ticket.ts'
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

async function ready(...args: Parameters<typeof agentLab>): Promise<AgentLab> {
  const lab = await agentLab(...args)
  await handOver(lab, node)
  return lab
}

test('a delegation that does not count what is out is not taken, and the node learns what it lacks', async (t) => {
  const lab = await ready()
  const ticket = ticketOf((await ask(lab, holder, request(node)))[0])
  const before = lab.agent.tickets()
  const { taken, lacking, unknown } = await delegateAnew(lab, node, { counts: [] })
  t.false(taken)
  t.deepEqual(
    lacking.map((bytes) => ticketObject.open(bytes).id),
    [ticket.id]
  )
  t.deepEqual(unknown, [])
  t.deepEqual(lab.agent.tickets(), before)
  t.true((await delegateAnew(lab, node)).taken)
  t.true((await delegateAnew(lab, node)).taken, 'the same again is no other')
})

test('a delegation that counts what the agent does not know is not taken', async (t) => {
  const lab = await ready()
  const stranger = ticketOf((await ask(await ready(), holder, request(node)))[0]).id
  t.deepEqual(await delegateAnew(lab, node, { counts: [stranger] }), {
    taken: false,
    lacking: [],
    unknown: [stranger]
  })
})

test('a ticket that is settled is not asked about again and stays until a delegation leaves it out', async (t) => {
  const lab = await ready()
  await ask(lab, holder, request(node))
  lab.answer = () => 'ended'
  await lab.clock.advance(330_000)
  const times = lab.settled.length
  await lab.clock.advance(60_000)
  t.is(lab.settled.length, times)
  const again = await lab.restart()
  t.like(again.agent.tickets()[0], { state: 'settled' })
  t.true((await delegateAnew(again, node)).taken)
  t.deepEqual(again.agent.tickets(), [])
  t.deepEqual((await again.restart()).agent.tickets(), [], 'on the disk too')
})

test('a ticket is shown to nobody before it is on the disk', async (t) => {
  const lab = await ready()
  let open = (): void => {}
  lab.store.gate = new Promise((resolve) => (open = resolve))
  lab.store.plan(1, 'fail')
  const asking = ask(lab, holder, request(node, { resources: amounts(10) }))
  const { bytes } = delegate(node, lab.key, { seq: 2 })
  let answer: unknown
  const delegating = lab
    .as(node.principal)('delegate', { delegation: bytes })
    .then((said) => (answer = said))
  await lab.clock.advance(0)
  t.is(answer, undefined, 'it may turn out never to have been issued')
  lab.store.gate = undefined
  open()
  await t.throwsAsync(asking, { code: 'STORE_FAILED' })
  await delegating
  t.like(answer, { taken: true })
})

test('the tickets of one message are kept together or not at all', async (t) => {
  const lab = await ready()
  const commits = lab.store.commits
  const asked = Array.from({ length: 5 }, () => request(node))
  t.is((await ask(lab, holder, ...asked)).filter((one) => outcome(one) === 'granted').length, 5)
  t.is(lab.store.commits, commits + 1)
  lab.store.plan(1, 'fail')
  await t.throwsAsync(ask(lab, holder, ...asked), { code: 'STORE_FAILED' })
  t.is(lab.agent.tickets().length, 5)
  t.is((await ask(lab, holder, ...asked)).filter((one) => outcome(one) === 'granted').length, 5)
})

test('no two tickets have one number, whatever the disk does', async (t) => {
  let lab = await agentLab()
  await handOver(lab, node, { resources: amounts(100) })
  const out: AnyObject[] = []
  for (const fault of [undefined, 'fail', 'die-before', undefined, 'die-after', undefined] as const) {
    if (fault !== undefined) lab.store.plan(1, fault)
    const opened = await ask(lab, holder, request(node), request(node)).catch(() => [])
    out.push(...opened.map((one): AnyObject => ({ type: 'ticket', object: ticketOf(one) })))
    if (lab.store.isDead) lab = await lab.restart()
  }
  t.is(out.length, 6)
  t.deepEqual(
    out.flatMap((one) => out.flatMap((other) => equivocation(one, other) ?? [])),
    []
  )
})

test('one holder has so many tickets out at most, and others are not kept from theirs', async (t) => {
  const policy = { holders: 'anyone', durationMsMax: HOUR, rights: [], ticketsPerHolderMax: 2 } as const
  const lab = await ready({ policy })
  const codes = async (key: typeof holder, count: number): Promise<string[]> =>
    (await ask(lab, key, ...Array.from({ length: count }, () => request(node)))).map(outcome)
  t.deepEqual(await codes(holder, 3), ['granted', 'granted', 'QUOTA_EXCEEDED'])
  t.deepEqual(await codes(makeKey(), 1), ['granted'])
  lab.answer = () => 'lapsed'
  await lab.clock.advance(330_000)
  t.deepEqual(await codes(holder, 1), ['granted'], 'what came to nothing is not out')
  t.true(TICKETS_PER_HOLDER > 2)
})

test('a ticket that is revoked is told to the node until it listens, also after a crash, and is not renewed', async (t) => {
  const lab = await ready()
  const ticket = ticketOf((await ask(lab, holder, request(node)))[0])
  lab.takesRevocations = false
  const revocation = await lab.agent.revoke(ticket.id)
  t.deepEqual(revocation.body.target, { id: ticket.id })
  t.is(revocation.body.notAfter, ticket.body.notAfter)
  t.like(lab.agent.tickets()[0], { state: 'revoked' })
  const [renewed] = await ask(lab, holder, request(node, { supersedes: ticket.id }))
  t.is(outcome(renewed), 'TICKET_REVOKED')
  const again = await lab.restart()
  await again.clock.advance(15_000)
  t.deepEqual(
    again.revoked.map(({ id }) => id),
    [revocation.id]
  )
  await again.clock.advance(60_000)
  t.is(again.revoked.length, 1, 'it is told once')
  await t.throwsAsync(again.agent.revoke(revocation.id), { code: 'NOT_FOUND' })
})

test('a renewal is the same line: same ports, counted once, for the same holder', async (t) => {
  const lab = await ready()
  const wish = request(node, { resources: amounts(10), ports: [{ protocol: 'tcp' }] })
  const first = ticketOf((await ask(lab, holder, wish))[0])
  const next = { ...wish, supersedes: first.id, durationMs: 2 * HOUR }
  t.is(outcome((await ask(lab, makeKey(), next))[0]), 'DENIED')
  const second = ticketOf((await ask(lab, holder, next))[0])
  t.deepEqual(second.body.ports, first.body.ports)
  t.is(second.body.supersedes, first.id)
  t.is(second.body.notAfter, NOW + 2 * HOUR)
  t.is(outcome((await ask(lab, holder, request(node)))[0]), 'OVERBOOKED')
})

test('who watches for fraud is told of the delegations that are taken', async (t) => {
  const seen: AnyObject[] = []
  const lab = await agentLab({}, { observe: (object) => void seen.push(object) })
  const id = await handOver(lab, node)
  t.deepEqual(
    seen.map(({ type, object }) => [type, object.id]),
    [['delegation', id]]
  )
})

test('what does not fit one answer is refused as BUSY, and nothing of it is out', async (t) => {
  const lab = await agentLab()
  // As long as a delegation gets.
  const ports = Array.from({ length: 64 }, (_one, index) => ({
    protocol: 'tcp' as const,
    first: 20_000 + 100 * index,
    last: 20_090 + 100 * index
  }))
  await handOver(lab, node, { ports, resources: amounts(200) })
  for (let times = 0; times < 4; times++) {
    const some = await ask(lab, holder, ...Array.from({ length: 31 }, () => request(node)))
    t.true(some.every((one) => outcome(one) === 'granted'))
  }
  t.true((await delegateAnew(lab, node, { ports, resources: amounts(200) })).taken)
  lab.answer = () => 'ended'
  await lab.clock.advance(330_000)
  const many = await ask(lab, holder, ...Array.from({ length: 32 }, () => request(node)))
  const granted = many.filter((one) => outcome(one) === 'granted').length
  t.true(granted > 10 && granted < 32, `${granted}`)
  t.true(many.slice(granted).every((one) => outcome(one) === 'BUSY'))
  t.is(lab.agent.tickets().length, 124 + granted)
})
