/** A broker, agents and nodes in one process; the nodes delegate to every agent. */
import { Agent } from '../../src/agent/agent.ts'
import { silentLogger } from '../../src/base/log.ts'
import { Broker } from '../../src/broker/broker.ts'
import { FailedPairs } from '../../src/broker/failed-pairs.ts'
import type { TicketSearch } from '../../src/broker/gathering.ts'
import { compilePlacement } from '../../src/broker/placement.ts'
import { agentProtocol, type TicketRequest } from '../../src/protocol/agent-protocol.ts'
import type { Caller, Handlers } from '../../src/protocol/method.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import type { Principal, SigningKey } from '../../src/ticket/principal.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { FaultyStore } from '../base/faulty-store.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { HOUR, NOW, amounts, delegate, makeKey } from '../ticket/fixtures.ts'
import { nodeAdvert } from './adverts.ts'

type AgentHandlers = Handlers<typeof agentProtocol.methods>

export interface Lab {
  readonly broker: Broker
  readonly clock: ManualClock
  readonly holder: SigningKey
  readonly agents: readonly SigningKey[]
  readonly nodes: readonly SigningKey[]
  readonly adverts: Signed<NodeAdvertisement>[]
  /** In the order of their keys. */
  readonly agentBooks: readonly Pick<Agent, 'tickets'>[]
  /** What agents answer; a test may put its own in. */
  readonly handlers: Map<Principal, AgentHandlers>
  readonly calls: string[]
  /** Who was shown to cheat. */
  readonly proven: Set<Principal>
  /** What the holder shows of who vouches for it. */
  readonly shown: Uint8Array[]
  search(count: number, changes?: Partial<TicketRequest>): TicketSearch
}

/** Nodes that delegate to every agent, which may keep the broker waiting for so long, and after so long is hedged. */
export async function lab(
  nodeCount: number,
  agentCount: number,
  callMs = 60_000,
  hedgeMs = 2000
): Promise<Lab> {
  const clock = new ManualClock()
  const holder = makeKey()
  const agents = Array.from({ length: agentCount }, makeKey)
  const nodes = Array.from({ length: nodeCount }, makeKey)
  const names = agents.map(({ principal }) => principal)
  const adverts = nodes.map((node, index) =>
    nodeAdvert(node, { name: `n${index}`, agents: names, seq: index })
  )
  const handlers = new Map<Principal, AgentHandlers>()
  const agentBooks: Agent[] = []
  for (const key of agents) {
    const agent = new Agent(
      {
        key,
        store: await FaultyStore.open(),
        clock,
        logger: silentLogger,
        advertOf: (node) => adverts.find(({ body }) => body.issuer === node),
        callNode: () => async () => {
          throw new Error('no node here')
        }
      },
      {
        policy: { holders: 'anyone', durationMsMax: HOUR, rights: [] },
        holdMs: 300_000,
        settleIntervalMs: 15_000
      }
    )
    await agent.start()
    agentBooks.push(agent)
    handlers.set(key.principal, agent.handlers())
    for (const node of nodes) {
      const { bytes } = delegate(node, key)
      await localCaller(agentProtocol, agent.handlers(), node.principal)('delegate', { delegation: bytes })
    }
  }
  const calls: string[] = []
  const proven = new Set<Principal>()
  const shown: Uint8Array[] = []
  const callAgent = (agent: Principal): Caller<typeof agentProtocol.methods> => {
    const handler = handlers.get(agent)
    return async (method, params, options) => {
      calls.push(method)
      if (handler === undefined) throw new Error('unreachable')
      return localCaller(agentProtocol, handler, holder.principal)(method, params, options)
    }
  }
  const directory = {
    refresh: async () => 0,
    entries: () => adverts.map((advert) => ({ advert, via: 'gossip' as const, receivedAt: NOW }))
  }
  const broker = new Broker(
    {
      principal: holder.principal,
      directory,
      clock,
      logger: silentLogger,
      callAgent,
      isProven: (principal) => proven.has(principal),
      memberships: () => shown
    },
    { callMs, hedgeMs }
  )
  const search: Lab['search'] = (count, changes = {}) => ({
    slice: 'mesh',
    count,
    minimum: 0,
    placement: compilePlacement({}),
    held: [],
    request: { resources: amounts(1), ports: [], rights: [], durationMs: HOUR, ...changes },
    nodes: adverts.map(({ body }) => body),
    failed: new FailedPairs(),
    granted: new Map()
  })
  return { broker, clock, holder, agents, nodes, adverts, agentBooks, handlers, calls, proven, shown, search }
}

export function replace(one: Lab, index: number, changes: Partial<AgentHandlers>): void {
  const { principal } = one.agents[index] ?? one.holder
  const before = one.handlers.get(principal)
  if (before !== undefined) one.handlers.set(principal, { ...before, ...changes })
}
