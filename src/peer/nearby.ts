/**
 * Peers on the same LAN, found by multicast DNS. It answers with the addresses that the peer listens on, also those that
 * are told to nobody else, and dials whom it finds.
 */
import { mdns } from '@libp2p/mdns'
import type { ComponentLogger, PeerDiscovery, PeerId, PeerInfo } from '@libp2p/interface'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import type { Libp2p } from 'libp2p'
import { LIMITS } from '../base/limits.ts'
import { hostOf, isLoopback, isRelayed } from './address-kinds.ts'

/** Of this overlay's own, so that other programs' peers are not even heard of. */
const SERVICE_TAG = '_slicenet._udp.local'
const QUERY_INTERVAL_MS = 20_000
const DIAL_MS = 5000

interface Components {
  readonly peerId: PeerId
  readonly logger: ComponentLogger
  readonly transportManager: { getAddrs(): Multiaddr[] }
}

/** `onFound` hears of each peer with every answer. */
export function nearbyDiscovery(
  onFound: (peer: PeerInfo) => void
): (components: Components) => PeerDiscovery {
  return ({ peerId, logger, transportManager }) => {
    const addressManager = {
      getAddresses: () =>
        transportManager
          .getAddrs()
          .filter((address) => !isRelayed(address) && !isLoopback(hostOf(address) ?? ''))
          .map((address) => multiaddr(`${address.toString()}/p2p/${peerId.toString()}`))
    }
    const init = { serviceTag: SERVICE_TAG, interval: QUERY_INTERVAL_MS }
    const discovery = mdns(init)({ logger, addressManager } as unknown as Parameters<
      ReturnType<typeof mdns>
    >[0])
    discovery.addEventListener('peer', ({ detail }) => onFound(detail))
    return discovery
  }
}

/** Dials those found, each once at a time, while there are not too many already. */
export class NearbyPeers {
  readonly #dialing = new Set<string>()
  readonly #met = new Set<string>()

  found({ id, multiaddrs }: PeerInfo, libp2p: Libp2p): void {
    const principal = id.toString()
    for (const each of this.#met) if (!isConnected(libp2p, each)) this.#met.delete(each)
    const isFull = this.#met.size + this.#dialing.size >= LIMITS.nearbyPeersMax
    if (isFull || this.#dialing.has(principal) || libp2p.getConnections(id).length > 0) return
    this.#dialing.add(principal)
    const named = multiaddrs
      .slice(0, LIMITS.announcedAddressesMax)
      .map((address) => multiaddr(`${address.toString()}/p2p/${principal}`))
    void libp2p
      .dial(named, { signal: AbortSignal.timeout(DIAL_MS) })
      .then(
        () => this.#met.add(principal),
        () => {
          // It is heard of again as long as it is there.
        }
      )
      .finally(() => this.#dialing.delete(principal))
  }
}

function isConnected(libp2p: Libp2p, principal: string): boolean {
  return libp2p.getPeers().some((peer) => peer.toString() === principal)
}
