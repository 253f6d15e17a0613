/**
 * Makes a connection direct that came in through a relay: who was dialed so dials the other, which may be reachable itself.
 * DCUtR does this for addresses of the Internet only; here it is done for the others, such as those of a laboratory.
 */
import type { Connection, IdentifyResult } from '@libp2p/interface'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import type { Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import { hostOf, isGlobal, isRelayed } from './address-kinds.ts'
import { isDirect } from './connections.ts'
import type { PeerLibp2p } from './libp2p-options.ts'

const DIAL_MS = 5000
const ADDRESSES_MAX = 4

export class ReverseDialing implements Startable {
  readonly #logger: Logger
  readonly #libp2p: PeerLibp2p
  readonly #tried = new WeakSet<Connection>()

  constructor(components: { readonly logger: Logger }, init: { readonly libp2p: PeerLibp2p }) {
    this.#logger = components.logger
    this.#libp2p = init.libp2p
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async start(): Promise<void> {
    this.#libp2p.addEventListener('peer:identify', this.#onIdentify)
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async stop(): Promise<void> {
    this.#libp2p.removeEventListener('peer:identify', this.#onIdentify)
  }

  readonly #onIdentify = ({ detail }: CustomEvent<IdentifyResult>): void => {
    const { connection, listenAddrs } = detail
    if (connection.direction !== 'inbound' || isDirect(connection)) return
    // News about a peer come this way as well.
    if (this.#tried.has(connection)) return
    this.#tried.add(connection)
    const direct = listenAddrs.filter((address) => !isRelayed(address))
    if (direct.length === 0 || direct.some((address) => isGlobal(hostOf(address) ?? ''))) return
    void this.#dial(connection, direct.slice(0, ADDRESSES_MAX))
  }

  async #dial(relayed: Connection, addresses: readonly Multiaddr[]): Promise<void> {
    const { remotePeer } = relayed
    try {
      const named = addresses.map((address) =>
        multiaddr(`${address.toString()}/p2p/${remotePeer.toString()}`)
      )
      await this.#libp2p.dial(named, { force: true, signal: AbortSignal.timeout(DIAL_MS) })
      await relayed.close()
    } catch (error) {
      this.#logger.debug('a relayed connection stays relayed', { principal: remotePeer.toString(), error })
    }
  }
}
