/** Shows who vouches for this peer to every peer that it is connected to and that asks. Costs nothing without either. */
import type { PeerId } from '@libp2p/interface'
import type { Libp2p } from 'libp2p'
import type { Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { Caller } from '../protocol/method.ts'
import { membershipProtocol } from '../protocol/membership-protocol.ts'
import type { Principal } from '../ticket/principal.ts'

/** The memberships that a peer has to show, as they are now. */
export interface ShownMemberships {
  shown(): readonly Uint8Array[]
  /** Calls the listener when others are shown, until the function given back is called. */
  onChange(listener: () => void): () => void
}

export interface MembershipShowingComponents {
  readonly memberships: ShownMemberships
  readonly logger: Logger
  readonly call: (principal: Principal) => Caller<typeof membershipProtocol.methods>
}

const SHOW_MS = 10_000
/** Peers that are told of a change at the same time. */
const SHOWN_AT_ONCE = 16

export class MembershipShowing implements Startable {
  readonly #components: MembershipShowingComponents
  readonly #libp2p: Libp2p
  #unsubscribe: () => void = () => {}
  #topology: string | undefined

  constructor(components: MembershipShowingComponents, init: { readonly libp2p: Libp2p }) {
    this.#components = components
    this.#libp2p = init.libp2p
  }

  /** To be started before libp2p, so that no connection is missed. */
  async start(): Promise<void> {
    if (this.#topology !== undefined) return
    this.#topology = await this.#libp2p.register(membershipProtocol.id, {
      notifyOnLimitedConnection: true,
      onConnect: (peer) => void this.#show(peer)
    })
    this.#unsubscribe = this.#components.memberships.onChange(() => void this.#showAll())
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async stop(): Promise<void> {
    this.#unsubscribe()
    if (this.#topology !== undefined) this.#libp2p.unregister(this.#topology)
    this.#topology = undefined
  }

  async #showAll(): Promise<void> {
    const peers = this.#libp2p.getPeers()
    const next = async (): Promise<void> => {
      for (let peer = peers.pop(); peer !== undefined; peer = peers.pop()) {
        const stored = await this.#libp2p.peerStore.get(peer).catch(() => undefined)
        if (stored?.protocols.includes(membershipProtocol.id) === true) await this.#show(peer)
      }
    }
    await Promise.all(Array.from({ length: SHOWN_AT_ONCE }, next))
  }

  async #show(peer: PeerId): Promise<void> {
    const { memberships, logger, call } = this.#components
    const shown = memberships.shown()
    if (shown.length === 0) return
    const principal = peer.toString()
    try {
      const params = { memberships: [...shown] }
      const { admitted } = await call(principal)('show', params, { signal: AbortSignal.timeout(SHOW_MS) })
      logger.debug('memberships were shown', { principal, admitted })
    } catch (error) {
      logger.debug('memberships could not be shown', { principal, error })
    }
  }
}
