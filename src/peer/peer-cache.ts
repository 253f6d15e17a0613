/**
 * Spares the peer store of libp2p, which locks and decodes for every question and encodes for every answer: each stream
 * that is opened tells it of a protocol, each answer of the DHT of twenty peers, mostly of what it has had for long.
 */
import type { Peer, PeerData, PeerStore } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'

/** So seldom the store is told again what it has; it dates addresses by that, and forgets those of an hour ago. */
const FRESH_MS = 60_000

interface Cached {
  readonly peer: Peer
  readonly addresses: ReadonlySet<string>
  readonly until: number
}

/** Has a store give again what it gave less than a minute ago, and not take what it has; before anybody uses it. */
export function cachePeers(store: PeerStore, { clock }: { readonly clock: Pick<Clock, 'monotonic'> }): void {
  /** The least recently written first. */
  const cached = new Map<string, Cached>()

  function lookUp(id: Peer['id']): Cached | undefined {
    const entry = cached.get(id.toString())
    return entry !== undefined && entry.until > clock.monotonic() ? entry : undefined
  }

  function keep(peer: Peer): Peer {
    const key = peer.id.toString()
    cached.delete(key)
    const addresses = new Set(peer.addresses.map(({ multiaddr }) => textOf(multiaddr, peer.id)))
    cached.set(key, { peer, addresses, until: clock.monotonic() + FRESH_MS })
    if (cached.size > LIMITS.peersCachedMax) {
      const [oldest] = cached.keys()
      if (oldest !== undefined) cached.delete(oldest)
    }
    return peer
  }

  /** The store lets one write at a time, after those who read: what it gives last is what it has. */
  const keeping =
    <A extends unknown[]>(ask: (...arguments_: A) => Promise<Peer>) =>
    async (...arguments_: A): Promise<Peer> =>
      keep(await ask(...arguments_))

  const get = keeping(store.get.bind(store))
  const merge = keeping(store.merge.bind(store))
  const remove = store.delete.bind(store)
  store.get = async (id, options) => lookUp(id)?.peer ?? get(id, options)
  store.save = keeping(store.save.bind(store))
  store.patch = keeping(store.patch.bind(store))
  store.merge = async (id, data, options) => {
    const known = lookUp(id)
    return known !== undefined && saysNothingNew(data, known) ? known.peer : merge(id, data, options)
  }
  store.delete = async (id, options) => {
    await remove(id, options)
    cached.delete(id.toString())
  }
}

/** Of what is merged often; anything else may be news. */
function saysNothingNew(
  { multiaddrs = [], protocols = [], ...rest }: PeerData,
  { peer, addresses }: Cached
): boolean {
  return (
    Object.values(rest).every((value) => value === undefined) &&
    protocols.every((protocol) => peer.protocols.includes(protocol)) &&
    multiaddrs.every((multiaddr) => addresses.has(textOf(multiaddr, peer.id)))
  )
}

/** The store keeps addresses of a peer without its name at their end. */
function textOf(multiaddr: Multiaddr, id: Peer['id']): string {
  const [text, end] = [multiaddr.toString(), `/p2p/${id.toString()}`]
  return text.endsWith(end) ? text.slice(0, -end.length) : text
}
