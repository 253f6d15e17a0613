/**
 * The two sides of circuit relay v2 as this overlay uses them: a server that is turned on and off while the peer runs, with
 * the limits of `LIMITS`, and slots at relays of the peer's own choice. libp2p's own search for relays walks the DHT until it
 * finds some, which is dear and may never end.
 */
import {
  circuitRelayServer,
  circuitRelayTransport,
  type CircuitRelayServerComponents,
  type CircuitRelayService
} from '@libp2p/circuit-relay-v2'
import type { PeerId, Transport, TypedEventTarget } from '@libp2p/interface'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import { LIMITS } from '../base/limits.ts'
import type { Principal } from '../ticket/principal.ts'
import { hostOf, isRelayed } from './address-kinds.ts'

const TRANSPORT_TAG = '@libp2p/circuit-relay-v2-transport'

/** A slot at a relay, as the transport keeps it. */
interface Slot {
  readonly relay: PeerId
  readonly details: { readonly reservation: { readonly addrs: readonly Uint8Array[] } }
}

/** What the class of the transport has beyond its interface. */
interface Slots extends TypedEventTarget<{
  'relay:created-reservation': CustomEvent<Slot>
  'relay:removed': CustomEvent<Slot>
}> {
  addRelay(relay: PeerId, type: 'configured'): Promise<Slot>
  cancelReservations(): void
}

interface Components extends CircuitRelayServerComponents {
  readonly transportManager: { getTransports(): Transport[]; getAddrs(): Multiaddr[] }
}

/** The class of the server has these beside what its interface says. */
type Server = CircuitRelayService & { start(): Promise<void>; stop(): Promise<void> }

/** Looks for no relay by itself: every peer is one that it has seen already. */
const NO_DISCOVERY = { has: () => true, add: () => {}, remove: () => {} }

export function relayTransport(): ReturnType<typeof circuitRelayTransport> {
  return circuitRelayTransport({
    discoveryFilter: NO_DISCOVERY,
    maxInboundStopStreams: LIMITS.relayedConnectionsPerPeerMax,
    maxOutboundStopStreams: LIMITS.relayedConnectionsPerPeerMax
  })
}

export function relaying(): (components: Components) => Relaying {
  return (components) => new Relaying(components)
}

export class Relaying {
  readonly #components: Components
  #server: Server | undefined

  constructor(components: Components) {
    this.#components = components
  }

  get isServing(): boolean {
    return this.#server !== undefined
  }

  /** Principals that have a slot here. */
  get served(): Principal[] {
    return [...(this.#server?.reservations.keys() ?? [])].map(String)
  }

  async serve(): Promise<void> {
    if (this.#server !== undefined) return
    // A server that was stopped once relays nothing any more.
    this.#server = this.#makeServer()
    await this.#server.start()
  }

  async stopServing(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    await server?.stop()
  }

  /** Without a connection a slot is of no use, and would be kept from others until its end. */
  release(peer: PeerId): void {
    this.#server?.reservations.delete(peer)
  }

  /** Asks a connected relay for a slot, which renews itself; gives the relay's addresses. */
  async reserve(relay: PeerId): Promise<Multiaddr[]> {
    return addressesOf(await this.#slots.addRelay(relay, 'configured'))
  }

  /** Calls back when a slot is renewed with the relay's addresses, and when it is lost. */
  onSlot(listener: (relay: Principal, addresses: Multiaddr[] | undefined) => void): void {
    this.#slots.addEventListener('relay:created-reservation', ({ detail }) =>
      listener(detail.relay.toString(), addressesOf(detail))
    )
    this.#slots.addEventListener('relay:removed', ({ detail }) =>
      listener(detail.relay.toString(), undefined)
    )
  }

  cancelSlots(): void {
    this.#slots.cancelReservations()
  }

  /** Where this peer listens by itself. */
  listening(): Multiaddr[] {
    return this.#components.transportManager.getAddrs().filter((address) => !isRelayed(address))
  }

  /** Tells those who are connected what is announced now. */
  async tell(): Promise<void> {
    const { addressManager, peerId, peerStore } = this.#components
    const suffix = `/p2p/${peerId.toString()}`
    const multiaddrs = addressManager.getAddresses().map((address) => {
      const text = address.toString()
      return multiaddr(text.endsWith(suffix) ? text.slice(0, -suffix.length) : text)
    })
    await peerStore.patch(peerId, { multiaddrs })
  }

  get #slots(): Slots {
    const transports = this.#components.transportManager.getTransports()
    const transport = transports.find((each) => each[Symbol.toStringTag] === TRANSPORT_TAG)
    if (transport === undefined) throw new TypeError('no relay transport')
    return (transport as unknown as { readonly reservationStore: Slots }).reservationStore
  }

  #makeServer(): Server {
    const { registrar, peerStore, addressManager, peerId, privateKey, connectionManager, logger } =
      this.#components
    const { connectionGater } = this.#components
    const components = {
      registrar,
      peerStore,
      addressManager,
      peerId,
      privateKey,
      connectionManager,
      logger,
      connectionGater: {
        ...connectionGater,
        denyInboundRelayReservation: async (source: PeerId) =>
          this.#hasMany(source) || (await connectionGater.denyInboundRelayReservation?.(source)) === true
      }
    }
    const server = circuitRelayServer({
      maxInboundHopStreams: LIMITS.relayedConnectionsPerPeerMax,
      maxOutboundHopStreams: LIMITS.relayedConnectionsPerPeerMax,
      maxOutboundStopStreams: LIMITS.relayedConnectionsPerPeerMax,
      reservations: {
        maxReservations: LIMITS.relayReservationsMax,
        reservationTtl: LIMITS.relayReservationMs,
        // Milliseconds to the server, which ends the connection by it; the client takes them for seconds.
        defaultDurationLimit: LIMITS.relayedConnectionMsMax,
        defaultDataLimit: BigInt(LIMITS.relayedConnectionBytesMax)
      }
    })(components)
    return server as Server
  }

  /** Keys cost nothing: one address cannot take every slot. */
  #hasMany(source: PeerId): boolean {
    const [connection] = this.#components.connectionManager.getConnections(source)
    const host = connection === undefined ? undefined : hostOf(connection.remoteAddr)
    const others = [...(this.#server?.reservations.entries() ?? [])].filter(
      ([peer, { addr }]) => !peer.equals(source) && hostOf(addr) === host
    )
    return others.length >= LIMITS.relayReservationsPerAddressMax
  }
}

function addressesOf({ details }: Slot): Multiaddr[] {
  return details.reservation.addrs.map((bytes) => multiaddr(bytes))
}
