/**
 * Holds connections to a policy. Addresses are looked at before any handshake, principals once Noise has proven them, and
 * who must show a membership has a few seconds for it, in which its calls wait. Whoever is denied is not dialed either.
 */
import { lookup } from 'node:dns/promises'
import type { Connection, ConnectionGater, PeerId } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { Libp2p } from 'libp2p'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { membershipProtocol } from '../protocol/membership-protocol.ts'
import type { Handlers } from '../protocol/method.ts'
import { membershipsOf, organisationsAt, type Membership } from '../ticket/membership.ts'
import type { Principal } from '../ticket/principal.ts'
import { firstHop } from './address-range.ts'
import { ConnectionJudge, type ConnectionPolicy, type Verdict } from './connection-policy.ts'
import { SignerRate } from './signer-rate.ts'

export interface ConnectionGateComponents {
  readonly clock: Clock
  readonly logger: Logger
}

export interface ConnectionGateInit {
  readonly policy: ConnectionPolicy
  /** How long a peer may take to show a membership; default `LIMITS.membershipShowMsMax`. */
  readonly showMs?: number
}

/** What a connected peer showed, and how often it may. */
interface Shown {
  readonly rate: SignerRate
  memberships: readonly Membership[]
}

/** A peer that has yet to show a membership. */
interface Unproven {
  readonly over: AbortController
  readonly decided: PromiseWithResolvers<boolean>
  /** Its calls that wait for the decision. */
  calls: number
}

const SHOWS = { burst: LIMITS.membershipShowsBurst, perMinute: LIMITS.membershipShowsPerMinute }
/** How soon it shows that a membership is over. */
const REVIEW_INTERVAL_MS = 10_000
/** In which the answers to calls that waited reach a peer that is turned away; and how long closing may take. */
const LINGER_MS = 2000
const CLOSE_MS = 2000
/** So long this peer does not dial whom it turned away. */
const AVOID_MS = 10 * 60_000

export class ConnectionGate implements Startable {
  readonly #components: ConnectionGateComponents
  readonly #showMs: number
  readonly #trusted = new Set<Principal>()
  readonly #shown = new Map<Principal, Shown>()
  readonly #unproven = new Map<Principal, Unproven>()
  /** Until when those that were turned away are not dialed, on the monotonic clock; they may come themselves. */
  readonly #avoided = new Map<Principal, number>()
  #policy: ConnectionPolicy
  #judge: ConnectionJudge
  #libp2p: Libp2p | undefined
  #reviews: { stop(): Promise<void> } | undefined

  constructor(components: ConnectionGateComponents, init: ConnectionGateInit) {
    this.#components = components
    this.#showMs = init.showMs ?? LIMITS.membershipShowMsMax
    this.#policy = init.policy
    this.#judge = new ConnectionJudge(init.policy)
  }

