/**
 * Closes connections that nobody uses when there are many. Queries of the DHT connect a peer to ever more others, and
 * each connection costs pings and memory at both ends for as long as it is open.
 */
import { KEEP_ALIVE, type Connection } from '@libp2p/interface'
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Principal } from '../ticket/principal.ts'
import type { PeerLibp2p } from './libp2p-options.ts'

const INTERVAL_MS = 30_000
/** Who was called, or called, within this is not idle. */
const USED_MS = 10 * 60_000
/** A connection that is this young is about to be used. */
const YOUNG_MS = 60_000
/** Streams that are there on every connection. */
const GOSSIP_STREAM = /^\/meshsub\//

/** What the class of gossipsub has beyond its interface: peers by topic. */
interface MeshedPubSub {
  readonly mesh: ReadonlyMap<string, ReadonlySet<string>>
}

export interface IdleConnectionsComponents {
  readonly clock: Clock
  readonly logger: Logger
}

export interface IdleConnectionsInit {
  readonly libp2p: PeerLibp2p
  /** Connections that are kept whether they are used or not; default `LIMITS.idleConnectionsMax`. */
  readonly keptMax?: number
}

export class IdleConnections implements Startable {
  readonly #components: IdleConnectionsComponents
  readonly #libp2p: PeerLibp2p
  readonly #keptMax: number
  /** When a principal was called, or called, last, by the monotonic clock. */
  readonly #used = new Map<Principal, number>()
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: IdleConnectionsComponents, init: IdleConnectionsInit) {
    this.#components = components
    this.#libp2p = init.libp2p
    this.#keptMax = init.keptMax ?? LIMITS.idleConnectionsMax
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async start(): Promise<void> {
    const { clock, logger } = this.#components
    this.#loop ??= repeat(
      async () => this.closeSome(),
      { clock, onError: (error) => logger.debug('idle connections were not closed', { error }) },
      { intervalMs: INTERVAL_MS, initialDelayMs: INTERVAL_MS }
    )
  }

  async stop(): Promise<void> {
    await this.#loop?.stop()
    this.#loop = undefined
  }

  /** A call went to a principal or came from it. */
  use(principal: Principal): void {
    this.#used.set(principal, this.#components.clock.monotonic())
  }

  /** Closes the longest open of those that are idle, down to the maximum. */
  async closeSome(): Promise<void> {
    const now = this.#components.clock.monotonic()
    for (const [principal, at] of this.#used) if (now - at > USED_MS) this.#used.delete(principal)
    const connections = this.#libp2p.getConnections()
    let excess = connections.length - this.#keptMax
    if (excess <= 0) return
    const inMesh = new Set(this.#meshPeers())
    for (const connection of connections.sort((a, b) => a.timeline.open - b.timeline.open)) {
      if (excess <= 0) return
      const principal = connection.remotePeer.toString()
      if (this.#used.has(principal) || inMesh.has(principal) || !(await this.#isIdle(connection))) continue
      excess -= 1
      await connection.close().catch(() => {})
    }
  }

  #meshPeers(): string[] {
    const { mesh } = this.#libp2p.services.pubsub as unknown as MeshedPubSub
    return [...mesh.values()].flatMap((peers) => [...peers])
  }

  async #isIdle({ remotePeer, timeline, streams }: Connection): Promise<boolean> {
    const isYoung = this.#components.clock.now() - timeline.open < YOUNG_MS
    if (isYoung || streams.some(({ protocol }) => !GOSSIP_STREAM.test(protocol))) return false
    const stored = await this.#libp2p.peerStore.get(remotePeer).catch(() => undefined)
    // Those nearest in the DHT, and relays, are connected to again at once.
    return ![...(stored?.tags.keys() ?? [])].some((tag) => tag.startsWith(KEEP_ALIVE))
  }
}
