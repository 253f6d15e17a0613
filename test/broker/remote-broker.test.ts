import test from 'ava'
import { LIMITS } from '../../src/base/limits.ts'
import { brokerHandlers } from '../../src/broker/broker-service.ts'
import { RemoteBroker } from '../../src/broker/remote-broker.ts'
import { brokerProtocol } from '../../src/protocol/broker-protocol.ts'
import type { Handlers } from '../../src/protocol/method.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { agentAdvert } from '../peer/fixtures/network.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { amounts, HOUR, makeKey, NOW } from '../ticket/fixtures.ts'
import { nodeAdvert } from './adverts.ts'
import { lab } from './broker-lab.ts'

/** Limits on silence do not keep a process alive; here they must. */
const alive = setInterval(() => {}, 1000)
test.after.always(() => clearInterval(alive))

type BrokerHandlers = Handlers<typeof brokerProtocol.methods>

const never = async (): Promise<never> => new Promise(() => {})
const want = { count: 2, minimum: 2, resources: amounts(1), ports: [], rights: [], durationMs: HOUR }

/** A broker elsewhere that answers as the test says. */
function remote(handlers: Partial<BrokerHandlers>, callMs = 60_000): RemoteBroker {
  const whole: BrokerHandlers = {
    getAds: async () => ({}),
    plan: async () => ({ satisfiable: false }),
    ...handlers
  }
  const call = localCaller(brokerProtocol, whole, makeKey().principal)
  return new RemoteBroker({ broker: makeKey().principal, call, clock: new ManualClock() }, { callMs })
}

const live = (key: SigningKey, changes: Partial<NodeAdvertisement> = {}) =>
  nodeAdvert(key, { notAfter: NOW + 60_000, ...changes })

const sending = (adverts: readonly Uint8Array[]): Pick<BrokerHandlers, 'getAds'> => ({
  async getAds(_, { emit }) {
    for (const advert of adverts) await emit({ advert })
    return {}
  }
})

test('a broker elsewhere is asked as ones own is', async (t) => {
  const one = await lab(3, 1)
  for (const [index, key] of one.nodes.entries()) {
    const agents = one.agents.map(({ principal }) => principal)
    one.adverts[index] = live(key, { name: `n${index}`, agents, seq: 9 })
  }
  const handlers = brokerHandlers({ clock: one.clock, brokerFor: () => one.broker })
  const broker = remote(handlers)
  const { found } = await broker.find('node.name != "n1"')
  t.deepEqual(
    found.map(({ advert, via }) => `${advert.body.name} ${via}`),
    ['n0 broker', 'n2 broker']
  )
  const plan = await broker.plan({ ...want, query: 'node.name != "n1"' })
  t.true(plan.satisfiable)
  t.deepEqual(plan.members.map(({ name }) => name).toSorted(), ['n0', 'n2'])
  t.deepEqual(
    plan.rejections.map(({ name, failed }) => `${name} ${failed.length}`),
    ['n1 1']
  )
  await t.throwsAsync(broker.find('node.'), { code: 'QUERY_INVALID' })
})

test('a forged advert makes nothing of the answer count', async (t) => {
  const honest = live(makeKey())
  const forged = Uint8Array.from(honest.bytes)
  forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 1
  const broker = remote(sending([live(makeKey()).bytes, forged]))
  await t.throwsAsync(broker.find(undefined), {
    code: 'PROTOCOL_ERROR',
    message: /advertisement that is none/
  })
  // The control: unaltered it is found.
  t.is((await remote(sending([honest.bytes])).find(undefined)).found.length, 1)
  const other = remote(sending([new Uint8Array([1, 2, 3])]))
  await t.throwsAsync(other.find(undefined), { code: 'PROTOCOL_ERROR' })
})

test('adverts that are over, too early, too long, of agents or do not match are passed over', async (t) => {
  const good = live(makeKey(), { name: 'good' })
  const { found } = await remote(
    sending([
      live(makeKey(), { notBefore: NOW - 1000, notAfter: NOW }).bytes,
      live(makeKey(), { notBefore: NOW + 10 * 60_000, notAfter: NOW + 11 * 60_000 }).bytes,
      live(makeKey(), { notAfter: NOW + LIMITS.advertLifetimeMsMax + 1 }).bytes,
      live(makeKey(), { leaving: true }).bytes,
      live(makeKey(), { name: 'bad' }).bytes,
      agentAdvert(makeKey()).bytes,
      good.bytes
    ])
  ).find('node.name == "good"')
  t.deepEqual(
    found.map(({ advert }) => advert.id),
    [good.id]
  )
})

test('of one node the newest advert counts, in whichever order they come', async (t) => {
  const key = makeKey()
  const adverts = [1, 3, 2].map((seq) => live(key, { seq }).bytes)
  const { found } = await remote(sending(adverts)).find(undefined)
  t.deepEqual(
    found.map(({ advert }) => advert.body.seq),
    [3]
  )
})

test('a member that no advert stands for is none, whatever the broker says', async (t) => {
  const [known, agent, ghost, stranger] = [makeKey(), makeKey(), makeKey(), makeKey()]
  const advert = live(known, { agents: [agent.principal], name: 'known' })
  const lying: Partial<BrokerHandlers> = {
    ...sending([advert.bytes]),
    async plan(_, { emit }) {
      await emit({ member: { node: ghost.principal, name: 'ghost', agent: agent.principal } })
      await emit({ member: { node: known.principal, name: 'alias', agent: agent.principal } })
      return { satisfiable: true }
    }
  }
  const plan = await remote(lying).plan(want)
  t.false(plan.satisfiable)
  t.is(plan.reason, '1 of 2 members could be had')
  t.deepEqual(plan.members, [{ node: known.principal, name: 'known', agent: agent.principal }])
  t.is(plan.rejections[0]?.node, ghost.principal)
  t.true((await remote(lying).plan({ ...want, minimum: 1 })).satisfiable)
  const unnamed = await remote({
    ...lying,
    async plan(_, { emit }) {
      await emit({ member: { node: known.principal, name: 'known', agent: stranger.principal } })
      return { satisfiable: true }
    }
  }).plan({ ...want, minimum: 1 })
  t.false(unnamed.satisfiable)
})

test('a broker that does not end is not heard to the end, and a silent one costs one wait', async (t) => {
  const { bytes } = live(makeKey())
  const endless = remote({
    async getAds(_, { emit }) {
      for (;;) await emit({ advert: bytes })
    }
  })
  await t.throwsAsync(endless.find(undefined), { code: 'PROTOCOL_ERROR', message: /too many adverts/ })
  const member = { node: makeKey().principal, name: 'x', agent: makeKey().principal }
  const crowding = remote({
    async plan(_, { emit }) {
      for (;;) await emit({ member })
    }
  })
  await t.throwsAsync(crowding.plan(want), { code: 'PROTOCOL_ERROR', message: /too many members/ })
  await t.throwsAsync(remote({ getAds: never }, 50).find(undefined), { name: 'TimeoutError' })
  const controller = new AbortController()
  const waiting = remote({ getAds: never }).find(undefined, { signal: controller.signal })
  controller.abort(new Error('enough'))
  await t.throwsAsync(waiting, { message: 'enough' })
})
