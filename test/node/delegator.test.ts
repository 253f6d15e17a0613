import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { Delegator, type AgentShare } from '../../src/node/delegator.ts'
import type { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import type { Caller } from '../../src/protocol/method.ts'
import { delegationObject, type Delegation } from '../../src/ticket/delegation.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { FaultyStore, type Fault } from '../base/faulty-store.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { HOUR, amounts, makeKey } from '../ticket/fixtures.ts'

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
}

async function start(
  shares: readonly AgentShare[],
  from?: Lab,
  silent: readonly string[] = [],
  fault?: Fault
): Promise<Lab> {
  const clock = from?.clock ?? new ManualClock()
  const store = await FaultyStore.open(from?.store.disk)
  if (fault !== undefined) store.plan(1, fault)
  const taken: Signed<Delegation>[] = []
  const down = new Set(silent)
  const callAgent = (agent: string): Caller<typeof agentProtocol.methods> =>
    (async (_method: string, { delegation }: { delegation: Uint8Array }) => {
      if (down.has(agent)) throw new Error('unreachable')
      taken.push(delegationObject.open(delegation))
      return {}
    }) as unknown as Caller<typeof agentProtocol.methods>
  const delegator = new Delegator(
    { key, store, clock, logger: silentLogger, callAgent },
    { capacity: amounts(10), epoch: 1, shares, termMs: 2 * HOUR, retryMs: 1000 }
  )
  await delegator.start()
  await clock.advance(1)
  return { delegator, clock, store, taken, down }
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
    kept.map(([, bytes]) => bytes)
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
