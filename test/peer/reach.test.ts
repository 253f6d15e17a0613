import test, { type ExecutionContext } from 'ava'
import { multiaddr } from '@multiformats/multiaddr'
import { SlicenetError } from '../../src/base/errors.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { isDirect } from '../../src/peer/connections.ts'
import { DEFAULT_REACH } from '../../src/peer/reach.ts'
import { reachProtocol } from '../../src/protocol/reach-protocol.ts'
import { countingHandlers, countingProtocol, newWitness } from './fixtures/counting-protocol.ts'
import { startPeer, until, type TestPeer, type TestPeerInit } from './fixtures/network.ts'

const isRelayed = (address: string): boolean => address.includes('/p2p-circuit/')

/** A peer that nobody can dial, as behind a NAT: it listens nowhere. It serves the counting protocol. */
async function startHidden(t: ExecutionContext, init: TestPeerInit): Promise<TestPeer> {
  const hidden = await startPeer(t, { listen: [], ...init })
  await hidden.host.serve(countingProtocol, countingHandlers(newWitness()))
  return hidden
}

const relayedAddress = async ({ host }: TestPeer): Promise<void> =>
  until(() => host.multiaddrs().some(isRelayed), 'a slot at a relay')

test.serial(
  'a peer that nobody can dial is called through a relay, and not at all without one',
  async (t) => {
    const relay = await startPeer(t)
    const hidden = await startHidden(t, { bootstrap: relay.host.multiaddrs() })
    await relayedAddress(hidden)
    t.deepEqual(hidden.host.multiaddrs(), [
      `${relay.host.multiaddrs()[0]}/p2p-circuit/p2p/${hidden.host.principal}`
    ])
    const other = await startPeer(t, { listen: [], reach: { ...DEFAULT_REACH, reserve: 'never' } })
    await other.host.addAddresses(hidden.host.principal, hidden.host.multiaddrs())
    const call = other.host.caller(countingProtocol, hidden.host.principal)
    t.deepEqual(await call('whoAmI', {}), { principal: other.host.principal })
    const connections = other.host.libp2p
      .getConnections()
      .filter(({ remotePeer }) => remotePeer.toString() === hidden.host.principal)
    t.deepEqual(connections.map(isDirect), [false])
    // Many calls, one connection: each dialed anew would be another through the relay.
    await Promise.all(Array.from({ length: 20 }, async () => call('whoAmI', {})))
    t.is(other.host.libp2p.getConnections(connections[0]?.remotePeer).length, 1)

    const idle = await startPeer(t, { reach: { ...DEFAULT_REACH, relay: 'never' } })
    const lost = await startHidden(t, { bootstrap: idle.host.multiaddrs() })
    await until(() => idle.host.connected().includes(lost.host.principal), 'connected')
    const through = `${idle.host.multiaddrs()[0]}/p2p-circuit/p2p/${lost.host.principal}`
    await other.host.addAddresses(lost.host.principal, [through])
    const failing = other.host.caller(countingProtocol, lost.host.principal)('whoAmI', {})
    const error = await t.throwsAsync(failing, { instanceOf: SlicenetError })
    t.is(error.code, 'PEER_UNREACHABLE')
    t.deepEqual(lost.host.multiaddrs(), [])
  }
)

test.serial('a relayed connection becomes direct where one of both can be dialed', async (t) => {
  const relay = await startPeer(t)
  const hidden = await startHidden(t, { bootstrap: relay.host.multiaddrs() })
  await relayedAddress(hidden)
  const reachable = await startPeer(t)
  await reachable.host.addAddresses(hidden.host.principal, hidden.host.multiaddrs())
  const call = reachable.host.caller(countingProtocol, hidden.host.principal)
  t.deepEqual(await call('whoAmI', {}), { principal: reachable.host.principal })
  await until(() => {
    const { libp2p } = reachable.host
    const connections = libp2p
      .getConnections()
      .filter(({ remotePeer }) => remotePeer.toString() === hidden.host.principal)
    return connections.length === 1 && connections.every(isDirect)
  }, 'direct, and the relayed one is gone')
  t.deepEqual(await call('whoAmI', {}), { principal: reachable.host.principal })
})

