/**
 * Keeps a peer reachable: finds out whether others can dial it, gets slots at relays while they cannot, and serves as a
 * relay itself otherwise. It acts on what happens to connections and is idle otherwise.
 */
import type { Connection, IdentifyResult, PeerId, PeerUpdate } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import type { Clock } from '../base/clock.ts'
import type { Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Caller } from '../protocol/method.ts'
import type { reachProtocol } from '../protocol/reach-protocol.ts'
import type { Principal } from '../ticket/principal.ts'
import { hostOf } from './address-kinds.ts'
import type { AnnouncedAddresses } from './announced-addresses.ts'
import { isDirect } from './connections.ts'
import { judgeReach, type ReachVerdict, type Sighting } from './judged-reach.ts'
import type { PeerLibp2p } from './libp2p-options.ts'
import type { Relaying } from './relaying.ts'

const HOP_PROTOCOL = '/libp2p/circuit/relay/0.2.0/hop'
/** What comes at once is looked at at once. */
const SETTLE_MS = 300
const IDLE_MS = 60_000
/** Those who know nothing yet ask others to dial them, when nobody did for so long by himself; and again so much later. */
const ASK_AFTER_MS = 10_000
const ASK_AGAIN_MS = 10 * 60_000
const ASKED_MAX = 3
const ASK_MS = 15_000
/** A relay that refused is left alone for so long. */
const REFUSED_MS = 60_000
const DIALERS_MAX = 16

/** What a peer does for its own and others' reach. */
export interface ReachInit {
  /** Whether it relays for others: `auto` unless it is unreachable. */
  readonly relay: 'auto' | 'always' | 'never'
  /** Whether it has slots at relays: `auto` while it is not reachable. */
  readonly reserve: 'auto' | 'always' | 'never'
  /** Whether it looks for peers on its LAN, by multicast. */
  readonly mdns: boolean
}

export const DEFAULT_REACH: ReachInit = { relay: 'auto', reserve: 'auto', mdns: false }

export interface ReachComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly announced: AnnouncedAddresses
  readonly callReach: (principal: Principal) => Caller<(typeof reachProtocol)['methods']>
}

export interface ReachKeeperInit {
  readonly libp2p: PeerLibp2p
  readonly reach: ReachInit
  readonly isAnnounced: boolean
  readonly dhtMode: 'server' | 'client'
}

export class ReachKeeper implements Startable {
  readonly #components: ReachComponents
  readonly #init: ReachKeeperInit
  readonly #relaying: Relaying
  readonly #stopping = new AbortController()
  /** By those connected that this peer dialed. */
  readonly #sightings = new Map<Principal, Sighting>()
  readonly #dialedBy = new Set<string>()
  readonly #refusedAt = new Map<Principal, number>()
  #missedBy = 0
  #askedAt: number | undefined
  #verdict: ReachVerdict = 'unknown'
  /** The addresses that others know. */
  #told = ''
  #wake: () => void = () => {}
  #isWoken = false
  #running: Promise<void> | undefined

  constructor(components: ReachComponents, init: ReachKeeperInit) {
    this.#components = components
    this.#init = init
    this.#relaying = init.libp2p.services.relaying
  }

