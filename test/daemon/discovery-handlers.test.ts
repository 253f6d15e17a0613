import test from 'ava'
import { silentLogger } from '../../src/base/log.ts'
import { Broker } from '../../src/broker/broker.ts'
import { createControlClient } from '../../src/daemon/control-client.ts'
import { discoveryHandlers } from '../../src/daemon/discovery-handlers.ts'
import { advertKey, AdvertTable } from '../../src/peer/advert-table.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { nodeAdvert } from '../broker/adverts.ts'
import { makeKey, NOW } from '../ticket/fixtures.ts'
import { serveControl } from './control-fixture.ts'

function parts() {
  const clock = new ManualClock()
  const table = new AdvertTable({ clock })
  const directory = {
    entries: () => table.entries(),
    get: (node: string) => table.get(advertKey(node, 'node')),
    on: table.on.bind(table),
    refresh: async () => 0
  }
  const proven = new Set<string>()
  const broker = new Broker({
    principal: makeKey().principal,
    directory,
    clock,
    logger: silentLogger,
    callAgent: () => async () => {
      throw new Error('no agent here')
    },
    isProven: (principal) => proven.has(principal)
  })
  return { clock, table, directory: directory as never, broker, proven }
}

test('a found node comes with how old the news of it is, and what is known of it', async (t) => {
  const one = parts()
  const key = makeKey()
  const advert = nodeAdvert(key, { notAfter: NOW + 600_000, rights: ['raw-socket'] })
  one.table.offer(advert.bytes, 'pull')
  await one.clock.advance(7000)
  await using control = await serveControl(discoveryHandlers(() => one))
  const call = createControlClient(control)
  const [node] = (await call('find', {})).nodes
  t.like(node, { id: key.principal, via: 'pull', receivedAt: NOW, ageMs: 7000, rights: ['raw-socket'] })
  t.is(node?.reliability, undefined)
  one.proven.add(key.principal)
  t.is((await call('find', {})).nodes[0]?.reliability, 0)
})

test('discovery streams what begins to match, and ends when the caller leaves', async (t) => {
  const one = parts()
  const key = makeKey()
  one.table.offer(nodeAdvert(key, { notAfter: NOW + 600_000 }).bytes, 'gossip')
  await using control = await serveControl(discoveryHandlers(() => one))
  const call = createControlClient(control)
  const controller = new AbortController()
  const seen: string[] = []
  const watching = call(
    'discover',
    { query: 'node.region == "eu"' },
    {
      signal: controller.signal,
      onItem({ event, node }) {
        seen.push(`${event} ${node.name}`)
        if (seen.length === 1)
          one.table.offer(nodeAdvert(makeKey(), { notAfter: NOW + 600_000, name: 'two' }).bytes, 'gossip')
        else controller.abort(new Error('enough'))
      }
    }
  )
  await t.throwsAsync(watching, { message: 'enough' })
  t.deepEqual(seen, ['match one', 'match two'])
  await t.throwsAsync(call('discover', { query: 'node.' }), { code: 'QUERY_INVALID' })
})
