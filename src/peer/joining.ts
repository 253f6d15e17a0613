/**
 * Joins the overlay and stays in it: dials bootstrap peers, and peers known from before, whenever too few of them
 * are connected; remembers who was.
 */
import { multiaddr } from '@multiformats/multiaddr'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { Principal } from '../ticket/principal.ts'
import { principalOfAddress } from './calling.ts'
import type { KnownPeer, KnownPeers } from './known-peers.ts'

const FIRST_RETRY_MS = 500
const LAST_RETRY_MS = 30_000
const REMEMBER_INTERVAL_MS = 30_000
const REMEMBER_FIRST_MS = 3000

export interface JoiningComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly knownPeers: Pick<KnownPeers, 'list' | 'remember'>
}

/** What joining needs of the network under it. */
export interface JoiningNetwork {
  readonly principal: Principal
  isConnected(principal: Principal): boolean
  /** Throws when the peer cannot be reached. */
  dial(peer: KnownPeer, options: { readonly signal: AbortSignal }): Promise<void>
  /** Peers that are connected, and where they are; not more than `max`. */
  neighbours(max: number): Promise<KnownPeer[]>
  /** Calls the listener whenever a peer is connected no more, until the function given back is called. */
  onDisconnect(listener: () => void): () => void
}

/** Throws `CONFIG_INVALID` unless the address names its peer, as in `/ip4/198.18.0.1/tcp/4001/p2p/12D3…`. */
export function parseBootstrap(address: string): KnownPeer {
  let principal: string | undefined
  try {
    principal = principalOfAddress(multiaddr(address))
  } catch (error) {
    throw new SlicenetError('CONFIG_INVALID', `not a multiaddr: ${address}`, { cause: error })
  }
  if (principal !== undefined) return { principal, multiaddrs: [address] }
  throw new SlicenetError('CONFIG_INVALID', `a bootstrap address must name its peer: ${address}`, {
    hint: 'Append /p2p/<peer id> to it.'
  })
}

export class Joining implements Startable {
  readonly #components: JoiningComponents
  readonly #bootstrap: readonly KnownPeer[]
  readonly #network: JoiningNetwork
  readonly #stopping = new AbortController()
  #wake: () => void = () => {}
  #unlisten: () => void = () => {}
  #running: Promise<void> | undefined
  #remembering: { stop(): Promise<void> } | undefined

  constructor(
    components: JoiningComponents,
    init: { network: JoiningNetwork; bootstrap: readonly KnownPeer[] }
  ) {
    this.#components = components
    this.#network = init.network
    this.#bootstrap = init.bootstrap
  }

  /** Does not wait until the overlay is joined. */
  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async start(): Promise<void> {
    if (this.#running !== undefined) return
    this.#unlisten = this.#network.onDisconnect(() => this.#wake())
    this.#running = this.#run()
    this.#remembering = repeat(
      async () => this.#remember(),
      {
        clock: this.#components.clock,
        onError: (error) => this.#components.logger.warn('known peers could not be saved', { error })
      },
      { intervalMs: REMEMBER_INTERVAL_MS, initialDelayMs: REMEMBER_FIRST_MS }
    )
  }

  /** To be stopped before the network, whose connections tell who is worth remembering. */
  async stop(): Promise<void> {
    if (this.#running === undefined || this.#stopping.signal.aborted) return
    this.#unlisten()
    this.#stopping.abort(new Error('stopped'))
    await this.#remembering?.stop()
    await this.#remember().catch((error: unknown) =>
      this.#components.logger.warn('known peers could not be saved', { error })
    )
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    let wait = FIRST_RETRY_MS
    while (!signal.aborted) {
      const joined = await this.#dialMissing()
      wait = joined ? LAST_RETRY_MS : Math.min(wait * 2, LAST_RETRY_MS)
      // A lost connection ends the long wait of a peer that had joined, never the pauses between failures.
      const woken = joined ? new Promise<void>((resolve) => (this.#wake = resolve)) : undefined
      const slept = this.#components.clock.sleep(wait, { signal }).catch(() => {})
      await (woken === undefined ? slept : Promise.race([slept, woken]))
      if (joined) wait = FIRST_RETRY_MS
    }
  }

  /** Whether enough of the peers known beforehand are connected. */
  async #dialMissing(): Promise<boolean> {
    const candidates = this.#candidates()
    const wanted = Math.min(LIMITS.joinPeersMax, candidates.length)
    const missing = candidates.filter(({ principal }) => !this.#network.isConnected(principal))
    const lacking = wanted - (candidates.length - missing.length)
    if (lacking <= 0) return true
    const dialed = await Promise.all(missing.slice(0, lacking * 2).map(async (peer) => this.#dial(peer)))
    return dialed.filter(Boolean).length >= lacking
  }

  #candidates(): KnownPeer[] {
    const byPrincipal = new Map<string, KnownPeer>()
    for (const peer of [...this.#bootstrap, ...this.#components.knownPeers.list()]) {
      const same = byPrincipal.get(peer.principal)
      const multiaddrs = [...(same?.multiaddrs ?? []), ...peer.multiaddrs]
      byPrincipal.set(peer.principal, { principal: peer.principal, multiaddrs })
    }
    byPrincipal.delete(this.#network.principal)
    return [...byPrincipal.values()]
  }

  async #dial(peer: KnownPeer): Promise<boolean> {
    const signal = within(this.#components.clock, LIMITS.dialMsMax, this.#stopping.signal)
    try {
      await this.#network.dial(peer, { signal })
      return true
    } catch (error) {
      this.#components.logger.debug('a peer to join by was not reached', { principal: peer.principal, error })
      return false
    }
  }

  async #remember(): Promise<void> {
    const connected = await this.#network.neighbours(LIMITS.knownPeersMax)
    await this.#components.knownPeers.remember(connected)
  }
}