  get verdict(): ReachVerdict {
    return this.#verdict
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async start(): Promise<void> {
    if (this.#running !== undefined) return
    const { libp2p } = this.#init
    libp2p.addEventListener('connection:open', this.#onOpen)
    libp2p.addEventListener('peer:identify', this.#onIdentify)
    libp2p.addEventListener('peer:update', this.#onUpdate)
    libp2p.addEventListener('peer:disconnect', this.#onDisconnect)
    this.#relaying.onSlot(this.#onSlot)
    this.#told = libp2p.getMultiaddrs().join()
    for (const connection of libp2p.getConnections()) this.#note(connection)
    this.#running = this.#run(this.#stopping.signal)
  }

  async stop(): Promise<void> {
    if (this.#running === undefined || this.#stopping.signal.aborted) return
    const { libp2p } = this.#init
    libp2p.removeEventListener('connection:open', this.#onOpen)
    libp2p.removeEventListener('peer:identify', this.#onIdentify)
    libp2p.removeEventListener('peer:update', this.#onUpdate)
    libp2p.removeEventListener('peer:disconnect', this.#onDisconnect)
    this.#stopping.abort(new Error('stopped'))
    await this.#running
    await this.#relaying.stopServing()
    this.#giveSlotsUp()
  }

  readonly #onOpen = ({ detail }: CustomEvent<Connection>): void => this.#note(detail)

  #note(connection: Connection): void {
    if (connection.direction !== 'inbound' || !isDirect(connection)) return
    const host = hostOf(connection.remoteAddr)
    if (host === undefined || this.#dialedBy.has(host) || this.#dialedBy.size >= DIALERS_MAX) return
    this.#dialedBy.add(host)
    this.#lookSoon()
  }

  readonly #onIdentify = ({ detail }: CustomEvent<IdentifyResult>): void => {
    const { connection, observedAddr, peerId } = detail
    if (connection.direction !== 'outbound' || !isDirect(connection)) return
    const as = observedAddr === undefined ? undefined : hostOf(observedAddr)
    const by = hostOf(connection.remoteAddr)
    if (as === undefined || by === undefined) return
    this.#sightings.set(peerId.toString(), { as, by })
    this.#lookSoon()
  }

  /** Of interest are peers that become relays or cease to be. */
  readonly #onUpdate = ({ detail }: CustomEvent<PeerUpdate>): void => {
    const { peer, previous } = detail
    const isRelay = peer.protocols.includes(HOP_PROTOCOL)
    if (isRelay === (previous?.protocols.includes(HOP_PROTOCOL) ?? false)) return
    if (!isRelay) this.#components.announced.removeRelay(peer.id.toString())
    this.#lookSoon()
  }

  readonly #onDisconnect = ({ detail }: CustomEvent<PeerId>): void => {
    this.#relaying.release(detail)
    this.#refusedAt.delete(detail.toString())
    if (this.#sightings.delete(detail.toString())) this.#lookSoon()
  }

  readonly #onSlot: Parameters<Relaying['onSlot']>[0] = (relay, addresses) => {
    const { announced } = this.#components
    if (addresses === undefined) {
      if (announced.removeRelay(relay)) this.#lookSoon()
    } else if (announced.relays.includes(relay)) announced.addRelay(relay, addresses)
  }

  #lookSoon(): void {
    this.#isWoken = true
    this.#wake()
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#components
    while (!signal.aborted) {
      this.#isWoken = false
      try {
        await this.#look(signal)
      } catch (error) {
        if (!signal.aborted) logger.warn('the reach of this peer could not be kept', { error })
      }
      await clock.sleep(SETTLE_MS, { signal }).catch(() => {})
      if (!this.#isWoken) await this.#pause(signal)
    }
  }

  async #pause(signal: AbortSignal): Promise<void> {
    const woken = new AbortController()
    this.#wake = () => woken.abort(new Error('woken'))
    const ms = this.#verdict === 'unknown' && this.#sightings.size > 0 ? ASK_AFTER_MS : IDLE_MS
    await this.#components.clock
      .sleep(ms, { signal: AbortSignal.any([signal, woken.signal]) })
      .catch(() => {})
  }

  async #look(signal: AbortSignal): Promise<void> {
    let verdict = this.#judge()
    if (this.#mayAsk(verdict)) {
      await this.#ask(signal)
      verdict = this.#judge()
    }
    await this.#apply(verdict)
    await this.#keepSlots(signal)
    const told = this.#init.libp2p.getMultiaddrs().join()
    if (told === this.#told) return
    this.#told = told
    await this.#relaying.tell()
  }

  #judge(): ReachVerdict {
    return judgeReach({
      isAnnounced: this.#init.isAnnounced,
      hosts: this.#relaying.listening().flatMap((address) => hostOf(address) ?? []),
      sightings: [...this.#sightings.values()],
      dialedBy: [...this.#dialedBy],
      missedBy: this.#missedBy
    })
  }

  async #apply(verdict: ReachVerdict): Promise<void> {
    const { reach, dhtMode, libp2p } = this.#init
    const { announced, logger } = this.#components
    if (verdict !== this.#verdict) logger.info('others reach this peer or not', { verdict })
    this.#verdict = verdict
    announced.isUnreachable = verdict === 'unreachable'
    // Before it knows, too: to begin later would be news to every peer that is connected by then.
    if (reach.relay === 'always' || (reach.relay === 'auto' && verdict !== 'unreachable')) {
      await this.#relaying.serve()
    } else await this.#relaying.stopServing()
    // Whoever asks a peer in the DHT would do so through its relays.
    if (dhtMode === 'server') {
      await libp2p.services.dht.setMode(verdict === 'unreachable' ? 'client' : 'server')
    }
  }

  /** Who was dialed by nobody and knows nothing else; or could not be dialed, and things may have changed. */
  #mayAsk(verdict: ReachVerdict): boolean {
    if (this.#sightings.size === 0 || (verdict !== 'unknown' && this.#missedBy === 0)) return false
    const now = this.#components.clock.monotonic()
    // The first time only notes when the wait begins.
    this.#askedAt ??= now - ASK_AGAIN_MS + ASK_AFTER_MS
    return now - this.#askedAt >= ASK_AGAIN_MS
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const { clock, callReach, logger } = this.#components
    this.#askedAt = clock.monotonic()
    const addresses = this.#relaying.listening().slice(0, LIMITS.dialBackAddressesMax).map(String)
    let missed = 0
    for (const principal of [...this.#sightings.keys()].slice(0, ASKED_MAX)) {
      const within = AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)])
      try {
        const { tried, reached } = await callReach(principal)('dialBack', { addresses }, { signal: within })
        if (reached) break
        if (tried > 0) missed += 1
      } catch (error) {
        logger.debug('a peer did not dial back', { principal, error })
      }
    }
    this.#missedBy = missed
  }

  async #keepSlots(signal: AbortSignal): Promise<void> {
    const { announced, clock, logger } = this.#components
    const { reach } = this.#init
    if (reach.reserve === 'never' || (reach.reserve === 'auto' && this.#verdict !== 'unreachable')) {
      this.#giveSlotsUp()
      return
    }
    for (const relay of await this.#candidates()) {
      if (announced.relays.length >= LIMITS.relaysHeldMax || signal.aborted) return
      try {
        announced.addRelay(relay.toString(), await this.#relaying.reserve(relay))
        logger.info('this peer is reached through a relay', { relay: relay.toString() })
      } catch (error) {
        this.#refusedAt.set(relay.toString(), clock.monotonic())
        logger.debug('a relay gave no slot', { relay: relay.toString(), error })
      }
    }
  }

  #giveSlotsUp(): void {
    const { announced } = this.#components
    if (announced.relays.length === 0) return
    this.#relaying.cancelSlots()
    for (const relay of announced.relays) announced.removeRelay(relay)
  }

  /** Connected relays, without those that have a slot for this peer or refused it lately. */
  async #candidates(): Promise<PeerId[]> {
    const { announced, clock } = this.#components
    const { libp2p } = this.#init
    if (announced.relays.length >= LIMITS.relaysHeldMax) return []
    const since = clock.monotonic() - REFUSED_MS
    const relays: PeerId[] = []
    for (const principal of new Set(libp2p.getConnections().filter(isDirect).map(remoteOf))) {
      if (announced.relays.includes(principal)) continue
      if ((this.#refusedAt.get(principal) ?? -Infinity) > since) continue
      const peer = peerIdFromString(principal)
      const stored = await libp2p.peerStore.get(peer).catch(() => undefined)
      if (stored?.protocols.includes(HOP_PROTOCOL) === true) relays.push(peer)
    }
    return relays
  }
}

function remoteOf({ remotePeer }: Connection): Principal {
  return remotePeer.toString()
}
