import type { PeerId } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import type { Libp2p } from 'libp2p'
import test, { type ExecutionContext } from 'ava'
import { asSlicenetError } from '../../src/base/errors.ts'
import { systemClock } from '../../src/base/clock.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { silentLogger, type Logger } from '../../src/base/log.ts'
import { ConnectionGate } from '../../src/peer/connection-gate.ts'
import type { ConnectionPolicy } from '../../src/peer/connection-policy.ts'
import { membershipProtocol } from '../../src/protocol/membership-protocol.ts'
import type { Membership } from '../../src/ticket/membership.ts'
import type { SigningKey } from '../../src/ticket/principal.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { vouch } from '../ticket/memberships.ts'
import { countingHandlers, countingProtocol, newWitness } from './fixtures/counting-protocol.ts'
import { newKey, startPeer, until, type TestPeer, type TestPeerInit } from './fixtures/network.ts'

const MINUTE = 60_000
/** For those that have something to show on a busy machine, and for those that have not. */
const LONG_MS = 30_000
const SHORT_MS = 1500
const NOBODY = { principals: [], organisations: [], addresses: [] }
const organisation = newKey()

/** Beside the system's wall clock: a manual one begins at another time than hosts live in. */
const timed = (): ManualClock => new ManualClock(Date.now())

interface Guarded extends TestPeer {
  readonly gate: ConnectionGate | undefined
  readonly turnedAway: readonly string[]
  readonly answered: () => number
}

/** A peer that answers calls and holds connections to a policy; `undefined` takes the gate out. */
async function guarded(
  t: ExecutionContext,
  policy: ConnectionPolicy | undefined,
  { showMs = LONG_MS, ...init }: TestPeerInit & { readonly showMs?: number } = {}
): Promise<Guarded> {
  const turnedAway: string[] = []
  const logger: Logger = {
    ...silentLogger,
    info: (message, fields) => {
      if (message === 'a peer is turned away') turnedAway.push(String(fields?.['principal']))
    }
  }
  const gate = policy && new ConnectionGate({ clock: init.clock ?? systemClock, logger }, { policy, showMs })
  const peer = await startPeer(t, { ...init, ...(gate === undefined ? {} : { gate }) })
  const handlers = countingHandlers(newWitness())
  let answered = 0
  await peer.host.serve(countingProtocol, {
    ...handlers,
    whoAmI: async (params, call) => {
      answered += 1
      return handlers.whoAmI(params, call)
    }
  })
  return { ...peer, gate, turnedAway, answered: () => answered }
}

/** A peer that has memberships to show; further ones come by `take`. */
async function member(
  t: ExecutionContext,
  vouching: (key: SigningKey) => readonly Uint8Array[] = () => []
): Promise<TestPeer & { readonly take: (bytes: Uint8Array) => void }> {
  const key = newKey()
  const shown = [...vouching(key)]
  const listeners = new Set<() => void>()
  const memberships = {
    shown: () => shown,
    onChange(listener: () => void) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    }
  }
  const peer = await startPeer(t, { key, memberships })
  const take = (bytes: Uint8Array): void => {
    shown.push(bytes)
    for (const listener of listeners) listener()
  }
  return { ...peer, take }
}

const vouched = (key: SigningKey, changes: Partial<Membership> = {}, by = organisation): Uint8Array =>
  vouch(by, key.principal, { notBefore: Date.now() - MINUTE, notAfter: Date.now() + MINUTE, ...changes })
    .bytes

/** `undefined` when the call was answered, else the code that it failed with. */
async function callCode(from: TestPeer, to: TestPeer): Promise<string | undefined> {
  await from.host.addAddresses(to.host.principal, to.host.multiaddrs())
  try {
    const { principal } = await from.host.caller(countingProtocol, to.host.principal)('whoAmI', {})
    return principal === from.host.principal ? undefined : 'another principal'
  } catch (error) {
    return asSlicenetError(error).code
  }
}

interface FakeConnection {
  readonly remotePeer: PeerId
  readonly remoteAddr: Multiaddr
  close(): Promise<void>
}

/** As much of libp2p as the gate listens to. */
function fakeLibp2p(onClose: (principal: string) => void) {
  const connections = new Map<string, FakeConnection>()
  const events = new EventTarget()
  const connectionOf = (principal: string): FakeConnection => ({
    remotePeer: peerIdFromString(principal),
    remoteAddr: multiaddr('/ip4/192.0.2.1/tcp/1'),
    close: async () => onClose(principal)
  })
  const host = {
    peerId: peerIdFromString(newKey().principal),
    getConnections: (peer?: PeerId) =>
      [...connections.values()].filter(({ remotePeer }) => peer === undefined || remotePeer.equals(peer)),
    addEventListener: events.addEventListener.bind(events),
    removeEventListener: events.removeEventListener.bind(events)
  } as unknown as Libp2p
  return {
    host,
    connectionOf,
    open(principal: string) {
      const connection = connectionOf(principal)
      connections.set(principal, connection)
      events.dispatchEvent(new CustomEvent('connection:open', { detail: connection }))
    }
  }
}

