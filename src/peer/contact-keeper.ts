/**
 * Mends contacts that a busy moment left half-made. libp2p identifies a connection once and kad-dht pings a new
 * contact once; when either times out, the connection stays but nobody uses it, and a peer whose routing table is
 * empty waits for ever with every query.
 */
import type { Connection, PeerInfo } from '@libp2p/interface'
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { PeerLibp2p } from './libp2p-options.ts'

const INTERVAL_MS = 2000
/** Identifying may take so long by itself. */
const IDENTIFY_MS = 16_000
const CONTACTS_AT_ONCE = 8

/** What the class of kad-dht has beyond its interface. */
interface RoutingDht {
  readonly routingTable: { readonly size: number }
  readonly protocol: string
  onPeerConnect(peer: PeerInfo): Promise<void>
}

export interface ContactKeeperComponents {
  readonly clock: Clock
  readonly logger: Logger
}

export class ContactKeeper implements Startable {
  readonly #components: ContactKeeperComponents
  readonly #libp2p: PeerLibp2p
  #repeating: { stop(): Promise<void> } | undefined

  constructor(components: ContactKeeperComponents, init: { readonly libp2p: PeerLibp2p }) {
    this.#components = components
    this.#libp2p = init.libp2p
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async start(): Promise<void> {
    const { clock, logger } = this.#components
    this.#repeating ??= repeat(
      async () => this.#mend(),
      { clock, onError: (error) => logger.debug('contacts could not be mended', { error }) },
      { intervalMs: INTERVAL_MS, initialDelayMs: INTERVAL_MS }
    )
  }

  async stop(): Promise<void> {
    await this.#repeating?.stop()
    this.#repeating = undefined
  }

  async #mend(): Promise<void> {
    const dht = this.#libp2p.services.dht as unknown as RoutingDht
    const lonely = dht.routingTable.size === 0
    let mended = 0
    for (const connection of this.#libp2p.getConnections()) {
      if (mended === CONTACTS_AT_ONCE) return
      // The DHT does not run over relayed connections.
      if (connection.limits !== undefined) continue
      const overdue = this.#components.clock.now() - connection.timeline.open > IDENTIFY_MS
      if (!lonely && !overdue) continue
      const stored = await this.#libp2p.peerStore.get(connection.remotePeer).catch(() => undefined)
      const protocols = stored?.protocols ?? []
      if (overdue && protocols.length === 0) {
        mended += 1
        await this.#identify(connection)
      } else if (lonely && protocols.includes(dht.protocol)) {
        mended += 1
        const multiaddrs = stored?.addresses.map(({ multiaddr }) => multiaddr) ?? []
        await dht.onPeerConnect({ id: connection.remotePeer, multiaddrs })
      }
    }
  }

  async #identify(connection: Connection): Promise<void> {
    try {
      await this.#libp2p.services.identify.identify(connection, { signal: AbortSignal.timeout(IDENTIFY_MS) })
    } catch (error) {
      this.#components.logger.debug('a peer could not be identified', {
        principal: connection.remotePeer.toString(),
        error
      })
    }
  }
}
