import test from 'ava'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { systemRandom } from '../../src/base/random.ts'
import { RemoteBroker } from '../../src/broker/remote-broker.ts'
import { ComposedPeer, type PeerParts } from '../../src/daemon/compose.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { OtherBrokers } from '../../src/daemon/other-brokers.ts'
import { AdvertTable } from '../../src/peer/advert-table.ts'
import { brokerProtocol } from '../../src/protocol/broker-protocol.ts'
import type { Handlers } from '../../src/protocol/method.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { nodeAdvert } from '../broker/adverts.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { startOverlayNode } from '../sdk/fixtures/overlay-node.ts'
import { amounts, HOUR, makeKey, NOW } from '../ticket/fixtures.ts'
import { until } from '../peer/fixtures/network.ts'

type BrokerHandlers = Handlers<typeof brokerProtocol.methods>

interface Peer extends AsyncDisposable {
  readonly parts: PeerParts
  readonly address: string
}

async function startPeer(config: Record<string, unknown>): Promise<Peer> {
  const stateDirectory = await mkdtemp(join(tmpdir(), 'slicenet-broker-'))
  const peer = new ComposedPeer(
    {
      key: makeKey(),
      store: new MemoryStore(),
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger
    },
    {
      config: parseConfig(
        JSON.stringify({ name: 'peer', listen: ['/ip4/127.0.0.1/tcp/0'], bootstrap: [], ...config }),
        'test'
      ),
      stateDirectory,
      imagesDirectory: join(stateDirectory, 'images'),
      shortLived: false
    }
  )
  await peer.start()
  const address = peer.parts.host.multiaddrs().find((one) => one.startsWith('/ip4/127.0.0.1/')) ?? ''
  return {
    parts: peer.parts,
    address,
    async [Symbol.asyncDispose]() {
      await peer.stop()
      await rm(stateDirectory, { recursive: true, force: true })
    }
  }
}

const want = {
  count: 1,
  minimum: 1,
  resources: {
    cpuMillis: 1,
    cpuMillisMax: 1,
    memoryBytes: 1,
    diskBytes: 1,
    egressBps: 1,
    egressBpsMax: 1,
    egressBytesPerDay: 1,
    pids: 1
  },
  ports: [],
  rights: [],
  durationMs: 60_000
}

test.serial('a broker peer is found in the DHT, and finds and plans for whoever asks', async (t) => {
  await using node = await startOverlayNode({ name: 'node1' })
  await using broker = await startPeer({ bootstrap: [node.address], broker: {} })
  await using user = await startPeer({ bootstrap: [broker.address], brokers: 'any' })
  const { principal } = broker.parts.host
  await until(() => broker.parts.directory.get(node.principal, 'node') !== undefined, 'the broker hears')
  await until(
    async () => (await user.parts.directory.findBrokers()).includes(principal),
    'the broker is named'
  )
  const plan = await user.parts.otherBrokers.plan(want, undefined)
  t.deepEqual(
    plan.members.map(({ name, agent }) => `${name} ${agent === node.principal}`),
    ['node1 true']
  )
  t.is(node.leases(), 0)
  const remote = new RemoteBroker({
    broker: principal,
    call: user.parts.host.caller(brokerProtocol, principal),
    clock: systemClock
  })
  t.is((await remote.find('node.name == "node1"')).found.length, 1)
  t.is((await remote.find('node.name == "node2"')).found.length, 0)
})

test.serial(
  'a broker works for those that its configuration names, and a peer without the role for nobody',
  async (t) => {
    await using broker = await startPeer({ broker: { callers: [makeKey().principal] } })
    await using user = await startPeer({ bootstrap: [broker.address], brokers: [broker.address] })
    const asked = user.parts.otherBrokers.plan(want, broker.parts.host.principal)
    await t.throwsAsync(asked, { code: 'DENIED' })
    const other = broker.parts.otherBrokers.plan(want, user.parts.host.principal)
    await t.throwsAsync(other, { code: 'PROTOCOL_ERROR', message: /does not serve/ })
    await t.throwsAsync(user.parts.otherBrokers.plan(want, user.parts.host.principal), { code: 'USAGE' })
    await t.notThrowsAsync(user.parts.broker.find(undefined), 'what brokers refuse is no failure of ones own')
  }
)

/** A researcher that asks these brokers, and the table that it learns into. */
function asking(brokers: Readonly<Record<Principal, Partial<BrokerHandlers>>>) {
  const clock = new ManualClock()
  const table = new AdvertTable({ clock })
  const others = new OtherBrokers(
    {
      host: {
        principal: makeKey().principal,
        addAddresses: async () => {},
        caller: (_protocol: unknown, broker: Principal) => {
          const handlers = {
            getAds: async () => ({}),
            plan: async () => ({ satisfiable: false }),
            ...brokers[broker]
          }
          return localCaller(brokerProtocol, handlers, makeKey().principal) as never
        }
      },
      directory: {
        findBrokers: async () => [],
        learn: (bytes) => void table.offer(bytes, 'pull')
      },
      clock,
      logger: silentLogger
    },
    { brokers: Object.keys(brokers).map((broker) => `/ip4/127.0.0.1/tcp/1/p2p/${broker}`) }
  )
  return { others, table }
}

test('what brokers know is learnt, of the liars nothing, and the silent keep nobody', async (t) => {
  const honest = nodeAdvert(makeKey(), { notAfter: NOW + 60_000, name: 'honest' })
  const forged = Uint8Array.from(nodeAdvert(makeKey(), { notAfter: NOW + 60_000, name: 'forged' }).bytes)
  forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 1
  const sends = (bytes: Uint8Array): Partial<BrokerHandlers> => ({
    async getAds(_, { emit }) {
      await emit({ advert: bytes })
      return {}
    }
  })
  const controller = new AbortController()
  const { others, table } = asking({
    [makeKey().principal]: sends(honest.bytes),
    [makeKey().principal]: sends(forged),
    [makeKey().principal]: {
      async getAds() {
        await until(() => table.entries().length > 0, 'the honest one is heard')
        controller.abort(new Error('enough'))
        return new Promise(() => {})
      }
    }
  })
  await t.throwsAsync(others.ask(undefined, { signal: controller.signal }), { message: 'enough' })
  t.deepEqual(
    table.entries().map(({ advert }) => advert.body.name),
    ['honest']
  )
})

test('a plan is asked of the next broker when one does not answer', async (t) => {
  const agent = makeKey()
  const key = makeKey()
  const advert = nodeAdvert(key, { notAfter: NOW + 60_000, agents: [agent.principal], name: 'n' })
  const { others } = asking({
    [makeKey().principal]: {
      getAds: async () => {
        throw new Error('out of order')
      }
    },
    [makeKey().principal]: {
      async getAds(_, { emit }) {
        await emit({ advert: advert.bytes })
        return {}
      },
      async plan(_, { emit }) {
        await emit({ member: { node: key.principal, name: 'n', agent: agent.principal } })
        return { satisfiable: true }
      }
    }
  })
  const plan = await others.plan({ ...want, resources: amounts(1), durationMs: HOUR }, undefined)
  t.true(plan.satisfiable)
})