const isConnected = (one: TestPeer, other: TestPeer): boolean =>
  one.host.connected().includes(other.host.principal)

/** Closed by the gate, and not let in again by another try. */
async function isTurnedAway(t: ExecutionContext, gated: TestPeer, other: TestPeer): Promise<void> {
  await until(() => !isConnected(gated, other), 'turned away')
  t.false(isConnected(gated, other))
}

test('a principal that is denied is not let in, and is without the gate', async (t) => {
  const one = await member(t)
  const deny = { ...NOBODY, principals: [one.host.principal] }
  const gated = await guarded(t, { deny })
  t.is(await callCode(one, gated), 'PEER_UNREACHABLE')
  t.is(gated.answered(), 0)
  await isTurnedAway(t, gated, one)
  t.is(await callCode(await member(t), gated), undefined, 'others are')
  t.is(await callCode(one, await guarded(t, undefined)), undefined, 'so it is the gate')
})

test('an address that is denied is refused before anybody proves who it is', async (t) => {
  const one = await member(t)
  const gated = await guarded(t, { deny: { ...NOBODY, addresses: ['127.0.0.0/8'] } })
  const encrypted: string[] = []
  const { libp2p } = gated.host
  const gater = (
    libp2p as unknown as { components: { connectionGater: { denyInboundEncryptedConnection: unknown } } }
  ).components.connectionGater
  gater.denyInboundEncryptedConnection = (peer: { toString(): string }) => {
    encrypted.push(peer.toString())
    return false
  }
  t.is(await callCode(one, gated), 'PEER_UNREACHABLE')
  t.deepEqual(encrypted, [])
  await isTurnedAway(t, gated, one)
  const elsewhere = await guarded(t, { deny: { ...NOBODY, addresses: ['127.0.0.2/32', '::1'] } })
  t.is(await callCode(one, elsewhere), undefined, 'another range is not that one')
  t.is(await callCode(one, await guarded(t, undefined)), undefined, 'so it is the gate')
})

test('a member of an organisation that is allowed is let in, and its first call waits until then', async (t) => {
  const gated = await guarded(t, { allow: { ...NOBODY, organisations: [organisation.principal] } })
  const one = await member(t, (key) => [vouched(key)])
  t.is(await callCode(one, gated), undefined)
  t.is(gated.answered(), 1)
  t.true(isConnected(gated, one))
})

test('whoever shows nothing, or what is worth nothing, is turned away unanswered, and let in without the gate', async (t) => {
  const allow = { ...NOBODY, organisations: [organisation.principal] }
  const gated = await guarded(t, { allow }, { showMs: SHORT_MS })
  const open = await guarded(t, undefined)
  const forged = (key: SigningKey): Uint8Array => {
    const bytes = Uint8Array.from(vouched(key))
    bytes[bytes.length - 5]! ^= 1
    return bytes
  }
  const strangers: Readonly<Record<string, (key: SigningKey) => readonly Uint8Array[]>> = {
    'nothing at all': () => [],
    'an unknown organisation': (key) => [vouched(key, {}, newKey())],
    'a membership that is over': (key) => [vouched(key, { notAfter: Date.now() - 1000 })],
    'a membership that has not begun': (key) => [vouched(key, { notBefore: Date.now() + 30_000 })],
    "another's membership": () => [vouched(newKey())],
    'a forged membership': (key) => [forged(key)]
  }
  await Promise.all(
    Object.entries(strangers).map(async ([what, vouching]) => {
      const stranger = await member(t, vouching)
      // On a busy machine the connection may be closed before the answer is read.
      const code = await callCode(stranger, gated)
      t.true(code === 'DENIED' || code === 'PEER_UNREACHABLE', `${what}: ${code}`)
      await isTurnedAway(t, gated, stranger)
      t.is(await callCode(stranger, open), undefined, `${what}, without the gate`)
    })
  )
  t.is(gated.answered(), 0)
  t.true(open.answered() > 0)
})

test('a peer that takes a membership in after it connected is let in by it', async (t) => {
  const gated = await guarded(t, { allow: { ...NOBODY, organisations: [organisation.principal] } })
  const one = await member(t)
  const calling = callCode(one, gated)
  await until(() => isConnected(gated, one), 'connected')
  await until(async () => {
    const stored = await one.host.libp2p.peerStore.get(gated.host.libp2p.peerId)
    return stored.protocols.includes(membershipProtocol.id)
  }, 'identified')
  one.take(vouched(one.key))
  t.is(await calling, undefined)
})

