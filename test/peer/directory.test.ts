import test, { type ExecutionContext } from 'ava'
import { peerIdFromString } from '@libp2p/peer-id'
import { SlicenetError } from '../../src/base/errors.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { directoryProtocol } from '../../src/protocol/directory-protocol.ts'
import {
  AGENTS_TOPIC,
  PROOFS_TOPIC,
  indexTopic,
  organisationTopic,
  regionTopic
} from '../../src/peer/topics.ts'
import { NO_RULES } from '../../src/peer/overlay-rules.ts'
import {
  agentAdvert,
  connect,
  makePeer,
  newKey,
  nodeAdvert,
  startPeer,
  stopPeer,
  until,
  type TestPeer
} from './fixtures/network.ts'

const TOPIC = regionTopic('eu')

test.serial(
  'gossip alone: a node that listens to nothing reaches those who listen, and no others',
  async (t) => {
    const without = ['pull', 'dht'] as const
    const [node, near, far, deaf] = await Promise.all([
      startPeer(t, { without }),
      startPeer(t, { without, collects: true }),
      startPeer(t, { without, collects: true }),
      startPeer(t, { without })
    ])
    for (const { directory } of [near, far]) directory.subscribe(TOPIC)
    await connect(node, near)
    await connect(near, far)
    await connect(node, deaf)
    const advert = nodeAdvert(node.key)
    await node.directory.publish(advert, { topics: [TOPIC], agents: [] })
    for (const { directory } of [near, far]) {
      await until(() => directory.get(node.key.principal)?.advert.id === advert.id, 'heard of')
      t.is(directory.get(node.key.principal)?.via, 'gossip')
    }
    t.is(deaf.directory.entries().length, 0)
    t.deepEqual(node.host.libp2p.services.pubsub.getTopics(), [PROOFS_TOPIC])
  }
)

test.serial('gossip alone: one advert goes to several topics, and to who comes late', async (t) => {
  const without = ['pull', 'dht'] as const
  const [node, ofRegion, ofOrganisation] = await Promise.all([
    startPeer(t, { without }),
    startPeer(t, { without, collects: true }),
    startPeer(t, { without, collects: true })
  ])
  const topics = [TOPIC, organisationTopic('Ünı/1')]
  const advert = nodeAdvert(node.key)
  await t.notThrowsAsync(node.directory.publish(advert, { topics, agents: [] }))
  await connect(node, ofRegion)
  await connect(node, ofOrganisation)
  ofRegion.directory.subscribe(TOPIC)
  ofOrganisation.directory.subscribe(topics[1] ?? '')
  for (const { directory } of [ofRegion, ofOrganisation]) {
    await until(() => directory.get(node.key.principal)?.via === 'gossip', 'heard of')
  }
})

test.serial(
  'gossip: what was quicker by another way is passed on, on the topics that it is meant for',
  async (t) => {
    const without = ['pull', 'dht'] as const
    const [node, middle, end] = await Promise.all([
      startPeer(t, { without }),
      startPeer(t, { without, collects: true }),
      startPeer(t, { without, collects: true })
    ])
    const foreign = regionTopic('elsewhere')
    for (const { directory } of [middle, end])
      for (const topic of [TOPIC, foreign]) directory.subscribe(topic)
    await connect(node, middle)
    await connect(middle, end)
    const pubsub = middle.host.libp2p.services.pubsub as unknown as { getMeshPeers(topic: string): string[] }
    const mesh = (topic: string): number => pubsub.getMeshPeers(topic).length
    await until(() => mesh(TOPIC) > 0 && mesh(foreign) > 0, 'meshed')
    const heard: [id: string, via: string][] = []
    end.directory.on('update', ({ advert, via }) => heard.push([advert.id, via]))
    const attributes = { region: 'eu' }
    const [astray, meant] = [nodeAdvert(node.key, { attributes }), nodeAdvert(node.key, { attributes })]
    middle.directory.learn(astray.bytes)
    await node.directory.publish(astray, { topics: [foreign], agents: [] })
    middle.directory.learn(meant.bytes)
    await node.directory.publish(meant, { topics: [TOPIC], agents: [] })
    await until(() => heard.length > 0, 'heard of')
    t.deepEqual(heard, [[meant.id, 'gossip']])
    t.is(middle.directory.get(node.key.principal)?.via, 'pull')
  }
)

