/**
 * Pings a peer for somebody who wants to know whether and how it is reached: directly or through a relay, and how long
 * that takes. A connection through a relay is given the time to become direct first.
 */
import { peerIdFromString } from '@libp2p/peer-id'
import type { Connection, PeerId } from '@libp2p/interface'
import type { Libp2p } from 'libp2p'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Principal } from '../ticket/principal.ts'
import { connect } from './calling.ts'
import { bestConnection, directConnection, isDirect } from './connections.ts'
import { tripsOver, type RoundTripComponents } from './round-trips.ts'

/** Both sides take some seconds over making a connection direct. */
const UPGRADE_MS = 5000
const PING_MS = 5000

/** How a peer is reached now. */
export interface PathView {
  readonly relayed: boolean
  readonly address: string
}

export interface PingReport extends PathView {
  readonly sent: number
  /** Microseconds of those that were answered, in order. */
  readonly rttMicros: readonly number[]
}

export interface PingOptions {
  readonly count: number
  readonly intervalMs: number
  readonly signal: AbortSignal
  /** Called with the first path, and with each that takes its place. */
  readonly onPath: (path: PathView) => Promise<void>
  /** Called with the microseconds of each, undefined for one that was lost. */
  readonly onPing: (rttMicros: number | undefined) => Promise<void>
}

/** Throws `PEER_UNREACHABLE` when the peer is not reached or answers no ping at all, the signal's reason when aborted. */
export async function pingPeer(
  components: RoundTripComponents,
  principal: Principal,
  options: PingOptions
): Promise<PingReport> {
  const { clock } = components
  const { signal, count, intervalMs } = options
  const libp2p = components.libp2p()
  const peer = peerIdFromString(principal)
  let path: PathView | undefined
  const follow = async (connection: Connection): Promise<PathView> => {
    const now = pathOf(connection)
    if (path?.address !== now.address) await options.onPath(now)
    return (path = now)
  }
  const first = await reach(libp2p, peer, signal)
  path = await follow(first)
  if (path.relayed) {
    await directConnection(libp2p, peer, { ms: UPGRADE_MS, signal })
    signal.throwIfAborted()
  }
  const rttMicros: number[] = []
  for (let sent = 0; sent < count; sent++) {
    if (sent > 0) await clock.sleep(intervalMs, { signal })
    const rtt = await pingOnce(components, peer, { signal, follow })
    if (rtt !== undefined) rttMicros.push(rtt)
    await options.onPing(rtt)
  }
  if (rttMicros.length > 0) return { ...path, sent: count, rttMicros }
  throw new SlicenetError('PEER_UNREACHABLE', `${principal} answers no ping`, { details: { principal } })
}

export function pathOf(connection: Connection): PathView {
  return { relayed: !isDirect(connection), address: connection.remoteAddr.toString() }
}

async function reach(libp2p: Libp2p, peer: PeerId, signal: AbortSignal): Promise<Connection> {
  const present = bestConnection(libp2p, peer)
  if (present !== undefined) return present
  try {
    return await connect(libp2p, peer, within(LIMITS.dialMsMax, signal))
  } catch (error) {
    signal.throwIfAborted()
    throw error
  }
}

/** Over the best connection there is, a new one when the one before is gone. */
async function pingOnce(
  components: RoundTripComponents,
  peer: PeerId,
  { signal, follow }: { signal: AbortSignal; follow: (connection: Connection) => Promise<PathView> }
): Promise<number | undefined> {
  try {
    const connection = await reach(components.libp2p(), peer, signal)
    await follow(connection)
    return await tripsOver(components, connection, { count: 1, signal: within(PING_MS, signal) })
  } catch {
    signal.throwIfAborted()
    return undefined
  }
}

function within(ms: number, signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(ms)])
}