test('whoever is denied is not dialed, by name or by address', async (t) => {
  const one = await guarded(t, undefined)
  const deny = { ...NOBODY, principals: [one.host.principal] }
  const byName = await guarded(t, { deny })
  t.is(await callCode(byName, one), 'DENIED')
  const byAddress = await guarded(t, { deny: { ...NOBODY, addresses: ['127.0.0.0/8'] } })
  t.is(await callCode(byAddress, one), 'DENIED')
  await byAddress.host.addAddresses(newKey().principal, [])
  t.is(await callCode(await guarded(t, undefined), one), undefined, 'so it is the gate')
  t.is(one.answered(), 1)
})

test('a peer that was dialed must show a membership as well', async (t) => {
  const allow = { ...NOBODY, organisations: [organisation.principal] }
  const gated = await guarded(t, { allow }, { showMs: 12_000 })
  const stranger = await guarded(t, undefined)
  const one = await member(t, (key) => [vouched(key)])
  for (const peer of [stranger, one]) {
    await gated.host.addAddresses(peer.host.principal, peer.host.multiaddrs())
    await gated.host.libp2p.dial(peer.host.libp2p.peerId)
  }
  await isTurnedAway(t, gated, stranger)
  t.true(isConnected(gated, one))
})

test('a name is looked up before it is dialed, and is denied for what it stands for', async (t) => {
  const one = await guarded(t, undefined)
  const [port = ''] = one.host.multiaddrs().map((address) => /tcp\/(\d+)/.exec(address)?.[1] ?? '')
  const byName = [`/dns4/localhost/tcp/${port}/p2p/${one.host.principal}`]
  const dial = async (from: TestPeer): Promise<string | undefined> => {
    await from.host.addAddresses(one.host.principal, byName)
    return from.host
      .caller(countingProtocol, one.host.principal)('whoAmI', {})
      .then(
        () => undefined,
        (error: unknown) => asSlicenetError(error).code
      )
  }
  const deny = { ...NOBODY, addresses: ['127.0.0.0/8'] }
  t.is(await dial(await guarded(t, { deny })), 'DENIED')
  t.is(await dial(await guarded(t, undefined)), undefined, 'so it is the gate')
})

test('whoever shows a membership of an organisation that is denied is turned away', async (t) => {
  const gated = await guarded(t, { deny: { ...NOBODY, organisations: [organisation.principal] } })
  const [one, other] = [await member(t, (key) => [vouched(key)]), await member(t)]
  await callCode(one, gated)
  await isTurnedAway(t, gated, one)
  t.is(await callCode(other, gated), undefined)
  t.is(await callCode(one, await guarded(t, undefined)), undefined, 'so it is the gate')
})

test('another policy holds for connections that are open, both ways', async (t) => {
  const gated = await guarded(t, {})
  const one = await member(t)
  t.is(await callCode(one, gated), undefined)
  gated.gate?.usePolicy({ deny: { ...NOBODY, principals: [one.host.principal] } })
  await isTurnedAway(t, gated, one)
  gated.gate?.usePolicy({ allow: { ...NOBODY, principals: [one.host.principal] } })
  t.is(await callCode(one, gated), undefined)
  gated.gate?.usePolicy({ allow: { ...NOBODY, addresses: ['192.0.2.0/24'] } })
  await isTurnedAway(t, gated, one)
})

test('a member whose membership ends is turned away, unless it shows another before', async (t) => {
  const clock = timed()
  const allow = { ...NOBODY, organisations: [organisation.principal] }
  const gated = await guarded(t, { allow }, { clock })
  const term = { notBefore: Date.now() - MINUTE, notAfter: clock.now() + MINUTE }
  const [ending, renewing] = [
    await member(t, (key) => [vouched(key, term)]),
    await member(t, (key) => [vouched(key, term)])
  ]
  t.is(await callCode(ending, gated), undefined)
  t.is(await callCode(renewing, gated), undefined)
  const later = vouched(renewing.key, { seq: 2, notAfter: clock.now() + 60 * MINUTE })
  renewing.take(later)
  const show = renewing.host.caller(membershipProtocol, gated.host.principal)
  t.true((await show('show', { memberships: [later] })).admitted)
  await clock.advance(MINUTE / 2)
  t.deepEqual(gated.turnedAway, [])
  // Whoever was turned away may come again, and is so once more.
  await until(async () => {
    await clock.advance(MINUTE / 2)
    return gated.turnedAway.includes(ending.host.principal)
  }, 'turned away')
  t.false(gated.turnedAway.includes(renewing.host.principal))
  t.is(await callCode(renewing, gated), undefined)
})

