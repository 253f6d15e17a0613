import { generateKeyPair } from '@libp2p/crypto/keys'
import type { PeerId, PeerStore } from '@libp2p/interface'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import test from 'ava'
import { createLibp2p } from 'libp2p'
import { LIMITS } from '../../src/base/limits.ts'
import { BoundedDatastore } from '../../src/peer/bounded-datastore.ts'
import { cachePeers } from '../../src/peer/peer-cache.ts'
import { ManualClock } from '../base/manual-clock.ts'

const PROTOCOLS = ['/slicenet/directory/1.0.0', '/slicenet/kad/1.0.0']
const ADDRESS = multiaddr('/ip4/198.18.0.1/tcp/4001')

class CountingDatastore extends BoundedDatastore {
  reads = 0
  writes = 0

  override get(...arguments_: Parameters<BoundedDatastore['get']>): Uint8Array {
    this.reads += 1
    return super.get(...arguments_)
  }

  override put(...arguments_: Parameters<BoundedDatastore['put']>): ReturnType<BoundedDatastore['put']> {
    this.writes += 1
    return super.put(...arguments_)
  }
}

async function newPeer(): Promise<PeerId> {
  return peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
}

/** libp2p's own store, over a datastore that counts. */
async function peerStore(options: { cached: boolean } = { cached: true }) {
  const datastore = new CountingDatastore({ maxima: { '': 10_000 }, pinned: new Set() })
  const { peerStore: store } = await createLibp2p({ start: false, datastore })
  const clock = new ManualClock()
  if (options.cached) cachePeers(store, { clock })
  const peer = await newPeer()
  await store.merge(peer, { protocols: PROTOCOLS, multiaddrs: [ADDRESS] })
  datastore.reads = 0
  datastore.writes = 0
  return { store, datastore, clock, peer }
}

/** What libp2p does all the time with peers that it has known for long. */
async function dailyWork(store: PeerStore, peer: PeerId): Promise<void> {
  for (let i = 0; i < 10; i++) {
    await store.get(peer)
    await store.getInfo(peer)
    await store.merge(peer, { protocols: [PROTOCOLS[i % 2]!] })
    await store.merge(peer, { multiaddrs: [ADDRESS, ADDRESS.encapsulate(`/p2p/${peer.toString()}`)] })
  }
}

test('a peer that was given or told of lately costs the store nothing, nor does what it has', async (t) => {
  const { store, datastore, peer } = await peerStore()
  await dailyWork(store, peer)
  t.deepEqual([datastore.reads, datastore.writes], [0, 0])
  const control = await peerStore({ cached: false })
  await dailyWork(control.store, control.peer)
  t.deepEqual([control.datastore.reads, control.datastore.writes], [40, 20])
})

test('what is news is kept and given', async (t) => {
  const { store, datastore, peer } = await peerStore()
  const other = multiaddr('/ip4/198.18.0.2/tcp/4001')
  await store.merge(peer, { protocols: ['/new/1.0.0'] })
  await store.merge(peer, { multiaddrs: [ADDRESS, other] })
  await store.merge(peer, { protocols: PROTOCOLS, tags: { friend: { value: 50 } } })
  t.is(datastore.writes, 3)
  const { protocols, addresses, tags } = await store.get(peer)
  t.deepEqual([...protocols].sort(), ['/new/1.0.0', ...PROTOCOLS].sort())
  t.deepEqual(addresses.map(({ multiaddr }) => multiaddr.toString()).sort(), [
    ADDRESS.toString(),
    other.toString()
  ])
  t.is(tags.get('friend')?.value, 50)
  await store.patch(peer, { multiaddrs: [other], protocols: [] })
  t.deepEqual((await store.getInfo(peer)).multiaddrs.map(String), [other.toString()])
  t.deepEqual((await store.get(peer)).protocols, [])
  await store.merge(peer, { multiaddrs: [ADDRESS] })
  t.is((await store.get(peer)).addresses.length, 2)
})

test('a peer that is deleted is gone, and one that is unknown stays so', async (t) => {
  const { store, peer } = await peerStore()
  await store.delete(peer)
  await t.throwsAsync(store.get(peer), { name: 'NotFoundError' })
  await t.throwsAsync(store.get(await newPeer()), { name: 'NotFoundError' })
  await store.merge(peer, { protocols: PROTOCOLS })
  t.is((await store.get(peer)).addresses.length, 0)
})

test('the store is told again after a minute, so that it does not take addresses for old', async (t) => {
  const { store, datastore, clock, peer } = await peerStore()
  await clock.advance(59_000)
  await store.merge(peer, { multiaddrs: [ADDRESS] })
  t.is(datastore.writes, 0)
  await clock.advance(2000)
  await store.merge(peer, { multiaddrs: [ADDRESS] })
  t.is(datastore.writes, 1)
})

test('what is read while another writes does not stay for what it wrote', async (t) => {
  const { store, clock, peer } = await peerStore()
  for (let i = 0; i < 20; i++) {
    await clock.advance(61_000)
    const protocol = `/new/${i}`
    const reads = [store.get(peer), store.get(peer)]
    const writes = [
      store.merge(peer, { protocols: [protocol] }),
      store.patch(peer, { protocols: [protocol] })
    ]
    reads.push(store.get(peer))
    await Promise.all([...reads, ...writes])
    t.deepEqual((await store.get(peer)).protocols, [protocol])
  }
})

test('only so many are kept', async (t) => {
  const { store, datastore, peer } = await peerStore()
  for (let i = 0; i < LIMITS.peersCachedMax; i++) await store.merge(await newPeer(), { protocols: PROTOCOLS })
  datastore.reads = 0
  await store.get(peer)
  t.is(datastore.reads, 1)
})