test.serial('gossip: what is forged goes no further, and silences its sender', async (t) => {
  const without = ['pull', 'dht'] as const
  const [bad, middle, end] = await Promise.all([
    startPeer(t, { without }),
    startPeer(t, { without, collects: true }),
    startPeer(t, { without, collects: true })
  ])
  for (const { directory } of [middle, end]) directory.subscribe(TOPIC)
  await connect(bad, middle)
  await connect(middle, end)
  const { pubsub } = bad.host.libp2p.services
  await until(() => pubsub.getSubscribers(TOPIC).length > 0, 'a listener')
  const stranger = newKey()
  const scorer = middle.host.libp2p.services.pubsub as unknown as {
    getScore(peer: string): number
    acceptFrom(peer: string): boolean
  }
  // What an honest peer may send as well costs nothing: one for which this clock is late.
  await pubsub.publish(TOPIC, nodeAdvert(stranger, { seq: 1, notBefore: 1, notAfter: 1000 }).bytes)
  t.true(scorer.getScore(bad.key.principal) >= 0)
  for (let i = 0; i < 6; i++) {
    const forged = Uint8Array.from(nodeAdvert(stranger).bytes)
    forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1
    await pubsub.publish(TOPIC, forged)
  }
  await until(() => !scorer.acceptFrom(bad.key.principal), 'silenced')
  const other = nodeAdvert(middle.key)
  await middle.directory.publish(other, { topics: [TOPIC], agents: [] })
  await until(() => end.directory.get(middle.key.principal) !== undefined, 'the way is open')
  for (const { directory } of [middle, end]) t.is(directory.get(stranger.principal), undefined)
  // What may be forwarded is there: the peer's own message alone.
  const { mcache } = middle.host.libp2p.services.pubsub as unknown as {
    mcache: { msgs: Map<string, unknown> }
  }
  t.is(mcache.msgs.size, 1)
})

/** Messages that a peer holds, and would forward, after one of a foreign topic, a huge one and a good one. */
async function heldAfterFlood(t: ExecutionContext, bad: TestPeer, victim: TestPeer): Promise<number> {
  victim.directory.subscribe(TOPIC)
  await connect(bad, victim)
  const pubsub = bad.host.libp2p.services.pubsub as unknown as {
    sendRpc(peer: string, rpc: object): boolean
  }
  const send = (topic: string, data: Uint8Array): boolean =>
    pubsub.sendRpc(victim.key.principal, { subscriptions: [], messages: [{ topic, data }] })
  const advert = nodeAdvert(newKey())
  const heard = nodeAdvert(newKey())
  await until(() => send('elsewhere', advert.bytes), 'sent')
  await until(() => send(TOPIC, new Uint8Array(LIMITS.objectBytesMax + 1)), 'sent')
  await until(() => send(TOPIC, heard.bytes), 'sent')
  await until(() => victim.directory.get(heard.body.issuer) !== undefined, 'heard')
  t.is(victim.directory.get(advert.body.issuer), undefined)
  const { mcache } = victim.host.libp2p.services.pubsub as unknown as {
    mcache: { msgs: Map<string, unknown> }
  }
  return mcache.msgs.size
}

test.serial(
  'gossip: messages of foreign topics are dropped unread; without the rule they are held',
  async (t) => {
    const without = ['pull', 'dht'] as const
    const careless = makePeer({ without, collects: true })
    careless.host.useRules({ ...NO_RULES, acceptsMessage: () => true })
    t.teardown(async () => stopPeer(careless))
    await careless.host.start()
    await careless.directory.start()
    const bad = await startPeer(t, { without })
    const careful = await startPeer(t, { without, collects: true })
    t.is(await heldAfterFlood(t, bad, careful), 1)
    t.is(await heldAfterFlood(t, bad, careless), 2)
  }
)

test.serial('pull alone: peers that meet tell each other what they know', async (t) => {
  const without = ['gossip', 'dht'] as const
  const [node, agent, broker] = await Promise.all([
    startPeer(t, { without }),
    startPeer(t, { without, collects: true }),
    startPeer(t, { without, collects: true })
  ])
  const own = nodeAdvert(node.key)
  await node.directory.publish(own, { topics: [TOPIC], agents: [] })
  await connect(node, agent)
  await until(() => agent.directory.get(node.key.principal)?.via === 'direct', 'pulled from the node')
  const agents = agentAdvert(agent.key)
  await agent.directory.publish(agents, { topics: [AGENTS_TOPIC], agents: [] })
  await connect(broker, agent)
  await until(() => broker.directory.entries().length === 2, 'pulled from the agent')
  t.is(broker.directory.get(node.key.principal)?.via, 'pull')
  t.is(node.directory.entries().length, 1)
})

test.serial('pull alone: what changed meanwhile comes at the next round, and in several pages', async (t) => {
  const without = ['gossip', 'dht'] as const
  const [one, other] = await Promise.all([
    startPeer(t, { without, collects: true, pullIntervalMs: 200 }),
    startPeer(t, { without, collects: true, pullIntervalMs: 600_000 })
  ])
  await connect(one, other)
  const strangers = Array.from({ length: LIMITS.advertsPerMessageMax + 50 }, () => nodeAdvert(newKey()))
  const fill = async (adverts: typeof strangers): Promise<void> => {
    const call = one.host.caller(directoryProtocol, other.host.principal)
    for (let at = 0; at < adverts.length; at += 10) {
      await call('publish', { adverts: adverts.slice(at, at + 10).map(({ bytes }) => bytes) })
    }
  }
  await fill(strangers)
  await until(() => one.directory.entries().length === strangers.length, 'all came')
  t.true(one.directory.entries().every(({ via }) => via === 'pull'))
})

