/** Members chosen by how far real peers find one another, over real streams, whatever coordinates and liars say. */
import { multiaddr } from '@multiformats/multiaddr'
import anyTest, { type ExecutionContext, type TestFn } from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { Broker } from '../../src/broker/broker.ts'
import { measureHandlers } from '../../src/peer/measure-handlers.ts'
import { roundTripMicros } from '../../src/peer/round-trips.ts'
import { agentProtocol } from '../../src/protocol/agent-protocol.ts'
import type { Plan, Want } from '../../src/protocol/broker-protocol.ts'
import { measureProtocol } from '../../src/protocol/measure-protocol.ts'
import type { Handlers } from '../../src/protocol/method.ts'
import { systemRandom } from '../../src/base/random.ts'
import type { Coordinate } from '../../src/ticket/coordinate.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { slowRoad } from '../peer/fixtures/slow-road.ts'
import { connect, newKey, nodeAdvert, startPeer, type TestPeer } from '../peer/fixtures/network.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { HOUR, amounts } from '../ticket/fixtures.ts'

/** One after the other: peers that share a busy process are far from one another. */
const test = (anyTest as TestFn<undefined>).serial

type AgentHandlers = Handlers<typeof agentProtocol.methods>
type MeasureHandlers = Handlers<typeof measureProtocol.methods>

const HERE: Coordinate = { vector: [0, 0, 0, 0], height: 100, error: 100 }
const ROAD_MS = 400

interface Overlay {
  readonly nodes: readonly TestPeer[]
  readonly plan: (want?: Partial<Want>) => Promise<Plan>
  readonly nameOf: (node: Principal) => string
  readonly asked: Principal[]
}

interface OverlayInit {
  /** What each node, by its number, says of where it is; by default that all are in one place. */
  readonly coordinates?: readonly (Coordinate | undefined)[]
  /** What a node answers instead of the truth. */
  readonly lies?: Readonly<Record<number, (truth: MeasureHandlers) => Partial<MeasureHandlers>>>
  /** Without it, estimates are all that the broker has. */
  readonly without?: 'pings'
}

/** Three nodes near one another and a fourth, `n3`, at the end of a slow road; an agent that offers of all. */
async function overlay(t: ExecutionContext, init: OverlayInit = {}): Promise<Overlay> {
  const [broker, ...nodes] = await Promise.all(Array.from({ length: 5 }, async () => startPeer(t)))
  if (broker === undefined) throw new TypeError('no broker')
  for (const [index, { host }] of nodes.entries()) {
    const truth = measureHandlers(
      {
        clock: systemClock,
        coordinate: () => HERE,
        ping: async (target, { signal }) =>
          host.connected().includes(target)
            ? roundTripMicros(
                { libp2p: () => host.libp2p, clock: systemClock, random: systemRandom },
                target,
                { count: 3, signal }
              )
            : null
      },
      { sink: false }
    )
    await host.serve(measureProtocol, { ...truth, ...init.lies?.[index]?.(truth) })
  }
  const far = nodes[3]
  const road = await slowRoad(t, far?.host.multiaddrs()[0] ?? '', ROAD_MS / 2)
  for (const [index, node] of nodes.slice(0, 3).entries()) {
    await node.host.libp2p.dial(multiaddr(road))
    for (const before of nodes.slice(0, index)) await connect(node, before)
  }
  for (const node of nodes) await connect(broker, node)
  const agent = newKey()
  const adverts = nodes.map(({ key }, index) => {
    const coordinate = init.coordinates === undefined ? HERE : init.coordinates[index]
    return nodeAdvert(key, {
      name: `n${index}`,
      agents: [agent.principal],
      capacity: amounts(10),
      free: amounts(10),
      ...(coordinate === undefined ? {} : { coordinate })
    })
  })
  const offering: Pick<AgentHandlers, 'getAds'> = {
    async getAds(_params, { emit }) {
      for (const { bytes } of adverts) {
        await emit({
          advert: bytes,
          available: amounts(10),
          until: Date.now() + 2 * HOUR,
          reliability: 1000
        })
      }
      return { ratings: [] }
    }
  }
  const asked: Principal[] = []
  const callMeasure = (node: Principal) => {
    asked.push(node)
    return broker.host.caller(measureProtocol, node)
  }
  const planning = new Broker({
    principal: broker.host.principal,
    directory: {
      refresh: async () => 0,
      entries: () => adverts.map((advert) => ({ advert, via: 'gossip' as const, receivedAt: Date.now() }))
    },
    clock: systemClock,
    logger: silentLogger,
    callAgent: () => localCaller(agentProtocol, offering as AgentHandlers, broker.host.principal),
    ...(init.without === 'pings' ? {} : { callMeasure })
  })
  const names = new Map(nodes.map(({ host }, index) => [host.principal, `n${index}`]))
  return {
    nodes,
    asked,
    nameOf: (node) => names.get(node) ?? node,
    plan: async (want = {}) =>
      planning.plan({
        count: 3,
        minimum: 3,
        resources: amounts(1),
        ports: [],
        rights: [],
        durationMs: HOUR,
        pairwise: `rtt_ms < ${ROAD_MS / 2}`,
        ...want
      })
  }
}

function members({ members: all }: Plan): string[] {
  return all.map(({ name }) => name).sort()
}

test('nodes that say to be near but are not are no members, as their pings show', async (t) => {
  const { plan, asked } = await overlay(t)
  const { satisfiable, ...rest } = await plan()
  t.true(satisfiable)
  t.deepEqual(members({ satisfiable, ...rest }), ['n0', 'n1', 'n2'])
  t.true(asked.length > 0)
  const four = await plan({ count: 4, minimum: 4 })
  t.false(four.satisfiable)
  t.true(JSON.stringify(four.rejections).includes('pings'), JSON.stringify(four.rejections))
})

test('without pings such a node would be taken by its word', async (t) => {
  const { plan, asked } = await overlay(t, { without: 'pings' })
  const four = await plan({ count: 4, minimum: 4 })
  t.true(four.satisfiable)
  t.deepEqual(asked, [])
})

test('a node that claims to be next to everybody is found out by the others', async (t) => {
  const { plan } = await overlay(t, {
    lies: { 3: () => ({ ping: async ({ targets }) => ({ rttMicros: targets.map(() => 1) }) }) }
  })
  t.false((await plan({ count: 4, minimum: 4 })).satisfiable)
  t.deepEqual(members(await plan()), ['n0', 'n1', 'n2'])
})

test('a node that answers no pings, or fails all of them, spoils nothing for others', async (t) => {
  for (const lie of [
    async () => {
      throw new Error('no')
    },
    async ({ targets }: { readonly targets: readonly Principal[] }) => ({
      rttMicros: targets.map(() => null)
    }),
    async () => ({ rttMicros: [] })
  ]) {
    const { plan } = await overlay(t, { lies: { 3: () => ({ ping: lie }) } })
    t.deepEqual(members(await plan()), ['n0', 'n1', 'n2'])
  }
})

test('a node without a coordinate is pinged when it is needed; without pings nothing is known of it', async (t) => {
  const coordinates = [HERE, HERE, undefined, HERE]
  const { plan } = await overlay(t, { coordinates })
  t.deepEqual(members(await plan()), ['n0', 'n1', 'n2'])
  const blind = await overlay(t, { coordinates, without: 'pings' })
  t.false(members(await blind.plan()).includes('n2'))
})

test('what pings gave is remembered for a while: to plan again asks nobody', async (t) => {
  const { plan, asked } = await overlay(t)
  await plan()
  const before = asked.length
  t.true(before > 0)
  await plan()
  t.is(asked.length, before)
})
