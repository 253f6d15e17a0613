/**
 * Dialing back those who ask whether they are reached: only at the host that they are seen to come from, each now and
 * then, a few at a time, and over a connection of its own that is closed at once.
 */
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import type { Libp2p } from 'libp2p'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Handlers } from '../protocol/method.ts'
import type { reachProtocol } from '../protocol/reach-protocol.ts'
import type { Principal } from '../ticket/principal.ts'
import { hostOf, isRelayed } from './address-kinds.ts'
import { isDirect } from './connections.ts'

const DIAL_MS = 5000
/** Addresses of one caller that are tried: a host has one, or one for each version of IP. */
const TRIED_MAX = 2
const AGAIN_MS = 30_000
const REMEMBERED_MAX = 1024

export interface DialBackComponents {
  readonly clock: Clock
  readonly libp2p: () => Libp2p
}

export function dialBackHandlers({
  clock,
  libp2p
}: DialBackComponents): Handlers<(typeof reachProtocol)['methods']> {
  const recent = new Map<Principal, number>()
  let running = 0
  return {
    async dialBack({ addresses }, { principal, signal }) {
      if (principal === undefined) throw new SlicenetError('DENIED', 'nobody to dial')
      const wanted = addressesToTry(libp2p(), principal, addresses)
      if (wanted.length === 0) return { tried: 0, reached: false }
      const now = clock.monotonic()
      if (running >= LIMITS.dialBacksAtOnceMax || now - (recent.get(principal) ?? -Infinity) < AGAIN_MS) {
        throw new SlicenetError('BUSY', 'dialed back too often')
      }
      recent.delete(principal)
      recent.set(principal, now)
      const [oldest] = recent.keys()
      if (recent.size > REMEMBERED_MAX && oldest !== undefined) recent.delete(oldest)
      running += 1
      try {
        for (const address of wanted) {
          if (await dialOnce(libp2p(), address, signal)) return { tried: wanted.length, reached: true }
        }
        return { tried: wanted.length, reached: false }
      } finally {
        running -= 1
      }
    }
  }
}

function addressesToTry(libp2p: Libp2p, principal: Principal, addresses: readonly string[]): Multiaddr[] {
  const connection = libp2p.getConnections(peerIdFromString(principal)).find(isDirect)
  const host = connection === undefined ? undefined : hostOf(connection.remoteAddr)
  if (host === undefined) return []
  const parsed = addresses.flatMap((address) => parse(address, principal))
  return parsed.filter((each) => !isRelayed(each) && hostOf(each) === host).slice(0, TRIED_MAX)
}

function parse(address: string, principal: Principal): Multiaddr[] {
  try {
    return [multiaddr(`${address.replace(/\/p2p\/[^/]*$/, '')}/p2p/${principal}`)]
  } catch {
    return []
  }
}

async function dialOnce(libp2p: Libp2p, address: Multiaddr, signal: AbortSignal): Promise<boolean> {
  try {
    const within = AbortSignal.any([signal, AbortSignal.timeout(DIAL_MS)])
    const connection = await libp2p.dial(address, { force: true, signal: within })
    await connection.close().catch((error: Error) => connection.abort(error))
    return true
  } catch {
    return false
  }
}