test('whom the configuration names by its bootstrap is let in without a membership', async (t) => {
  const boot = await guarded(t, undefined)
  const allow = { ...NOBODY, organisations: [organisation.principal] }
  const gated = await guarded(t, { allow }, { bootstrap: boot.host.multiaddrs() })
  await until(() => isConnected(gated, boot), 'joined')
  t.is(await callCode(boot, gated), undefined)
})

test('a peer calls itself whatever its policy', async (t) => {
  const gated = await guarded(t, { allow: NOBODY })
  t.is(
    (await gated.host.caller(countingProtocol, gated.host.principal)('whoAmI', {})).principal,
    gated.host.principal
  )
})

test('of a peer that has yet to show a membership no more calls than a bound wait', async (t) => {
  const allow = { ...NOBODY, organisations: [organisation.principal] }
  const gated = await guarded(t, { allow }, { showMs: 12_000 })
  const stranger = await member(t)
  const calls = Array.from({ length: LIMITS.unprovenCallsMax + 4 }, async () => callCode(stranger, gated))
  const codes = await Promise.all(calls)
  t.is(codes.filter((code) => code === 'BUSY').length, 4)
  t.is(codes.filter((code) => code === 'DENIED').length, LIMITS.unprovenCallsMax)
  t.is(gated.answered(), 0)
})

test('a peer behind a relay is not let in for the address of the relay', (t) => {
  const policy = { allow: { ...NOBODY, addresses: ['192.0.2.0/24'] } }
  const gater = new ConnectionGate({ clock: timed(), logger: silentLogger }, { policy }).gater()
  const [peer, relay] = [newKey().principal, newKey().principal]
  const refuses = (address: string): unknown =>
    gater.denyInboundEncryptedConnection?.(peerIdFromString(peer), {
      remoteAddr: multiaddr(address)
    } as never)
  t.false(refuses('/ip4/192.0.2.7/tcp/1'))
  t.true(refuses(`/ip4/192.0.2.7/tcp/1/p2p/${relay}/p2p-circuit/p2p/${peer}`))
})

test('no more peers than a bound are given time to show a membership', async (t) => {
  const clock = timed()
  const allow = { ...NOBODY, organisations: [organisation.principal] }
  const gate = new ConnectionGate({ clock, logger: silentLogger }, { policy: { allow } })
  const peers = Array.from({ length: LIMITS.unprovenPeersMax + 1 }, () => newKey().principal)
  const closed: string[] = []
  const libp2p = fakeLibp2p((principal) => closed.push(principal))
  gate.attach(libp2p.host)
  const gater = gate.gater()
  const refused: boolean[] = []
  for (const principal of peers) {
    const connection = libp2p.connectionOf(principal)
    refused.push(
      (await gater.denyInboundEncryptedConnection?.(connection.remotePeer, connection as never)) ?? false
    )
    if (refused.at(-1) === false) libp2p.open(principal)
    await Promise.resolve()
  }
  t.is(refused.filter(Boolean).length, 1)
  t.true(refused.at(-1))
  await clock.advance(LIMITS.membershipShowMsMax)
  await clock.advance(MINUTE)
  t.is(new Set(closed).size, LIMITS.unprovenPeersMax)
  const [first = ''] = peers
  const isDialed = async (): Promise<boolean> =>
    (await gater.denyDialPeer?.(peerIdFromString(first))) === false
  t.false(await isDialed(), 'whom it turned away it does not bring back')
  gate.usePolicy({})
  t.true(await isDialed())
})

test('memberships that are shown too often are not looked at', async (t) => {
  const gated = await guarded(t, { allow: { ...NOBODY, organisations: [organisation.principal] } })
  const one = await member(t, (key) => [vouched(key)])
  t.is(await callCode(one, gated), undefined)
  const show = one.host.caller(membershipProtocol, gated.host.principal)
  const codes = await Promise.all(
    Array.from({ length: LIMITS.membershipShowsBurst + 4 }, async () =>
      show('show', { memberships: [vouched(one.key)] }).then(
        () => 'ok',
        (error: unknown) => asSlicenetError(error).code
      )
    )
  )
  t.true(codes.includes('BUSY'))
  t.true(isConnected(gated, one))
})

test('a peer without a policy asks nobody, and is shown nothing', async (t) => {
  const [open, one] = [await guarded(t, undefined), await member(t, (key) => [vouched(key)])]
  t.is(await callCode(one, open), undefined)
  t.false(open.host.libp2p.getProtocols().includes(membershipProtocol.id))
  await t.throwsAsync(one.host.caller(membershipProtocol, open.host.principal)('show', { memberships: [] }), {
    code: 'PROTOCOL_ERROR'
  })
})
