/** An overlay in one process: nodes with fake monitors, agents, a broker and a service manager, on one manual clock. */
import { isDeepStrictEqual } from 'node:util'
import { Agent } from '../../src/agent/agent.ts'
import type { AgentPolicy } from '../../src/agent/admission-policy.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import { silentLogger } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/random.ts'
import { Broker } from '../../src/broker/broker.ts'
import { agentProtocol, type Offer } from '../../src/protocol/agent-protocol.ts'
import type { Caller } from '../../src/protocol/method.ts'
import type { nodeProtocol } from '../../src/protocol/node-protocol.ts'
import { ServiceManager } from '../../src/service/service-manager.ts'
import type { SliceDescription } from '../../src/service/slice.ts'
import type { Accepts } from '../../src/ticket/accepts.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import type { Principal, SigningKey } from '../../src/ticket/principal.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import { FaultyStore } from '../base/faulty-store.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { nodeAdvert } from '../broker/adverts.ts'
import { nodeLab, type NodeLab } from '../node/node-lab.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { HOUR, amounts, delegate, makeKey } from '../ticket/fixtures.ts'

/** What happens to a call: it does not reach the node, its reply is lost, or it never ends. */
export type CallFault = 'unreachable' | 'lost reply' | 'silent'

export interface Overlay {
  readonly clock: ManualClock
  readonly user: SigningKey
  readonly nodes: readonly NodeLab[]
  readonly agents: readonly { readonly key: SigningKey; readonly agent: Agent }[]
  readonly store: FaultyStore
  readonly services: ServiceManager
  /** Envelopes that the service manager saw. */
  readonly observed: Uint8Array[]
  /** Calls that reached a node, as `method name`. */
  readonly calls: string[]
  /** Memberships that the user shows, and the calls that showed them, as `method name`. */
  readonly shown: Uint8Array[]
  readonly showing: string[]
  /** Decides on each call of the user's to a node; by default nothing happens to any. */
  fault: (method: string, node: string) => CallFault | undefined
  /** Another process of the user's over the same disk. */
  restart(): Promise<Overlay>
  /** Leases of all nodes that hold something. */
  leases(): string[]
  /** Hands over each offer of each agent. */
  offers(onOffer: (offer: Offer) => void): Promise<void>
  /** What each agent may still grant of each node, once nodes have delegated what came free. */
  available(): Promise<Resources[]>
}

export const RETRY_MS = 10_000

export interface OverlayInit {
  readonly nodes: number
  readonly agents: number
  /** Whom the nodes lease to; everybody when absent. */
  readonly accepts?: Accepts
  /** Of the agents; they grant to anybody when absent. */
  readonly policy?: AgentPolicy
  /** What a node says of itself. */
  readonly says?: (index: number) => Partial<NodeAdvertisement>
}

type Base = Pick<Overlay, 'clock' | 'user' | 'nodes' | 'agents'>

/** Nodes are named n0, n1, …, and delegate all they have to the agents in equal shares. */
export async function overlay(init: OverlayInit): Promise<Overlay> {
  const clock = new ManualClock()
  const nodes = await Promise.all(
    Array.from({ length: init.nodes }, () =>
      nodeLab({ clock, ...(init.accepts === undefined ? {} : { accepts: init.accepts }) })
    )
  )
  // Among equals the broker chooses by id: n0 is in every slice.
  nodes.sort((a, b) => (a.key.principal < b.key.principal ? -1 : 1))
  if (init.says !== undefined) saidOf.set(nodes, init.says)
  const agents = await Promise.all(
    Array.from({ length: init.agents }, () => startAgent(nodes, clock, init.policy))
  )
  for (const { key, agent } of agents) {
    for (const node of nodes) {
      const { bytes } = delegate(node.key, key, { resources: amounts(10 / init.agents) })
      await localCaller(
        agentProtocol,
        agent.handlers(),
        node.key.principal
      )('delegate', { delegation: bytes })
    }
  }
  return withUser({ clock, nodes, agents, user: makeKey() }, await FaultyStore.open())
}

async function startAgent(
  nodes: readonly NodeLab[],
  clock: ManualClock,
  policy: AgentPolicy = { holders: 'anyone', durationMsMax: 4 * HOUR, rights: [] }
): Promise<{ key: SigningKey; agent: Agent }> {
  const key = makeKey()
  const agent = new Agent(
    {
      key,
      store: await FaultyStore.open(),
      clock,
      logger: silentLogger,
      advertOf: (principal) => adverts(nodes).find(({ body }) => body.issuer === principal),
      callNode: (principal) => nodeOf(nodes, principal).as(key.principal)
    },
    {
      policy,
      holdMs: 300_000,
      settleIntervalMs: 15_000
    }
  )
  await agent.start()
  return { key, agent }
}

let delegations = 1

/** Every node counts what it has not settled, and nothing else. */
async function delegateAnew({ nodes, agents }: Base, key: SigningKey, agent: Agent): Promise<void> {
  delegations += 1
  for (const node of nodes) {
    const out = agent.tickets().filter(({ node: of, state }) => of === node.key.principal && state === 'out')
    const counts = out.map(({ id }) => id).sort()
    const changes = { resources: amounts(10 / agents.length), seq: delegations, counts }
    const { bytes } = delegate(node.key, key, changes)
    const call = localCaller(agentProtocol, agent.handlers(), node.key.principal)
    await call('delegate', { delegation: bytes })
  }
}

