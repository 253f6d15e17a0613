/**
 * Times round trips to a peer over libp2p's ping protocol. Its own service counts whole milliseconds, which between
 * peers of one site is nothing; and it pings once, so that whatever else the moment holds up counts as distance.
 */
import type { Connection, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import type { Libp2p } from 'libp2p'
import type { Uint8ArrayList } from 'uint8arraylist'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import type { Random } from '../base/random.ts'
import type { Principal } from '../ticket/principal.ts'
import { bestConnection } from './connections.ts'

const PING_PROTOCOL = '/ipfs/ping/1.0.0'
const PING_BYTES = 32

export interface RoundTripComponents {
  readonly libp2p: () => Libp2p
  readonly clock: Clock
  readonly random: Random
}

/**
 * Microseconds of the fastest of `count` round trips, at least 1. Dials where there is no connection; a connection made
 * for this is closed again. Throws `PEER_UNREACHABLE`, the signal's reason when aborted.
 */
export async function roundTripMicros(
  components: RoundTripComponents,
  principal: Principal,
  options: { readonly count: number; readonly signal: AbortSignal }
): Promise<number> {
  const { signal, count } = options
  const libp2p = components.libp2p()
  const peer = peerIdFromString(principal)
  const before = new Set(libp2p.getConnections(peer))
  try {
    const connection = bestConnection(libp2p, peer) ?? (await libp2p.dial(peer, { signal }))
    return await tripsOver(components, connection, { count, signal })
  } catch (error) {
    signal.throwIfAborted()
    const why = error instanceof Error ? error.message : String(error)
    throw new SlicenetError('PEER_UNREACHABLE', `cannot ping ${principal}: ${why}`, {
      cause: error,
      details: { principal }
    })
  } finally {
    const made = libp2p.getConnections(peer).filter((connection) => !before.has(connection))
    // Whoever else has come to use it keeps it.
    for (const connection of made) {
      if (before.size === 0 && connection.streams.length === 0) void connection.close().catch(() => {})
    }
  }
}

/** The same over a connection at hand. Throws what ends the stream. */
export async function tripsOver(
  components: Pick<RoundTripComponents, 'clock' | 'random'>,
  connection: Connection,
  { count, signal }: { readonly count: number; readonly signal: AbortSignal }
): Promise<number> {
  const stream = await connection.newStream(PING_PROTOCOL, { signal, runOnLimitedConnection: true })
  const onAbort = (): void => stream.abort(new Error('the pinging was given up'))
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await fastest(components, stream, count)
  } finally {
    signal.removeEventListener('abort', onAbort)
    stream.abort(new Error('the pinging is over'))
  }
}

async function fastest(
  { clock, random }: Pick<RoundTripComponents, 'clock' | 'random'>,
  stream: Stream,
  count: number
): Promise<number> {
  const answers = answersOf(stream)
  let best = Infinity
  for (let trip = 0; trip < count; trip++) {
    const sent = random.bytes(PING_BYTES)
    const began = clock.monotonic()
    stream.send(sent)
    const came = await answers.next(PING_BYTES)
    best = Math.min(best, clock.monotonic() - began)
    if (Buffer.compare(came, sent) !== 0) throw new Error('it answered something else')
  }
  return Math.max(1, Math.round(best * 1000))
}

/** What the other side sends, as many bytes at a time as asked for. */
function answersOf(stream: Stream): { next(bytes: number): Promise<Uint8Array> } {
  let come = Buffer.alloc(0)
  let failure: Error | undefined
  let wake = (): void => {}
  stream.addEventListener('message', ({ data }: { data: Uint8Array | Uint8ArrayList }) => {
    // More than was asked for is no answer, and is not kept.
    if (come.length < PING_BYTES) come = Buffer.concat([come, data.subarray()])
    wake()
  })
  stream.addEventListener('close', ({ error }) => {
    failure = error ?? new Error('it closed the stream')
    wake()
  })
  return {
    async next(bytes) {
      for (;;) {
        if (come.length >= bytes) break
        if (failure !== undefined) throw failure
        await new Promise<void>((resolve) => (wake = resolve))
      }
      const answer = come.subarray(0, bytes)
      come = come.subarray(bytes)
      return answer
    }
  }
}