test.serial('pull: each side of one exchange gets what it lacks', async (t) => {
  const without = ['gossip', 'dht'] as const
  const [one, other] = await Promise.all([
    startPeer(t, { without, collects: true }),
    startPeer(t, { without, collects: true })
  ])
  await connect(one, other)
  await one.directory.publish(agentAdvert(one.key), { topics: [], agents: [] })
  await other.directory.publish(agentAdvert(other.key), { topics: [], agents: [] })
  await until(async () => {
    // The first may join the exchange that began as they met, before there was anything to tell.
    await one.directory.refresh()
    return one.directory.entries().length === 2 && other.directory.entries().length === 2
  }, 'both know both')
  t.is(one.directory.get(other.key.principal)?.via, 'direct')
  t.is(other.directory.get(one.key.principal)?.via, 'direct')
})

test.serial(
  'pull: a peer that gathers what it listens to is sent that, and adverts of its own nodes',
  async (t) => {
    const without = ['gossip', 'dht'] as const
    const [agent, all] = await Promise.all([
      startPeer(t, { without, collects: true, onlyTopics: true }),
      startPeer(t, { without, collects: true })
    ])
    agent.directory.subscribe(TOPIC)
    const [near, far, ours, another] = [
      nodeAdvert(newKey(), { attributes: { region: 'eu' } }),
      nodeAdvert(newKey(), { attributes: { region: 'us', organisation: 'lab' } }),
      nodeAdvert(newKey(), { attributes: { region: 'us' }, agents: [agent.key.principal] }),
      agentAdvert(newKey())
    ]
    await agent.host.addAddresses(all.host.principal, all.host.multiaddrs())
    const push = agent.host.caller(directoryProtocol, all.host.principal)
    await push('publish', { adverts: [near, far, ours, another].map(({ bytes }) => bytes) })
    const issuers = (): string[] => agent.directory.entries().map(({ advert }) => advert.body.issuer)
    await until(async () => {
      await agent.directory.refresh()
      return issuers().length > 0
    }, 'pulled')
    t.deepEqual(issuers().sort(), [near.body.issuer, ours.body.issuer].sort())
    agent.directory.subscribe(organisationTopic('lab'))
    await until(() => issuers().includes(far.body.issuer), 'asked for as soon as it matters')
    t.false(issuers().includes(another.body.issuer))
  }
)

test.serial('a node pushes its advert to its agents, whether they are there or not', async (t) => {
  const without = ['gossip', 'dht'] as const
  const [node, agent] = await Promise.all([
    startPeer(t, { without }),
    startPeer(t, { without, collects: true })
  ])
  await node.host.addAddresses(agent.host.principal, agent.host.multiaddrs())
  const advert = nodeAdvert(node.key)
  await node.host.addAddresses(newKey().principal, ['/ip4/127.0.0.1/tcp/1'])
  await node.directory.publish(advert, { topics: [], agents: [agent.key.principal, node.key.principal] })
  t.is(agent.directory.get(node.key.principal)?.via, 'direct')
})

test.serial('pushed adverts are checked; a peer that does not collect refuses them', async (t) => {
  const without = ['gossip', 'dht'] as const
  const [one, collector, node] = await Promise.all([
    startPeer(t, { without }),
    startPeer(t, { without, collects: true }),
    startPeer(t, { without })
  ])
  for (const { host } of [collector, node]) await one.host.addAddresses(host.principal, host.multiaddrs())
  const good = nodeAdvert(newKey())
  const forged = Uint8Array.from(good.bytes)
  forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1
  const push = one.host.caller(directoryProtocol, collector.host.principal)
  t.deepEqual(await push('publish', { adverts: [forged, good.bytes, good.bytes] }), { accepted: 1 })
  const refused = one.host.caller(directoryProtocol, node.host.principal)
  const error = await t.throwsAsync(refused('publish', { adverts: [good.bytes] }), {
    instanceOf: SlicenetError
  })
  t.is(error.code, 'DENIED')
})

