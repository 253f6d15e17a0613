import test, { type ExecutionContext } from 'ava'
import type { Principal } from '../../src/ticket/principal.ts'
import { agentAdvert, newKey, nodeAdvert, startPeer, until, type TestPeer } from './fixtures/network.ts'
import { startSybils } from './fixtures/sybil.ts'

test.beforeEach((t) => t.timeout(180_000))

const WITHOUT = ['gossip'] as const
const recordKey = (principal: Principal): Uint8Array => Buffer.from(`/slicenet-ad/${principal}/node`)

interface Overlay {
  readonly node: TestPeer
  readonly agent: TestPeer
  readonly seekers: readonly TestPeer[]
  readonly asked: () => number
}

/** An overlay of honest peers and Sybils that sit around the key of a node's record. */
async function overlay(
  t: ExecutionContext,
  init: { readonly honest: number; readonly sybils: number }
): Promise<Overlay> {
  const boot = await startPeer(t, { without: WITHOUT })
  const bootstrap = boot.host.multiaddrs()
  const [nodeKey, agentKey] = [newKey(), newKey()]
  const sybils = await startSybils(t, {
    count: init.sybils,
    near: [recordKey(nodeKey.principal)],
    bootstrap
  })
  const honest = await Promise.all(
    Array.from({ length: init.honest - 1 }, async (_one, index) =>
      startPeer(t, {
        without: WITHOUT,
        bootstrap,
        collects: index !== 0,
        ...(index === 0 ? { key: nodeKey } : index === 1 ? { key: agentKey } : {})
      })
    )
  )
  const [node, agent, ...seekers] = honest
  if (node === undefined || agent === undefined) throw new TypeError('too few honest peers')
  return { node, agent, seekers, asked: sybils.asked }
}

/** How many of the seekers find the node's advert by its key, and the agent by its topic. */
async function found(t: ExecutionContext, { node, agent, seekers, asked }: Overlay) {
  const multiaddrs = node.host.multiaddrs()
  await node.directory.publish(nodeAdvert(node.key, { multiaddrs }), { topics: [], agents: [] })
  await agent.directory.publish(agentAdvert(agent.key, { multiaddrs: agent.host.multiaddrs() }), {
    topics: [],
    agents: []
  })
  agent.directory.announceAgent()
  const tries = await Promise.all(
    seekers.map(async ({ directory }) => {
      // Nobody learns of either but through the DHT: they ask nobody for adverts before they have found the agent.
      const byKey = await eventually(async () => {
        const entry = await directory.lookup(node.key.principal, { role: 'node' })
        return entry !== undefined
      })
      const byTopic = await eventually(async () =>
        (await directory.findAgents()).includes(agent.key.principal)
      )
      return { byKey, byTopic }
    })
  )
  t.log(`${asked()} questions went to Sybils`)
  return {
    byKey: tries.filter(({ byKey }) => byKey).length,
    byTopic: tries.filter(({ byTopic }) => byTopic).length,
    asked: asked()
  }
}

/** Several tries, as a caller has who asks again: the record may not be there yet, or a busy machine be late. */
async function eventually(attempt: () => Promise<boolean>): Promise<boolean> {
  for (let tries = 0; tries < 8; tries++) if (await attempt().catch(() => false)) return true
  return false
}

test.serial('a fifth of the DHT being Sybils around a key, the honest find what is there', async (t) => {
  const some = await overlay(t, { honest: 12, sybils: 3 })
  const { byKey, byTopic, asked } = await found(t, some)
  t.is(byKey, some.seekers.length)
  t.is(byTopic, some.seekers.length)
  t.true(asked > 0)
})

test.serial('where all whom a peer can ask are Sybils, nothing is found, and the search ends', async (t) => {
  const seeker = await startPeer(t, { without: WITHOUT, collects: true })
  const wanted = newKey().principal
  await startSybils(t, { count: 4, near: [recordKey(wanted)], bootstrap: seeker.host.multiaddrs() })
  await until(() => seeker.host.connected().length === 4, 'all four are there')
  const entry = await seeker.directory.lookup(wanted, { role: 'node' }).catch(() => undefined)
  t.is(entry, undefined)
  t.deepEqual(await seeker.directory.findAgents(), [])
  t.is(seeker.directory.entries().length, 0)
})
