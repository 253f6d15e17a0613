import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createPeerHost } from '../../src/peer/host.ts'
import { KnownPeers } from '../../src/peer/known-peers.ts'
import { makePeer, newKey, startPeer, stopPeer, until } from './fixtures/network.ts'

async function directory(t: ExecutionContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'slicenet-peer-'))
  t.teardown(async () => rm(path, { recursive: true, force: true }))
  return path
}

test.serial('a restarted peer rejoins by the peers it knew, without a bootstrap peer', async (t) => {
  const stateDirectory = await directory(t)
  const [boot, other] = await Promise.all([startPeer(t), startPeer(t)])
  const bootstrap = [...boot.host.multiaddrs(), ...other.host.multiaddrs()]
  const peer = await startPeer(t, { bootstrap, stateDirectory })
  await until(async () => {
    const stored = await peer.host.libp2p.peerStore.get(other.host.libp2p.peerId).catch(() => undefined)
    return peer.host.connected().length === 2 && (stored?.protocols.length ?? 0) > 0
  }, 'joined')
  await stopPeer(peer)
  await stopPeer(boot)
  t.is((await stat(join(stateDirectory, 'known-peers.json'))).mode & 0o777, 0o600)

  const again = await startPeer(t, { key: peer.key, stateDirectory })
  await until(() => again.host.connected().includes(other.key.principal), 'rejoined')
  await stopPeer(again)
  // Without the file it stays alone.
  await rm(join(stateDirectory, 'known-peers.json'))
  const alone = await startPeer(t, { key: peer.key, stateDirectory })
  await systemClock.sleep(500)
  t.is(alone.host.connected().length, 0)
})

test.serial('a peer waits for a bootstrap peer that comes later, and for one that comes back', async (t) => {
  const boot = await startPeer(t)
  const [address = ''] = boot.host.multiaddrs()
  const listen = [address.replace(/\/p2p\/.*/, '')]
  await stopPeer(boot)
  const peer = await startPeer(t, { bootstrap: [address] })
  const later = await startPeer(t, { key: boot.key, listen })
  await until(() => peer.host.connected().length === 1, 'joined')
  await stopPeer(later)
  await until(() => peer.host.connected().length === 0, 'alone')
  await startPeer(t, { key: boot.key, listen })
  await until(() => peer.host.connected().length === 1, 'joined again')
  t.pass()
})

test.serial('a port in use is named', async (t) => {
  const peer = await startPeer(t)
  const [address = ''] = peer.host.multiaddrs()
  const listen = [address.replace(/\/p2p\/.*/, '')]
  const second = makePeer({ listen })
  const error = await t.throwsAsync(second.host.start(), { instanceOf: SlicenetError })
  t.is(error.code, 'PORT_IN_USE')
  t.true(error.message.includes(listen[0] ?? '?'))
  await stopPeer(peer)
  await second.host.start()
  t.is(second.host.multiaddrs().length, 1)
  await stopPeer(second)
})

test('bootstrap addresses must name their peer', (t) => {
  const components = { clock: systemClock, logger: silentLogger }
  for (const bootstrap of ['/ip4/127.0.0.1/tcp/4001', 'nonsense']) {
    const init = { key: newKey(), listen: [], bootstrap: [bootstrap], dhtMode: 'client' } as const
    const error = t.throws(() => createPeerHost(components, init), { instanceOf: SlicenetError })
    t.is(error.code, 'CONFIG_INVALID')
  }
})

test('known peers are bounded, the most recent first, and survive a damaged file', async (t) => {
  const file = join(await directory(t), 'known-peers.json')
  const logger = silentLogger
  const known = new KnownPeers({ logger }, { file })
  await known.load()
  const peers = Array.from({ length: LIMITS.knownPeersMax + 5 }, () => ({
    principal: newKey().principal,
    multiaddrs: ['/ip4/127.0.0.1/tcp/1']
  }))
  for (const peer of peers) await known.remember([peer])
  const again = new KnownPeers({ logger }, { file })
  await again.load()
  t.deepEqual(again.list(), peers.toReversed().slice(0, LIMITS.knownPeersMax))
  await writeFile(file, (await readFile(file, 'utf8')).slice(0, 100))
  const damaged = new KnownPeers({ logger }, { file })
  await damaged.load()
  t.deepEqual(damaged.list(), [])
})
