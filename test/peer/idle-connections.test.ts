import test from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { IdleConnections } from '../../src/peer/idle-connections.ts'
import { connect, startPeer, until } from './fixtures/network.ts'

test.serial('of many connections those that nobody uses are closed, the oldest first', async (t) => {
  const without = ['gossip', 'pull', 'dht'] as const
  const hub = await startPeer(t, { without })
  // Servers of a small DHT are each other's nearest, whom it keeps connected.
  const others = await Promise.all(
    Array.from({ length: 5 }, async () => startPeer(t, { without, dhtMode: 'client' }))
  )
  for (const other of others) await connect(other, hub)
  await until(() => hub.host.connected().length === 5, 'connected')
  const [first, second, third, ...rest] = others.map(({ key }) => key.principal)
  const later = { ...systemClock, now: () => Date.now() + 120_000 }
  const init = { libp2p: hub.host.libp2p, keptMax: 3 }
  const young = new IdleConnections({ clock: systemClock, logger: silentLogger }, init)
  await young.closeSome()
  t.is(hub.host.connected().length, 5, 'what has just been opened is not idle')
  const idle = new IdleConnections({ clock: later, logger: silentLogger }, init)
  idle.use(first ?? '?')
  await idle.closeSome()
  await until(() => hub.host.connected().length === 3, 'closed')
  t.deepEqual(new Set<string | undefined>(hub.host.connected()), new Set([first, ...rest]))
  t.false(hub.host.connected().includes(second ?? '?') || hub.host.connected().includes(third ?? '?'))
  await idle.closeSome()
  t.is(hub.host.connected().length, 3, 'and no more than must be')
})