test.serial('the DHT alone: a peer is found by its key, by one that never met it', async (t) => {
  const without = ['gossip', 'pull'] as const
  const boot = await startPeer(t, { without })
  const bootstrap = boot.host.multiaddrs()
  const [node, seeker, ...others] = await Promise.all(
    Array.from({ length: 5 }, async () => startPeer(t, { without, bootstrap }))
  )
  if (node === undefined || seeker === undefined) throw new Error('five were asked for')
  const advert = nodeAdvert(node.key, { multiaddrs: node.host.multiaddrs() })
  await node.directory.publish(advert, { topics: [], agents: [] })
  await until(async () => {
    const found = await seeker.directory.lookup(node.key.principal, { role: 'node' }).catch(() => undefined)
    return found?.advert.id === advert.id
  }, 'found')
  t.is(seeker.directory.get(node.key.principal)?.via, 'dht')
  t.is(others.length, 3)
  t.is(boot.directory.entries().length, 0)
})

test.serial('the DHT alone: agents are found by their topics', async (t) => {
  const boot = await startPeer(t, { without: ['gossip'] })
  const bootstrap = boot.host.multiaddrs()
  const [agent, broker] = await Promise.all([
    startPeer(t, { without: ['gossip'], bootstrap, collects: true }),
    startPeer(t, { without: ['gossip'], bootstrap, collects: true, dhtMode: 'client', listen: [] })
  ])
  await agent.directory.publish(agentAdvert(agent.key), { topics: [], agents: [] })
  agent.directory.announceAgent([TOPIC])
  for (const topic of [AGENTS_TOPIC, TOPIC]) {
    await until(async () => {
      const found = await broker.directory.findAgents({ topic })
      return found.includes(agent.key.principal)
    }, `found under ${topic}`)
  }
  t.is(broker.directory.get(agent.key.principal, 'agent')?.advert.body.role, 'agent')
  t.true(broker.host.libp2p.getConnections(peerIdFromString(agent.key.principal)).length > 0)
})

test.serial('the DHT alone: agents are found by what their nodes meet', async (t) => {
  const boot = await startPeer(t, { without: ['gossip'] })
  const bootstrap = boot.host.multiaddrs()
  const [eu, both, seeker] = await Promise.all([
    startPeer(t, { without: ['gossip'], bootstrap, collects: true }),
    startPeer(t, { without: ['gossip'], bootstrap, collects: true }),
    startPeer(t, { without: ['gossip'], bootstrap })
  ])
  eu.directory.announceAgent([indexTopic('region=eu')])
  both.directory.announceAgent([indexTopic('region=eu'), indexTopic('cpu>=4000')])
  const found = async (...demands: string[][]): Promise<string> =>
    (await seeker.directory.findIndexed(demands)).toSorted().join(' ')
  const all = [eu, both]
    .map(({ host }) => host.principal)
    .toSorted()
    .join(' ')
  await until(async () => (await found(['region=eu'])) === all, 'both are found by the region')
  // The agent has a node of either, whether one of both is for its adverts to say.
  await until(async () => (await found(['region=eu'], ['cpu>=4000'])) === both.host.principal, 'one by both')
  t.is(await found(['region=us', 'cpu>=4000']), both.host.principal)
  t.is(await found(['region=us']), '')
  both.directory.announceAgent()
  const own = both.host.libp2p.services.dht as unknown as {
    providers: { getProviders(cid: unknown): Promise<unknown[]> }
  }
  t.truthy(own.providers)
})

test.serial('a peer that takes calls and never answers keeps nobody waiting for the others', async (t) => {
  const without = ['gossip', 'dht'] as const
  const [seeker, good, mute] = await Promise.all([
    startPeer(t, { without }),
    startPeer(t, { without, collects: true }),
    startPeer(t, { without: ['gossip', 'dht', 'pull'] })
  ])
  const silence = async (): Promise<never> => new Promise(() => {})
  await mute.host.serve(directoryProtocol, {
    about: silence,
    pull: silence,
    publish: silence,
    proofs: silence,
    getProofs: silence,
    giveProof: silence
  })
  await good.directory.publish(agentAdvert(good.key), { topics: [], agents: [] })
  await connect(seeker, good)
  await connect(seeker, mute)
  await seeker.directory.refresh()
  t.not(seeker.directory.get(good.key.principal), undefined)
  // It was asked as well, and is not done with.
  t.true(seeker.host.connected().includes(mute.key.principal))
})

test.serial('a caller finds the address of a node in its advert', async (t) => {
  const without = ['gossip', 'dht'] as const
  const [node, agent, broker] = await Promise.all([
    startPeer(t, { without }),
    startPeer(t, { without, collects: true }),
    startPeer(t, { without, collects: true })
  ])
  const advert = nodeAdvert(node.key, { multiaddrs: node.host.multiaddrs() })
  await node.directory.publish(advert, { topics: [], agents: [] })
  await connect(node, agent)
  await connect(broker, agent)
  await until(() => broker.directory.get(node.key.principal) !== undefined, 'known')
  const call = broker.host.caller(directoryProtocol, node.key.principal)
  t.deepEqual(await call('about', {}), { collects: false, adverts: 1 })
})
