/**
 * Calling other principals: reaches the peer, opens a stream of the protocol, runs one call over it, and leaves no
 * stream behind whatever happens.
 */
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import type { Connection, PeerId, Stream } from '@libp2p/interface'
import type { Libp2p } from 'libp2p'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { callMethod } from '../protocol/exchange.ts'
import type { Caller, Methods, Protocol } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'
import { bestConnection, directConnection, isDirect } from './connections.ts'
import { loopbackDuplexes } from './loopback-duplex.ts'
import { STREAM_LIMITS, type Serving } from './serving.ts'
import { streamDuplex } from './stream-duplex.ts'

/** How long the other side may take to close a stream once its result is here. */
const CLOSE_GRACE_MS = 5000
/** How long a new connection through a relay may take to become direct: what is under way then is lost with the relayed one. */
const UPGRADE_MS = 1500

export interface CallingComponents {
  readonly principal: Principal
  readonly libp2p: () => Libp2p
  readonly serving: Serving
  /** Where else a principal may be found, when the peer store knows no address. */
  readonly addressesOf: (principal: Principal) => readonly string[]
  /** Told who is called. */
  readonly onCall?: (principal: Principal) => void
}

/**
 * A caller of `principal`. The details of an error that the callee signed have the refusal, as `refusalDetails` gives
 * it. Besides the callee's errors a call throws `PEER_UNREACHABLE` when it cannot be reached or
 * is lost midway, `BUSY` when too many calls to it are under way, and `PROTOCOL_ERROR` when it does not serve the
 * protocol.
 */
export function createCaller<M extends Methods>(
  components: CallingComponents,
  protocol: Protocol<M>,
  principal: Principal
): Caller<M> {
  if (principal === components.principal) return localCaller(components, protocol)
  return async (method, params, options = {}) => {
    const stream = await openStream(components, protocol.id, principal, options.signal)
    const duplex = streamDuplex(stream, `${protocol.id} with ${principal}`)
    try {
      return await callMethod(protocol, method, params, duplex, options, { principal })
    } finally {
      if (stream.writeStatus !== 'closed') {
        // The result came before the input was at its end: nobody wants the rest.
        stream.abort(new Error('the call is over'))
      }
      void duplex.settle(CLOSE_GRACE_MS)
    }
  }
}

function localCaller<M extends Methods>(components: CallingComponents, protocol: Protocol<M>): Caller<M> {
  return async (method, params, options = {}) => {
    const served = components.serving.local(protocol.id)
    if (served === undefined) throw notServed(protocol.id, components.principal)
    const [near, far] = loopbackDuplexes()
    // Not waited for: a caller who gives up is not kept by a handler that goes on.
    void served.answer(far, components.principal)
    try {
      return await callMethod(protocol, method, params, near, options, components)
    } finally {
      near.abort(new Error('the call is over'))
    }
  }
}

function notServed(protocolId: string, principal: Principal, cause?: unknown): SlicenetError {
  return new SlicenetError('PROTOCOL_ERROR', `${principal} does not serve ${protocolId}`, { cause })
}

async function openStream(
  components: CallingComponents,
  protocolId: string,
  principal: Principal,
  signal: AbortSignal | undefined
): Promise<Stream> {
  signal?.throwIfAborted()
  const libp2p = components.libp2p()
  const peer = peerIdFromString(principal)
  components.onCall?.(principal)
  const timeout = AbortSignal.timeout(LIMITS.dialMsMax)
  const within = signal === undefined ? timeout : AbortSignal.any([signal, timeout])
  try {
    const present = bestConnection(libp2p, peer)
    if (present === undefined) await learnAddresses(components, principal)
    const connection = present ?? (await connect(libp2p, peer, within))
    try {
      return await newStream(connection, protocolId, within)
    } catch (error) {
      if (present === undefined || within.aborted || isFinal(error)) throw error
      // The connection at hand was dead and nobody knew, or its relay ended it: once more on a new one.
      await Promise.all(libp2p.getConnections(peer).map(async (each) => each.close().catch(() => {})))
      return await newStream(await connect(libp2p, peer, within), protocolId, within)
    }
  } catch (error) {
    signal?.throwIfAborted()
    throw named(error, protocolId, principal)
  }
}

