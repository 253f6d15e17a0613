import test from 'ava'
import { directoryProtocol } from '../../src/protocol/directory-protocol.ts'
import { AdvertTable, keyOfAdvert } from '../../src/peer/advert-table.ts'
import { regionTopic } from '../../src/peer/topics.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { connect, newKey, nodeAdvert, startPeer, stopPeer, until } from './fixtures/network.ts'

const TOPIC = regionTopic('eu')

test.serial(
  'a node that died is gone at its agent long before its advert ends; without presence it stays',
  async (t) => {
    const [node, agent, careless] = await Promise.all([
      startPeer(t),
      startPeer(t, { collects: true }),
      startPeer(t, { collects: true, without: ['presence'] })
    ])
    const agents = [agent.key.principal, careless.key.principal]
    const advert = nodeAdvert(node.key, { agents, multiaddrs: node.host.multiaddrs() })
    for (const peer of [agent, careless]) await connect(node, peer)
    await node.directory.publish(advert, { topics: [], agents })
    for (const { directory } of [agent, careless]) t.truthy(directory.get(node.key.principal))
    const gone: string[] = []
    agent.directory.on('expire', (entry) => gone.push(entry.advert.body.issuer))
    await stopPeer(node)
    await until(() => agent.directory.get(node.key.principal) === undefined, 'gone')
    t.deepEqual(gone, [node.key.principal])
    t.truthy(careless.directory.get(node.key.principal))
    // Another that has not noticed does not bring it back.
    await connect(agent, careless)
    await agent.directory.refresh()
    t.is(agent.directory.get(node.key.principal), undefined)
  }
)

test.serial('a node whose connection broke and that answers stays', async (t) => {
  const [node, agent] = await Promise.all([startPeer(t), startPeer(t, { collects: true })])
  const advert = nodeAdvert(node.key, { agents: [agent.key.principal], multiaddrs: node.host.multiaddrs() })
  await connect(node, agent)
  await node.directory.publish(advert, { topics: [], agents: [agent.key.principal] })
  await agent.host.libp2p.hangUp(node.host.libp2p.peerId)
  await until(() => agent.host.connected().length > 0, 'called')
  t.truthy(agent.directory.get(node.key.principal))
})

test.serial(
  'who leaves in order is gone at once, with those who hear of it by exchange as well',
  async (t) => {
    const [node, near, far] = await Promise.all([
      startPeer(t),
      startPeer(t, { collects: true }),
      startPeer(t, { collects: true })
    ])
    for (const { directory } of [near, far]) directory.subscribe(TOPIC)
    await connect(node, near)
    const to = { topics: [TOPIC], agents: [near.key.principal] }
    await node.directory.publish(nodeAdvert(node.key), to)
    await connect(near, far)
    await until(() => far.directory.get(node.key.principal) !== undefined, 'known')
    await node.directory.publish(nodeAdvert(node.key, { leaving: true }), to)
    for (const { directory } of [near, far]) {
      await until(() => directory.get(node.key.principal) === undefined, 'gone')
    }
    const call = far.host.caller(directoryProtocol, near.key.principal)
    t.is((await call('about', {})).adverts, 1, 'it is still told to others')
    // Until it says more.
    await node.directory.publish(nodeAdvert(node.key), to)
    await until(() => far.directory.get(node.key.principal) !== undefined, 'back')
  }
)

test('of a table: a leaving, a loss and what comes after them', (t) => {
  const clock = new ManualClock(Date.now())
  const table = new AdvertTable({ clock })
  const told: string[] = []
  table.on('update', ({ advert }) => told.push(`update ${advert.body.seq}`))
  table.on('expire', ({ advert }) => told.push(`expire ${advert.body.seq}`))
  const key = newKey()
  const [first, leaving, back, other] = [
    nodeAdvert(key, { seq: 1 }),
    nodeAdvert(key, { seq: 2, leaving: true }),
    nodeAdvert(key, { seq: 3 }),
    nodeAdvert(newKey(), { leaving: true })
  ]
  const name = keyOfAdvert(first)
  table.offer(first.bytes, 'gossip')
  t.is(table.offer(leaving.bytes, 'gossip').verdict, 'new')
  t.is(table.offer(leaving.bytes, 'gossip').verdict, 'known')
  t.is(table.offer(first.bytes, 'pull').verdict, 'stale')
  t.deepEqual(table.entries(), [])
  t.is(table.held().length, 1)
  table.offer(back.bytes, 'pull')
  const entry = table.get(name)
  t.is(entry?.advert.id, back.id)
  if (entry === undefined) return
  table.lose(name, entry)
  t.is(table.offer(back.bytes, 'pull').verdict, 'known')
  t.is(table.get(name), undefined)
  t.is(table.held().length, 0, 'nobody is told what this peer alone has lost')
  table.offer(other.bytes, 'gossip')
  t.deepEqual(told, ['update 1', 'expire 1', 'update 3', 'expire 3'])
  const newest = nodeAdvert(key, { seq: 4 })
  table.offer(newest.bytes, 'gossip')
  table.lose(name, entry)
  t.is(table.get(name)?.advert.id, newest.id, 'what was heard since is not lost')
})