  /** Allows principals that this peer's own configuration names, unless they are denied. */
  trust(principals: readonly Principal[]): void {
    for (const principal of principals) this.#trusted.add(principal)
    this.usePolicy(this.#policy)
  }

  /** Takes another policy, for connections that are open too. */
  usePolicy(policy: ConnectionPolicy): void {
    this.#policy = policy
    this.#judge = new ConnectionJudge(policy, this.#trusted)
    this.#avoided.clear()
    this.#review()
  }

  /** Before libp2p is started, so that no connection is missed. */
  attach(libp2p: Libp2p): void {
    this.#libp2p = libp2p
    libp2p.addEventListener('connection:open', this.#onOpen)
    libp2p.addEventListener('peer:disconnect', this.#onDisconnect)
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async start(): Promise<void> {
    const { clock, logger } = this.#components
    this.#reviews ??= repeat(
      async () => this.#review(),
      { clock, onError: (error) => logger.warn('connections could not be reviewed', { error }) },
      { intervalMs: REVIEW_INTERVAL_MS, initialDelayMs: REVIEW_INTERVAL_MS }
    )
  }

  async stop(): Promise<void> {
    const reviews = this.#reviews
    this.#reviews = undefined
    await reviews?.stop()
    this.#libp2p?.removeEventListener('connection:open', this.#onOpen)
    this.#libp2p?.removeEventListener('peer:disconnect', this.#onDisconnect)
    this.#libp2p = undefined
    for (const principal of this.#unproven.keys()) this.#decide(principal, false)
    this.#shown.clear()
  }

  /** For libp2p, which asks before it goes on with a connection. */
  gater(): ConnectionGater {
    const isDenied = (peer: PeerId): boolean => this.#judge.isPrincipalDenied(peer.toString())
    const isRefused = (peer: PeerId, { remoteAddr }: { readonly remoteAddr: Multiaddr }): boolean =>
      this.#isRefused(peer.toString(), remoteAddr)
    return {
      denyDialPeer: (peer) => isDenied(peer) || this.#isAvoided(peer.toString()),
      denyDialMultiaddr: async (multiaddr) => this.#isPlaceDenied(multiaddr),
      denyInboundConnection: ({ remoteAddr }) => this.#judge.isClosedTo(firstHop(remoteAddr).address),
      denyInboundEncryptedConnection: isRefused,
      denyOutboundEncryptedConnection: isRefused,
      denyInboundRelayReservation: isDenied,
      denyOutboundRelayedConnection: (source, destination) => isDenied(source) || isDenied(destination),
      denyInboundRelayedConnection: (_relay, peer) => isDenied(peer)
    }
  }

  handlers(): Handlers<typeof membershipProtocol.methods> {
    return {
      // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
      show: async ({ memberships }, { principal }) => {
        if (principal === undefined || this.#connections(principal).length === 0) return { admitted: false }
        const shown = this.#shown.get(principal) ?? { rate: new SignerRate(SHOWS), memberships: [] }
        this.#shown.set(principal, shown)
        if (!shown.rate.take(this.#components.clock.monotonic())) {
          throw new SlicenetError('BUSY', 'memberships are shown too often')
        }
        shown.memberships = membershipsOf(memberships, principal)
        this.#reviewOne(principal)
        return { admitted: this.#verdictOn(principal) === 'admitted' }
      }
    }
  }

  /** Resolves when a caller is let in, at once or once it has shown a membership. Throws `DENIED` when it is not, and `BUSY`. */
  async admit(protocolId: string, principal: Principal): Promise<void> {
    const isOwn = principal === this.#libp2p?.peerId.toString()
    if (protocolId === membershipProtocol.id || isOwn) return
    if (this.#verdictOn(principal) === 'admitted') return
    const waiting = this.#unproven.get(principal)
    if (waiting === undefined) throw new SlicenetError('DENIED', 'this peer does not let the caller connect')
    if (waiting.calls >= LIMITS.unprovenCallsMax) {
      throw new SlicenetError(
        'BUSY',
        `more than ${LIMITS.unprovenCallsMax} calls wait for a membership to be shown`
      )
    }
    waiting.calls += 1
    if (await waiting.decided.promise) return
    throw new SlicenetError(
      'DENIED',
      'this peer lets in members of certain organisations, and no such membership was shown',
      {
        hint: 'get a membership of an organisation that this peer allows, and take it in with `slicenet org join`'
      }
    )
  }

  /** A moment later, when libp2p counts the connection among those that are open. */
  readonly #onOpen = ({ detail }: { readonly detail: Connection }): void =>
    queueMicrotask(() => this.#reviewOne(detail.remotePeer.toString()))

  readonly #onDisconnect = ({ detail }: { readonly detail: PeerId }): void => {
    const principal = detail.toString()
    this.#shown.delete(principal)
    this.#decide(principal, false)
  }

  #isRefused(principal: Principal, remoteAddr: Multiaddr): boolean {
    const verdict = this.#verdict(principal, remoteAddr)
    const isFull = this.#unproven.size >= LIMITS.unprovenPeersMax && !this.#unproven.has(principal)
    const isRefused = verdict === 'denied' || (verdict === 'unproven' && isFull)
    if (isRefused) this.#components.logger.debug('a connection was refused', { principal, verdict })
    return isRefused
  }

  /** Names are looked up: what they stand for is what would be dialed. */
  async #isPlaceDenied(multiaddr: Multiaddr): Promise<boolean> {
    const { address, name } = firstHop(multiaddr)
    if (address !== undefined) return this.#judge.isAddressDenied(address)
    if (name === undefined || !this.#judge.deniesAddresses) return false
    const found = await lookup(name, { all: true }).catch(() => [])
    return found.some((one) => this.#judge.isAddressDenied(one.address))
  }

  #verdict(principal: Principal, remoteAddr: Multiaddr): Verdict {
    const { address, isRelayed } = firstHop(remoteAddr)
    const memberships = this.#shown.get(principal)?.memberships ?? []
    const organisations = organisationsAt(memberships, this.#components.clock.now())
    return this.#judge.judge({ principal, address: isRelayed ? undefined : address, organisations })
  }

  /** A peer is what the best of its connections makes it; but one that is denied is denied. */
  #verdictOn(principal: Principal): Verdict {
    const verdicts = this.#connections(principal).map(({ remoteAddr }) =>
      this.#verdict(principal, remoteAddr)
    )
    return verdicts.includes('denied') ? 'denied' : verdicts.includes('admitted') ? 'admitted' : 'unproven'
  }

  #connections(principal: Principal): Connection[] {
    return this.#libp2p?.getConnections(peerIdFromString(principal)) ?? []
  }

  #review(): void {
    const principals = new Set(this.#libp2p?.getConnections().map(({ remotePeer }) => remotePeer.toString()))
    for (const principal of principals) this.#reviewOne(principal)
  }

  #reviewOne(principal: Principal): void {
    if (this.#connections(principal).length === 0) return
    const verdict = this.#verdictOn(principal)
    if (verdict === 'admitted') {
      this.#avoided.delete(principal)
      this.#decide(principal, true)
    }
    if (verdict === 'denied') this.#turnAway(principal, 'denied')
    if (verdict === 'unproven' && !this.#unproven.has(principal)) void this.#await(principal)
  }

  /** Gives a peer its time to show a membership. */
  async #await(principal: Principal): Promise<void> {
    // More may come at once than were counted when the gater was asked.
    if (this.#unproven.size >= LIMITS.unprovenPeersMax) {
      this.#turnAway(principal, 'too many peers have yet to show a membership')
      return
    }
    const unproven = { over: new AbortController(), decided: Promise.withResolvers<boolean>(), calls: 0 }
    this.#unproven.set(principal, unproven)
    try {
      await this.#components.clock.sleep(this.#showMs, { signal: unproven.over.signal })
    } catch {
      return
    }
    // Its calls are answered first.
    this.#decide(principal, false)
    await this.#components.clock.sleep(LINGER_MS)
    if (this.#libp2p === undefined || this.#verdictOn(principal) === 'admitted') return
    this.#turnAway(principal, 'it showed no membership of an organisation that is allowed')
  }

  /** Else joining, or whoever has a call for it, would bring it back at once. */
  #avoid(principal: Principal): void {
    this.#avoided.delete(principal)
    this.#avoided.set(principal, this.#components.clock.monotonic() + AVOID_MS)
    const [oldest] = this.#avoided.keys()
    if (this.#avoided.size > LIMITS.avoidedPeersMax && oldest !== undefined) this.#avoided.delete(oldest)
  }

  #isAvoided(principal: Principal): boolean {
    const until = this.#avoided.get(principal)
    return until !== undefined && this.#components.clock.monotonic() < until
  }

  #decide(principal: Principal, isAdmitted: boolean): void {
    const unproven = this.#unproven.get(principal)
    this.#unproven.delete(principal)
    unproven?.over.abort()
    unproven?.decided.resolve(isAdmitted)
  }

  #turnAway(principal: Principal, why: string): void {
    this.#decide(principal, false)
    this.#avoid(principal)
    this.#components.logger.info('a peer is turned away', { principal, why })
    for (const connection of this.#connections(principal)) {
      void connection.close({ signal: AbortSignal.timeout(CLOSE_MS) }).catch((error: Error) => {
        connection.abort(error)
      })
    }
  }
}