function nodeOf(nodes: readonly NodeLab[], principal: Principal): NodeLab {
  const node = nodes.find(({ key }) => key.principal === principal)
  if (node === undefined) throw new TypeError('no such node')
  return node
}

const saidOf = new WeakMap<readonly NodeLab[], NonNullable<OverlayInit['says']>>()
const agentsOf = new WeakMap<readonly NodeLab[], readonly Principal[]>()
const signed = new WeakMap<NodeLab, ReturnType<typeof nodeAdvert>>()

/** Signed anew only when what is free changed: signing is dear. */
function adverts(nodes: readonly NodeLab[]): ReturnType<typeof nodeAdvert>[] {
  return nodes.map((node, index) => {
    const free = node.manager.free()
    const known = signed.get(node)
    if (known !== undefined && isDeepStrictEqual(known.body.free, free)) return known
    const agents = [...(agentsOf.get(nodes) ?? [])]
    const advert = nodeAdvert(node.key, { ...saidOf.get(nodes)?.(index), name: `n${index}`, free, agents })
    signed.set(node, advert)
    return advert
  })
}

async function withUser(base: Base, store: FaultyStore): Promise<Overlay> {
  const { clock, user, nodes, agents } = base
  agentsOf.set(
    nodes,
    agents.map(({ key }) => key.principal)
  )
  const agentOf = (principal: Principal): Caller<typeof agentProtocol.methods> => {
    const found = agents.find(({ key }) => key.principal === principal)
    if (found === undefined) throw new TypeError('no such agent')
    return localCaller(agentProtocol, found.agent.handlers(), user.principal)
  }
  const broker = new Broker({
    principal: user.principal,
    directory: {
      refresh: async () => 0,
      entries: () => adverts(nodes).map((advert) => ({ advert, via: 'gossip', receivedAt: clock.now() }))
    },
    clock,
    logger: silentLogger,
    callAgent: agentOf,
    memberships: () => made.shown
  })
  const made = {
    ...base,
    store,
    calls: [],
    observed: [],
    shown: [],
    showing: [],
    fault: () => undefined
  } as unknown as {
    -readonly [K in keyof Overlay]: Overlay[K]
  }
  const services = new ServiceManager(
    {
      key: user,
      store,
      broker,
      observe: (envelopes) => made.observed.push(...envelopes),
      memberships: () => made.shown,
      callNode: (principal) => faultyCaller(made, nodeOf(nodes, principal)),
      clock,
      random: systemRandom,
      logger: silentLogger
    },
    { retryMs: RETRY_MS }
  )
  await services.start()
  made.services = services
  made.leases = () => nodes.flatMap(({ manager }) => manager.table.holding().map(({ lease }) => lease.id))
  made.offers = async (onOffer) => {
    for (const { key } of agents) await agentOf(key.principal)('getAds', {}, { onItem: onOffer })
  }
  made.available = async () => {
    const available: Resources[] = []
    for (const { key, agent } of agents) {
      await delegateAnew(base, key, agent)
      await agentOf(key.principal)('getAds', {}, { onItem: (offer) => void available.push(offer.available) })
    }
    return available
  }
  made.restart = async () => {
    await services.stop()
    return withUser(base, await FaultyStore.open(store.disk))
  }
  return made
}

function faultyCaller(overlay: Overlay, node: NodeLab): Caller<typeof nodeProtocol.methods> {
  const name = `n${overlay.nodes.indexOf(node)}`
  const call = node.as(overlay.user.principal)
  return async (method, params, options) => {
    // A process that died calls nobody.
    if (overlay.store.isDead) throw new SlicenetError('PEER_UNREACHABLE', 'the process died')
    const fault = overlay.fault(method, name)
    if (fault === 'silent') await silence(options?.signal)
    if (fault === 'unreachable') throw new SlicenetError('PEER_UNREACHABLE', `${name} cannot be reached`)
    overlay.calls.push(`${method} ${name}`)
    if ('memberships' in params && isDeepStrictEqual(params.memberships, overlay.shown)) {
      overlay.showing.push(`${method} ${name}`)
    }
    const result = await call(method, params, options)
    if (fault === 'lost reply') throw new SlicenetError('PEER_UNREACHABLE', `${name} was lost midway`)
    return result
  }
}

/** Ends with its signal only. */
async function silence(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal?.aborted === true) reject(signal.reason as Error)
    signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
  })
}

export function slice(changes: Partial<SliceDescription> = {}): SliceDescription {
  const count = changes.count ?? 3
  return {
    name: 'mesh',
    count,
    minimum: count,
    resources: amounts(1),
    ports: [{ protocol: 'tcp' }],
    rights: [],
    leaseMs: HOUR,
    image: 'debian',
    program: { argv: ['mesh'], env: {} },
    files: [{ path: '/mesh.py', content: new Uint8Array(3), mode: 0o755 }],
    ...changes
  }
}
