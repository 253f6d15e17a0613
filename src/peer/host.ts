/**
 * A peer: one libp2p host with the calls it serves and makes. It starts fast and joins the overlay in the background.
 */
import type { PeerInfo } from '@libp2p/interface'
import { createLibp2p } from 'libp2p'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { Lifecycle, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import { membershipProtocol } from '../protocol/membership-protocol.ts'
import type { Caller, Handlers, Methods, Protocol } from '../protocol/method.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { RefusalSigner } from '../ticket/refusal-signer.ts'
import { reachProtocol } from '../protocol/reach-protocol.ts'
import { AnnouncedAddresses } from './announced-addresses.ts'
import type { ConnectionGate } from './connection-gate.ts'
import { ContactKeeper } from './contact-keeper.ts'
import { createCaller, rememberAddresses } from './calling.ts'
import { dialBackHandlers } from './dial-back.ts'
import { IdleConnections } from './idle-connections.ts'
import { Joining, parseBootstrap } from './joining.ts'
import { KnownPeers, type KnownPeer } from './known-peers.ts'
import { cachePeers } from './peer-cache.ts'
import { peerLibp2pOptions, refreshRarely, type PeerLibp2p } from './libp2p-options.ts'
import { libp2pDht, libp2pGossip, libp2pJoining, watchLibp2pPeers } from './libp2p-overlay.ts'
import type { DirectoryHost, OverlayDht, OverlayGossip, PeerWatcher } from './overlay.ts'
import { NearbyPeers } from './nearby.ts'
import { MembershipShowing, type ShownMemberships } from './membership-showing.ts'
import { NO_RULES, type OverlayRules } from './overlay-rules.ts'
import { DEFAULT_REACH, ReachKeeper, type ReachInit } from './reach.ts'
import { ReverseDialing } from './reverse-dialing.ts'
import { Serving } from './serving.ts'

export interface PeerHostComponents {
  readonly logger: Logger
  readonly clock: Clock
}

export interface PeerHostInit {
  readonly key: SigningKey
  /** Multiaddrs such as `/ip4/0.0.0.0/tcp/4001`; none for a peer that only dials. */
  readonly listen: readonly string[]
  /** What others are told instead of the addresses listened on. */
  readonly announce?: readonly string[]
  /** Multiaddrs ending in `/p2p/<peer id>`. */
  readonly bootstrap: readonly string[]
  /** Where the peers known from before are kept, in a file `known-peers.json`; nowhere when absent. */
  readonly stateDirectory?: string
  /** Servers answer queries and keep records of others; short-lived and hidden peers are clients. */
  readonly dhtMode: 'server' | 'client'
  /** Default `DEFAULT_REACH`. */
  readonly reach?: ReachInit
  /** Holds connections to a policy; everybody may connect without one. */
  readonly gate?: ConnectionGate
  /** Who vouches for this peer, to be shown to peers that ask. */
  readonly memberships?: ShownMemberships
}

export interface PeerHost extends DirectoryHost, Startable, AsyncDisposable {
  /** Where others reach this peer, each with its `/p2p/…`. Empty before `start`. */
  multiaddrs(): string[]
  /** Throws `TypeError` unless started. */
  readonly libp2p: PeerLibp2p
  /** Joins by these peers as well, as long as this object lives. Throws as `createPeerHost`. */
  addBootstrap(multiaddrs: readonly string[]): void
}

/** Throws `CONFIG_INVALID` when a bootstrap address does not name its peer. */
export function createPeerHost(components: PeerHostComponents, init: PeerHostInit): PeerHost {
  return new Libp2pPeerHost(components, init)
}

class Libp2pPeerHost implements PeerHost {
  readonly principal: Principal
  readonly #components: PeerHostComponents
  readonly #init: PeerHostInit
  readonly #bootstrap: KnownPeer[]
  readonly #serving: Serving
  #rules: OverlayRules = NO_RULES
  readonly #announced: AnnouncedAddresses
  readonly #nearby = new NearbyPeers()
  #libp2p: PeerLibp2p | undefined
  #upkeep: Lifecycle | undefined
  #idle: IdleConnections | undefined
  #guards: Lifecycle | undefined

  constructor(components: PeerHostComponents, init: PeerHostInit) {
    this.#components = components
    this.#init = init
    this.principal = init.key.principal
    this.#bootstrap = init.bootstrap.map(parseBootstrap)
    this.#announced = new AnnouncedAddresses(this.principal)
    const refusals = new RefusalSigner(init.key, () => components.clock.now())
    this.#serving = new Serving({
      onCall: (principal) => this.#idle?.use(principal),
      logger: components.logger,
      refuse: (reason, request) => refusals.sign(reason, request).bytes,
      ...(init.gate === undefined ? {} : { admit: async (...call) => init.gate?.admit(...call) })
    })
    const { clock } = components
    void this.#serving.serve(reachProtocol, dialBackHandlers({ clock, libp2p: () => this.libp2p }))
    if (init.gate !== undefined) void this.#serving.serve(membershipProtocol, init.gate.handlers())
  }

  get libp2p(): PeerLibp2p {
    if (this.#libp2p === undefined) throw new TypeError('the peer is not started')
    return this.#libp2p
  }

  get gossip(): OverlayGossip {
    return libp2pGossip(this.libp2p.services.pubsub)
  }

  get dht(): OverlayDht {
    return libp2pDht(this.libp2p.services.dht)
  }

  addBootstrap(multiaddrs: readonly string[]): void {
    const known = new Set(this.#bootstrap.flatMap((peer) => peer.multiaddrs))
    const added = multiaddrs.filter((address) => !known.has(address)).map(parseBootstrap)
    this.#bootstrap.push(...added)
    this.#init.gate?.trust(added.map(({ principal }) => principal))
  }

  multiaddrs(): string[] {
    return this.#libp2p?.getMultiaddrs().map((address) => address.toString()) ?? []
  }

  connected(): Principal[] {
    return this.#libp2p?.getPeers().map((peer) => peer.toString()) ?? []
  }

  /** Throws `PORT_IN_USE` naming the address, `CONFIG_INVALID` for one that cannot be listened on. */
  async start(): Promise<void> {
    if (this.#libp2p !== undefined) return
    const { key, listen, announce = [], dhtMode, stateDirectory, reach = DEFAULT_REACH } = this.#init
    const announced = this.#announced
    const onNearby = reach.mdns ? (peer: PeerInfo) => this.#nearby.found(peer, this.libp2p) : undefined
    const libp2p = await createLibp2p(
      await peerLibp2pOptions(
        { key, listen, announce, dhtMode, announced, onNearby, gater: this.#init.gate?.gater() },
        this.#rules
      )
    )
    this.#libp2p = libp2p
    cachePeers(libp2p.peerStore, this.#components)
    const knownPeers = new KnownPeers(this.#components, {
      file: stateDirectory === undefined ? undefined : join(stateDirectory, 'known-peers.json')
    })
    try {
      // Before the first connection, so that identify names every protocol.
      await this.#serving.start(libp2p)
      await knownPeers.load()
      await this.#guard(libp2p)
      refreshRarely(libp2p)
      await libp2p.start()
      const callReach = (peer: Principal) => this.caller(reachProtocol, peer)
      const components = { ...this.#components, knownPeers, announced, callReach }
      this.#idle = new IdleConnections(components, { libp2p })
      this.#upkeep = new Lifecycle([
        new ReverseDialing(components, { libp2p }),
        new ReachKeeper(components, { libp2p, reach, dhtMode, isAnnounced: announce.length > 0 }),
        new Joining(components, { network: libp2pJoining(libp2p), bootstrap: this.#bootstrap }),
        new ContactKeeper(components, { libp2p }),
        this.#idle
      ])
      await this.#upkeep.start()
    } catch (error) {
      await this.stop().catch(() => {})
      throw listenError(error, listen)
    }
  }

  /** Before there are connections: who is let in, and showing others that this peer may be. */
  async #guard(libp2p: PeerLibp2p): Promise<void> {
    const { gate, memberships } = this.#init
    const { logger } = this.#components
    gate?.trust(this.#bootstrap.map(({ principal }) => principal))
    gate?.attach(libp2p)
    const call = (principal: Principal) => this.caller(membershipProtocol, principal)
    const showing = memberships && new MembershipShowing({ memberships, logger, call }, { libp2p })
    this.#guards = new Lifecycle([gate, showing].filter((part) => part !== undefined))
    await this.#guards.start()
  }

  async stop(): Promise<void> {
    const libp2p = this.#libp2p
    if (libp2p === undefined) return
    await this.#upkeep?.stop()
    this.#upkeep = undefined
    await this.#guards?.stop()
    this.#guards = undefined
    await this.#serving.stop()
    await libp2p.stop()
    this.#libp2p = undefined
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  caller<M extends Methods>(protocol: Protocol<M>, principal: Principal): Caller<M> {
    const components = {
      principal: this.principal,
      libp2p: () => this.libp2p,
      serving: this.#serving,
      addressesOf: (other: Principal) => this.#rules.addressesOf(other),
      onCall: (other: Principal) => this.#idle?.use(other)
    }
    return createCaller(components, protocol, principal)
  }

  async serve<M extends Methods>(protocol: Protocol<M>, handlers: Handlers<M>): Promise<void> {
    await this.#serving.serve(protocol, handlers)
  }

  async addAddresses(principal: Principal, multiaddrs: readonly string[]): Promise<void> {
    await rememberAddresses(this.libp2p, principal, multiaddrs)
  }

  async watchPeers(protocolId: string, watcher: PeerWatcher): Promise<() => void> {
    return watchLibp2pPeers(this.libp2p, protocolId, watcher)
  }

  useRules(rules: OverlayRules): void {
    if (this.#libp2p !== undefined) throw new TypeError('rules are set before the peer is started')
    this.#rules = rules
  }
}

/** libp2p names the addresses that failed only in the text of its error, one a line. */
function listenError(error: unknown, listen: readonly string[]): unknown {
  if (!(error instanceof Error) || error.name !== 'UnsupportedListenAddressesError') return error
  const lines = error.message.split('\n')
  const taken = listen.filter((address) =>
    lines.some((line) => line.includes(`${address}:`) && line.includes('EADDRINUSE'))
  )
  if (taken.length > 0) {
    return new SlicenetError('PORT_IN_USE', `another program listens on ${taken.join(', ')}`, {
      hint: 'Stop it, or choose another address with `listen` in the configuration.',
      details: { addresses: taken },
      cause: error
    })
  }
  const why = lines.slice(1).join(' ').trim()
  return new SlicenetError('CONFIG_INVALID', `cannot listen: ${why}`, { cause: error })
}
