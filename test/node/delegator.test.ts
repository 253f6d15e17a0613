import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { Delegator, type AgentShare } from '../../src/node/delegator.ts'
import { decodeState } from '../../src/node/delegation-state.ts'
import type { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import type { Caller } from '../../src/protocol/method.ts'
import { delegationObject, type Delegation } from '../../src/ticket/delegation.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { FaultyStore, type Fault } from '../base/faulty-store.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { HOUR, amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'

const key = makeKey()
const agents = [makeKey(), makeKey()]

function share(index: number, changes: Partial<AgentShare> = {}): AgentShare {
  const agent = agents[index]?.principal ?? ''
  return { agent, sharePercent: 50, overbookPercent: 100, maxDepth: 2, ports: [], rights: [], ...changes }
}

interface Lab {
  readonly delegator: Delegator
  readonly clock: ManualClock
  readonly store: FaultyStore
  /** What each agent took, in order. */
  readonly taken: Signed<Delegation>[]
  /** Agents that do not answer. */
  readonly down: Set<string>
  /** What agents answer before they take a delegation, each once. */
  readonly answers: Partial<Answer>[]
  /** Ids of tickets that hold leases now. */
  readonly leased: Set<string>
  readonly over: Set<string>
}

type Answer = { readonly lacking: Uint8Array[]; readonly unknown: string[] }

async function start(
  shares: readonly AgentShare[],
  from?: Lab,
  silent: readonly string[] = [],
  fault?: Fault,
  proven: readonly string[] = []
): Promise<Lab> {
  const clock = from?.clock ?? new ManualClock()
  const store = await FaultyStore.open(from?.store.disk)
  if (fault !== undefined) store.plan(1, fault)
  const taken: Signed<Delegation>[] = []
  const down = new Set(silent)
  const answers: Partial<Answer>[] = []
  const leased = from?.leased ?? new Set<string>()
  const over = new Set<string>()
  const callAgent = (agent: string): Caller<typeof agentProtocol.methods> =>
    (async (_method: string, { delegation }: { delegation: Uint8Array }) => {
      if (down.has(agent)) throw new Error('unreachable')
      const answer = answers.shift()
      if (answer !== undefined) return { taken: false, lacking: [], unknown: [], ...answer }
      taken.push(delegationObject.open(delegation))
      return { taken: true, lacking: [], unknown: [] }
    }) as unknown as Caller<typeof agentProtocol.methods>
  const delegator = new Delegator(
    {
      key,
      store,
      clock,
      logger: silentLogger,
      callAgent,
      leasedTo: () => [...leased],
      isOver: ({ id }) => over.has(id),
      isProven: (agent) => proven.includes(agent)
    },
    { capacity: amounts(10), epoch: 1, shares, termMs: 2 * HOUR, retryMs: 1000 }
  )
  await delegator.start()
  await clock.advance(1)
  return { delegator, clock, store, taken, down, answers, leased, over }
}

test('each agent gets its share, signed for it alone, and is then told of', async (t) => {
  const lab = await start([share(0), share(1, { sharePercent: 20 })])
  t.deepEqual(
    lab.taken.map(({ body }) => [body.holder, body.resources.memoryBytes]),
    [
      [agents[0]?.principal, amounts(5).memoryBytes],
      [agents[1]?.principal, amounts(2).memoryBytes]
    ]
  )
  t.deepEqual(
    lab.delegator.agents(),
    agents.map(({ principal }) => principal)
  )
  await lab.clock.advance(10_000)
  t.is(lab.taken.length, 2, 'handed over once')
})

test('no two delegations of a node have one number, whomever they are for and however often it restarts', async (t) => {
  const first = await start([share(0), share(1)])
  // The wall clock is set back, so that time alone would give old numbers again.
  first.clock.setWall(first.clock.now() - HOUR)
  const changed = [share(0, { sharePercent: 10 }), share(1, { sharePercent: 10 })]
  const second = await start(changed, first)
  const numbers = [...first.taken, ...second.taken].map(({ body }) => body.seq)
  t.is(numbers.length, 4)
  t.is(new Set(numbers).size, 4)
  t.deepEqual(
    numbers,
    [...numbers].sort((a, b) => a - b)
  )
})

test('an agent that is not reached is tried again, with the same delegation, and not told of before', async (t) => {
  const lab = await start([share(0)], undefined, [agents[0]?.principal ?? ''])
  await lab.clock.advance(5000)
  t.deepEqual(lab.delegator.agents(), [])
  const kept = await Array.fromAsync(lab.store.disk.iterate('node-delegations'))
  lab.down.clear()
  await lab.clock.advance(1000)
  t.deepEqual(lab.delegator.agents(), [agents[0]?.principal ?? ''])
  t.deepEqual(
    lab.taken.map(({ bytes }) => bytes),
    kept.flatMap(([, bytes]) => decodeState(bytes).offers.map((offer) => offer.bytes))
  )
})

test('after a restart the agents are handed what they had', async (t) => {
  const lab = await start([share(0)])
  await lab.delegator.stop()
  const again = await start([share(0)], lab)
  t.deepEqual(
    again.taken.map(({ id }) => id),
    lab.taken.map(({ id }) => id)
  )
})

test('a delegation is durable before its agent has it', async (t) => {
  const lab = await start([share(0)], undefined, [], 'die-before')
  await lab.clock.advance(5000)
  t.deepEqual(lab.taken, [])
})

test('a new delegation follows when half of the term is gone, and when the policy changed', async (t) => {
  const lab = await start([share(0)])
  await lab.clock.advance(HOUR - 2000)
  t.is(lab.taken.length, 1)
  await lab.clock.advance(4000)
  t.is(lab.taken.length, 2)
  const [first, second] = lab.taken
  t.true((second?.body.seq ?? 0) > (first?.body.seq ?? 0))
  t.true((second?.body.notAfter ?? 0) > (first?.body.notAfter ?? 0))
  await lab.delegator.stop()
  const changed = await start([share(0, { overbookPercent: 150 })], lab)
  t.is(changed.taken[0]?.body.overbookPercent, 150)
  t.true((changed.taken[0]?.body.seq ?? 0) > (second?.body.seq ?? 0))
})

const holder = makeKey()

/** A ticket under a delegation that the lab's first agent took. */
function ticketUnder(delegation: Signed<Delegation> | undefined, seq: number): Signed<Ticket> {
  if (delegation === undefined || agents[0] === undefined) throw new TypeError('nothing was delegated')
  return issue(delegation, agents[0], holder, { seq, ports: [] })
}

test('what is over before its term comes back with a delegation that counts what is not', async (t) => {
  const lab = await start([share(0)])
  const [first] = lab.taken
  const [live, gone] = [ticketUnder(first, 1), ticketUnder(first, 2)]
  lab.leased.add(live.id)
  lab.delegator.freed(gone)
  await lab.clock.advance(2000)
  t.is(lab.taken.length, 2)
  t.deepEqual(lab.taken[1]?.body.counts, [live.id])
  t.is(lab.delegator.fault({ delegation: first!, tickets: [live] }), undefined)
  t.is(lab.delegator.fault({ delegation: first!, tickets: [gone] })?.code, 'TICKET_EXPIRED')
  lab.delegator.freed(gone)
  await lab.clock.advance(2000)
  t.is(lab.taken.length, 2, 'once: it is counted nowhere any more')
  lab.leased.delete(live.id)
  lab.delegator.freed(live)
  await lab.clock.advance(2000)
  t.deepEqual(lab.taken[2]?.body.counts, [])
})

test('an agent that lacks a ticket of its own in the counts, or finds a strange one, gets another delegation', async (t) => {
  const lab = await start([share(0)])
  const [first] = lab.taken
  const [open, strange] = [ticketUnder(first, 1), ticketUnder(first, 2)]
  lab.leased.add(strange.id)
  lab.answers.push({ lacking: [open.bytes], unknown: [strange.id] })
  lab.delegator.freed(ticketUnder(first, 3))
  await lab.clock.advance(2000)
  t.deepEqual(lab.taken[1]?.body.counts, [open.id])
  t.is(lab.delegator.fault({ delegation: first!, tickets: [open] }), undefined)
  lab.over.add(open.id)
  lab.delegator.freed(open)
  await lab.clock.advance(2000)
  t.deepEqual(lab.taken[2]?.body.counts, [])
})

test("a ticket that an agent wants counted must be its own and this node's", async (t) => {
  const lab = await start([share(0)])
  const foreign = issue(delegate(makeKey(), agents[0]!), agents[0]!, holder, { ports: [] })
  const others = issue(lab.taken[0]!, agents[1]!, holder, { ports: [] })
  lab.answers.push({ lacking: [foreign.bytes, others.bytes] })
  lab.delegator.freed(ticketUnder(lab.taken[0], 1))
  await lab.clock.advance(2000)
  t.deepEqual(lab.taken[1]?.body.counts, [])
})

test('as long as it is not known that an agent took the next delegation, tickets of the one before are good', async (t) => {
  const lab = await start([share(0)])
  const [first] = lab.taken
  const before = ticketUnder(first, 1)
  lab.down.add(agents[0]?.principal ?? '')
  lab.delegator.freed(ticketUnder(first, 2))
  await lab.clock.advance(2000)
  const { offers } = decodeState((await lab.store.disk.get('node-delegations', agents[0]!.principal))!)
  t.is(offers.length, 1)
  t.is(lab.delegator.fault({ delegation: first!, tickets: [before] }), undefined)
  t.is(lab.delegator.fault({ delegation: offers[0]!, tickets: [ticketUnder(offers[0], 3)] }), undefined)
  lab.down.clear()
  await lab.clock.advance(2000)
  t.is(lab.taken.at(-1)?.id, offers[0]?.id)
  t.is(lab.delegator.fault({ delegation: first!, tickets: [before] })?.code, 'TICKET_EXPIRED')
})

test('what a node declares covers every delegation that is not over, of policies before too', async (t) => {
  const lab = await start([share(0, { sharePercent: 80 }), share(1, { sharePercent: 60 })])
  t.is(lab.delegator.delegatedPercent, 140)
  await lab.delegator.stop()
  const later = await start([share(0, { sharePercent: 20 })], lab)
  t.is(later.delegator.delegatedPercent, 140, 'what was handed out is still out')
  await later.delegator.stop()
  await lab.clock.advance(3 * HOUR)
  const last = await start([share(0, { sharePercent: 20 })], later)
  t.is(last.delegator.delegatedPercent, 20)
})

test('an agent that is proven to cheat gets no more', async (t) => {
  const lab = await start([share(0)], undefined, [], undefined, [agents[0]?.principal ?? ''])
  t.deepEqual(lab.taken, [])
})