async function newStream(connection: Connection, protocolId: string, signal: AbortSignal): Promise<Stream> {
  return connection.newStream(protocolId, { ...STREAM_LIMITS, runOnLimitedConnection: true, signal })
}

/** Dials a peer; the connection is direct if it can be made so. Throws `PEER_UNREACHABLE`, `DENIED`. */
export async function connect(libp2p: Libp2p, peer: PeerId, signal: AbortSignal): Promise<Connection> {
  const connection = await dial(libp2p, peer, signal).catch((error: unknown) => {
    throw unreachable(error, peer.toString())
  })
  if (isDirect(connection)) return connection
  return (await directConnection(libp2p, peer, { ms: UPGRADE_MS, signal })) ?? connection
}

async function dial(libp2p: Libp2p, peer: PeerId, signal: AbortSignal): Promise<Connection> {
  const isJoined = libp2p.getDialQueue().some(({ peerId }) => peerId?.equals(peer) === true)
  try {
    return await libp2p.dial(peer, { signal })
  } catch (error) {
    // What somebody else began may have failed before the peer came back.
    if (!isJoined || signal.aborted) throw error
    return libp2p.dial(peer, { signal })
  }
}

function isFinal(error: unknown): boolean {
  return (
    error instanceof Error &&
    (error.name === 'UnsupportedProtocolError' ||
      error.name === 'DialDeniedError' ||
      error.name === 'TooManyOutboundProtocolStreamsError')
  )
}

function named(error: unknown, protocolId: string, principal: Principal): SlicenetError {
  if (error instanceof SlicenetError) return error
  if (error instanceof Error && error.name === 'UnsupportedProtocolError') {
    return notServed(protocolId, principal, error)
  }
  if (error instanceof Error && error.name === 'TooManyOutboundProtocolStreamsError') {
    return new SlicenetError('BUSY', `too many calls to ${principal} are under way`, { cause: error })
  }
  return unreachable(error, principal)
}

function unreachable(error: unknown, principal: Principal): SlicenetError {
  if (error instanceof Error && error.name === 'DialDeniedError') {
    return new SlicenetError('DENIED', `the policy of this peer lets nobody connect to ${principal}`, {
      hint: 'see `connections` in its configuration',
      details: { principal },
      cause: error
    })
  }
  const why = error instanceof Error ? error.message : String(error)
  return new SlicenetError('PEER_UNREACHABLE', `cannot reach ${principal}: ${why}`, {
    cause: error,
    details: { principal }
  })
}

async function learnAddresses(components: CallingComponents, principal: Principal): Promise<void> {
  const addresses = components.addressesOf(principal)
  if (addresses.length > 0) await rememberAddresses(components.libp2p(), principal, addresses)
}

/** Adds to what the peer store knows of a principal; what is no multiaddr of it is passed over. */
export async function rememberAddresses(
  libp2p: Libp2p,
  principal: Principal,
  addresses: readonly string[]
): Promise<void> {
  const multiaddrs = addresses.flatMap((address) => parseAddress(address, principal))
  if (multiaddrs.length === 0) return
  await libp2p.peerStore.merge(peerIdFromString(principal), { multiaddrs })
}

function parseAddress(address: string, principal: Principal): Multiaddr[] {
  try {
    const parsed = multiaddr(address)
    const named = principalOfAddress(parsed)
    return named === undefined || named === principal ? [parsed] : []
  } catch {
    return []
  }
}

/** The principal that a multiaddr ends in, if any. */
export function principalOfAddress(address: Multiaddr): Principal | undefined {
  return address.getComponents().findLast((component) => component.name === 'p2p')?.value
}