test.serial('a slot that is lost with its relay is got at another one', async (t) => {
  const [first, second] = await Promise.all([startPeer(t), startPeer(t)])
  const hidden = await startHidden(t, { bootstrap: first.host.multiaddrs() })
  await relayedAddress(hidden)
  await hidden.host.libp2p.dial(multiaddr(second.host.multiaddrs()[0]))
  await first.host.stop()
  await until(() => {
    const addresses = hidden.host.multiaddrs()
    return addresses.length === 1 && addresses[0]?.includes(second.host.principal) === true
  }, 'the other relay')
  t.pass()
})

test.serial('a call goes on over a new connection when the relay has ended the one before', async (t) => {
  const relay = await startPeer(t)
  const hidden = await startHidden(t, { bootstrap: relay.host.multiaddrs() })
  await relayedAddress(hidden)
  const other = await startPeer(t, { listen: [], reach: { ...DEFAULT_REACH, reserve: 'never' } })
  await other.host.addAddresses(hidden.host.principal, hidden.host.multiaddrs())
  const call = other.host.caller(countingProtocol, hidden.host.principal)
  await call('whoAmI', {})
  const relayedIds = (): string[] =>
    other.host.libp2p
      .getConnections()
      .filter((connection) => !isDirect(connection))
      .map(({ id }) => id)
  const [before] = relayedIds()
  // As at the end of the time or of the bytes that it lends.
  const streams = relay.host.libp2p.getConnections().flatMap((connection) => connection.streams)
  for (const stream of streams)
    if (stream.protocol.includes('/circuit/relay/')) stream.abort(new Error('over'))
  t.deepEqual(await call('whoAmI', {}), { principal: other.host.principal })
  t.is(relayedIds().length, 1)
  t.not(relayedIds()[0], before)
})

test.serial(
  'one address gets so many slots at a relay and no more, and what others renew stays theirs',
  async (t) => {
    const relay = await startPeer(t)
    const bootstrap = relay.host.multiaddrs()
    const most = LIMITS.relayReservationsPerAddressMax
    const crowd = await Promise.all(
      Array.from({ length: most }, async () => startPeer(t, { listen: [], bootstrap }))
    )
    await until(() => relay.host.libp2p.services.relaying.served.length === most, 'all slots of one address')
    const late = await startPeer(t, { listen: [], bootstrap })
    await until(() => late.host.connected().includes(relay.host.principal), 'connected')
    await t.throwsAsync(late.host.libp2p.services.relaying.reserve(relay.host.libp2p.peerId))
    t.is(relay.host.libp2p.services.relaying.served.length, most)
    await crowd[0]?.host.libp2p.services.relaying.reserve(relay.host.libp2p.peerId)
    await crowd[0]?.host.stop()
    await until(() => relay.host.libp2p.services.relaying.served.length === most - 1, 'one slot is free')
    await t.notThrowsAsync(late.host.libp2p.services.relaying.reserve(relay.host.libp2p.peerId))
  }
)

test.serial('a relay lets go of the slots of those who left', async (t) => {
  const relay = await startPeer(t)
  const hidden = await startHidden(t, { bootstrap: relay.host.multiaddrs() })
  await relayedAddress(hidden)
  const { relaying } = relay.host.libp2p.services
  t.deepEqual(relaying.served, [hidden.host.principal])
  await hidden.host.stop()
  await until(() => relaying.served.length === 0, 'released')
  t.pass()
})

test.serial(
  'a peer is dialed back at the host that it calls from and nowhere else, and not again at once',
  async (t) => {
    const [callee, caller] = await Promise.all([startPeer(t), startPeer(t)])
    await caller.host.addAddresses(callee.host.principal, callee.host.multiaddrs())
    const call = caller.host.caller(reachProtocol, callee.host.principal)
    const elsewhere = ['/ip4/192.0.2.1/tcp/4001', '/ip4/127.0.0.2/tcp/4001']
    t.deepEqual(await call('dialBack', { addresses: elsewhere }), { tried: 0, reached: false })
    t.deepEqual(await call('dialBack', { addresses: caller.host.multiaddrs() }), { tried: 1, reached: true })
    t.deepEqual(
      caller.host.libp2p.getConnections().map(({ direction }) => direction),
      ['outbound'],
      'only the connection that it called over is left'
    )
    const again = call('dialBack', { addresses: caller.host.multiaddrs() })
    t.is((await t.throwsAsync(again, { instanceOf: SlicenetError })).code, 'BUSY')
  }
)
