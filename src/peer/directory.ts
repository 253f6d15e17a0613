/**
 * The directory: the adverts this peer knows, fed by gossip, by exchange with connected peers and by the DHT, because
 * each alone is known to lose some (design §4), and the publishing of its own.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { endsBefore, Patience, within } from '../base/time-limit.ts'
import { directoryProtocol } from '../protocol/directory-protocol.ts'
import type { Advertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import {
  advertKey,
  AdvertTable,
  keyOfAdvert,
  type AdvertRole,
  type DirectoryEntry,
  type Verdict
} from './advert-table.ts'
import { advertRecordRule, RECORD_NAMESPACE } from './dht-records.ts'
import { DhtSearches } from './dht-searches.ts'
import { DhtUpkeep, type MakeRecord } from './dht-upkeep.ts'
import { Exchanges } from './exchanges.ts'
import { Gossip } from './gossip.ts'
import type { DirectoryHost } from './overlay.ts'
import { Presence } from './presence.ts'
import { mattersTo, type Interests } from './interests.ts'
import { proofHandlers } from './proof-exchange.ts'
import { ProofTable } from './proof-table.ts'
import { createProofs, type Proofs } from './proofs.ts'
import { advertHandlers } from './pull.ts'
import { TopicNeighbours } from './topic-neighbours.ts'
import { AGENTS_TOPIC, BROKERS_TOPIC, PROOFS_TOPIC } from './topics.ts'

const SWEEP_INTERVAL_MS = 5000
const LOOKUP_MS = 10_000
const PUSH_MS = 10_000
const STRAGGLERS_MS = 2000

export interface DirectoryComponents {
  readonly host: DirectoryHost
  readonly clock: Clock
  readonly logger: Logger
}

export interface DirectoryInit {
  /** Whether this peer gathers the adverts of others: agents and brokers do, nodes do not. */
  readonly collects: boolean
  /** Whether it gathers only what it listens to and what nodes say that delegate to it, as agents do. */
  readonly onlyTopics?: boolean
  /** How often a few connected peers are asked for what gossip missed. */
  readonly pullIntervalMs?: number
  /** How often an own advert is put into the DHT, which is dear. */
  readonly dhtPutIntervalMs?: number
  /** Ways that are not used, and parts that do not work, so that each can be shown to matter. */
  readonly without?: readonly ('gossip' | 'pull' | 'dht' | 'presence')[]
}

/** Where an own advert goes. */
export interface Audience {
  readonly topics: readonly string[]
  readonly agents: readonly Principal[]
  /** Makes what is put into the DHT, which is good until the next put; the advert itself when absent. */
  readonly record?: MakeRecord
}

export interface Directory extends Startable {
  /** The proofs of fraud that this peer knows; they travel as the adverts do, to everybody. */
  readonly proofs: Proofs
  /**
   * Publishes an own advert: to the topics by gossip, to the agents directly, and to the DHT when it is due there.
   * Resolves when the agents have it or could not be reached; that nobody listens is no error.
   */
  publish(advert: Signed<Advertisement>, to: Audience): Promise<void>
  /** Listens to adverts of a topic; gives whether there is room, see `LIMITS.topicsPerPeerMax`. */
  subscribe(topic: string): boolean
  unsubscribe(topic: string): void
  /** What is known and has not expired. */
  entries(): DirectoryEntry[]
  /** A principal's advert of that role; without a role its node's, else its agent's. */
  get(principal: Principal, role?: AdvertRole): DirectoryEntry | undefined
  /**
   * The same, asking the DHT when the table has none. Gives up after ten seconds. Throws `TIMEOUT` when the DHT did not
   * answer, the signal's reason when aborted.
   */
  lookup(
    principal: Principal,
    options?: { readonly role?: AdvertRole; readonly signal?: AbortSignal }
  ): Promise<DirectoryEntry | undefined>
  /**
   * Agents of a topic that the DHT names and that answer when asked for adverts, and all agents in the table. Never
   * fails for want of answers; does not wait long for the last ones.
   */
  findAgents(options?: { readonly topic?: string; readonly signal?: AbortSignal }): Promise<Principal[]>
  /**
   * Agents that the DHT names under the keys of the index: under one of each list, as far as there are such, else under
   * some. At most `LIMITS.indexLookupsMax` keys are looked up. They are only named: what they have is to be asked. Gives
   * none where the DHT does not answer.
   */
  findIndexed(
    demands: readonly (readonly string[])[],
    options?: { readonly signal?: AbortSignal }
  ): Promise<Principal[]>
  /** Checks an advert that somebody told of, and keeps it if it is news. */
  learn(bytes: Uint8Array): void
  /**
   * Lets this peer be found as an agent, under the topic of all agents and those given, from soon after until `stop`. What
   * was given before and is not now is given up.
   */
  announceAgent(topics?: readonly string[]): void
  /** Lets this peer be found as a broker, from soon after until `stop`. */
  announceBroker(): void
  /** Brokers that the DHT names, truly or not; none where it does not answer. Throws the signal's reason. */
  findBrokers(options?: { readonly signal?: AbortSignal }): Promise<Principal[]>
  /** Asks every connected peer now; waits a moment for the first when none is connected yet. Gives the number of news. */
  refresh(options?: { readonly signal?: AbortSignal; readonly waitMs?: number }): Promise<number>
  /** Calls the listener with each advert that is new or expired, until the function given back is called. */
  on(event: 'update' | 'expire', listener: (entry: DirectoryEntry) => void): () => void
}

/** Makes the directory of a host that is not started yet; start it after the host, stop it before. */
export function createDirectory(components: DirectoryComponents, init: DirectoryInit): Directory {
  return new PeerDirectory(components, init)
}

/** What this peer said of itself last. */
interface Own {
  readonly advert: Signed<Advertisement>
  readonly topics: readonly string[]
}

class PeerDirectory implements Directory {
  readonly proofs: Proofs
  readonly #components: DirectoryComponents
  readonly #without: ReadonlySet<string>
  readonly #table: AdvertTable
  readonly #proofTable: ProofTable
  readonly #gossip: Gossip
  readonly #exchanges: Exchanges
  readonly #upkeep: DhtUpkeep
  readonly #presence: Presence | undefined
  readonly #neighbours: TopicNeighbours
  readonly #searches: DhtSearches
  readonly #own = new Map<string, Own>()
  /** The topics that this peer is to be found under. */
  readonly #announced: Record<'agent' | 'broker', readonly string[]> = { agent: [], broker: [] }
  #sweeping: { stop(): Promise<void> } | undefined

  constructor(components: DirectoryComponents, init: DirectoryInit) {
    const { host, clock, logger } = components
    this.#components = components
    this.#without = new Set(init.without)
    const table = new AdvertTable({ clock })
    this.#table = table
    this.#proofTable = new ProofTable({ clock, isKnown: (principal) => this.#isKnown(principal) })
    const proofTable = this.#proofTable
    const interests = (): Interests => (init.onlyTopics === true ? this.#gossip.topics() : undefined)
    this.#gossip = new Gossip({ clock, logger }, { onSubscriber: (topic) => this.#onSubscriber(topic) })
    this.#exchanges = new Exchanges(
      { clock, logger, host, table, proofs: proofTable, interests },
      {
        intervalMs: init.pullIntervalMs ?? 60_000,
        eager: this.#without.has('pull')
          ? { adverts: false, proofs: false }
          : { adverts: init.collects, proofs: true }
      }
    )
    this.proofs = createProofs({
      clock,
      logger,
      host,
      gossip: this.#gossip,
      table: proofTable,
      partners: () => this.#exchanges.partners()
    })
    this.#gossip.subscribe(PROOFS_TOPIC, {
      bytesMax: LIMITS.gossipedProofBytesMax,
      offer: (data, from) => proofTable.offer(data, from)
    })
    this.#upkeep = new DhtUpkeep(
      { clock, logger, dht: () => host.dht },
      { putIntervalMs: init.dhtPutIntervalMs ?? LIMITS.advertLifetimeMsMax / 2 }
    )
    const isAware = init.collects && !this.#without.has('presence') && !this.#without.has('pull')
    this.#presence = isAware ? new Presence({ clock, logger, host, table }) : undefined
    this.#neighbours = new TopicNeighbours({
      principal: host.principal,
      clock,
      logger,
      table,
      topics: () => this.#gossip.topics(),
      listeners: (topic) => this.#gossip.listeners(topic),
      ask: async (peer) => this.#tryPull(peer, within(clock, LOOKUP_MS))
    })
    this.#searches = new DhtSearches({ host, clock, logger, table })
    host.useRules({
      records: this.#without.has('dht') ? {} : { [RECORD_NAMESPACE]: advertRecordRule(table) },
      acceptsMessage: (topic, data) => this.#gossip.acceptsMessage(topic, data),
      scoreOf: (peer) => this.#gossip.scoreOf(peer),
      addressesOf: (principal) => this.get(principal)?.advert.body.multiaddrs ?? []
    })
    if (!this.#without.has('pull')) {
      const handlers = advertHandlers({ table, interests }, { collects: init.collects })
      void host.serve(directoryProtocol, { ...handlers, ...proofHandlers(proofTable) })
    }
  }

  async start(): Promise<void> {
    if (this.#sweeping !== undefined) return
    const { host, clock, logger } = this.#components
    this.#sweeping = repeat(
      // oxlint-disable-next-line typescript/require-await -- a task is asynchronous.
      async () => {
        this.#table.sweep()
        this.#proofTable.sweep()
      },
      { clock, onError: (error) => logger.error('the directory could not be swept', { error }) },
      { intervalMs: SWEEP_INTERVAL_MS, initialDelayMs: SWEEP_INTERVAL_MS }
    )
    if (!this.#without.has('gossip')) this.#gossip.start(host.gossip)
    if (!this.#without.has('dht')) this.#upkeep.start()
    await this.#exchanges.start()
    await this.#presence?.start()
    if (!this.#without.has('gossip') && !this.#without.has('pull')) this.#neighbours.start()
  }

  async stop(): Promise<void> {
    if (this.#sweeping === undefined) return
    await this.#neighbours.stop()
    await this.#presence?.stop()
    await this.#exchanges.stop()
    await this.#upkeep.stop()
    this.#gossip.stop()
    await this.#sweeping.stop()
    this.#sweeping = undefined
  }

  async publish(advert: Signed<Advertisement>, to: Audience): Promise<void> {
    if (advert.body.issuer !== this.#components.host.principal) {
      throw new TypeError('only own adverts are published')
    }
    const { verdict } = this.#table.offer(advert.bytes, 'own')
    if (verdict !== 'new' && verdict !== 'known')
      throw new TypeError(`an advert that others refuse: ${verdict}`)
    const key = keyOfAdvert(advert)
    this.#own.set(key, { advert, topics: to.topics })
    if (!this.#without.has('dht')) this.#upkeep.advert(key, advert, to.record)
    await Promise.all([
      ...to.topics.map(async (topic) => this.#gossip.publish(topic, advert.bytes)),
      ...to.agents.slice(0, LIMITS.agentsPerNodeMax).map(async (agent) => this.#push(agent, advert))
    ])
  }

  subscribe(topic: string): boolean {
    const isMeantFor = mattersTo(undefined, [topic])
    const offer = (data: Uint8Array): Verdict => {
      const { verdict, advert } = this.#table.offer(data, 'gossip')
      // What was quicker here by another way, or on another topic, is to be passed on all the same: who listens to this one
      // may have no other way.
      return verdict === 'known' && advert !== undefined && isMeantFor(advert.body) ? 'new' : verdict
    }
    const before = this.#gossip.topics().length
    const isHeard = this.#gossip.subscribe(topic, { bytesMax: LIMITS.objectBytesMax, offer })
    if (this.#gossip.topics().length > before) this.#exchanges.askSoon()
    return isHeard
  }

  unsubscribe(topic: string): void {
    this.#gossip.unsubscribe(topic)
  }

  learn(bytes: Uint8Array): void {
    this.#table.offer(bytes, 'pull')
  }

  entries(): DirectoryEntry[] {
    return this.#table.entries()
  }

  get(principal: Principal, role?: AdvertRole): DirectoryEntry | undefined {
    if (role !== undefined) return this.#table.get(advertKey(principal, role))
    return this.#table.get(advertKey(principal, 'node')) ?? this.#table.get(advertKey(principal, 'agent'))
  }

  async lookup(
    principal: Principal,
    options: { readonly role?: AdvertRole; readonly signal?: AbortSignal } = {}
  ): Promise<DirectoryEntry | undefined> {
    const known = this.get(principal, options.role)
    if (known !== undefined || this.#without.has('dht')) return known
    return this.#searches.lookup(principal, options)
  }

  async findAgents(
    options: { readonly topic?: string; readonly signal?: AbortSignal } = {}
  ): Promise<Principal[]> {
    const { host, clock } = this.#components
    const signal = within(clock, LOOKUP_MS, options.signal)
    const named = await this.#namedByDht(options.topic ?? AGENTS_TOPIC, signal)
    const agents = new Set(this.#without.has('pull') ? named : await this.#pullSoon(named, signal))
    options.signal?.throwIfAborted()
    for (const { advert } of this.entries()) {
      if (advert.body.role === 'agent' && advert.body.issuer !== host.principal)
        agents.add(advert.body.issuer)
    }
    return [...agents]
  }

  announceAgent(topics: readonly string[] = []): void {
    this.#announced.agent = [AGENTS_TOPIC, ...topics]
    this.#announce()
  }

  announceBroker(): void {
    this.#announced.broker = [BROKERS_TOPIC]
    this.#announce()
  }

  async findBrokers(options: { readonly signal?: AbortSignal } = {}): Promise<Principal[]> {
    const named = await this.#namedByDht(
      BROKERS_TOPIC,
      within(this.#components.clock, LOOKUP_MS, options.signal)
    )
    options.signal?.throwIfAborted()
    return named
  }

  async refresh(options: { readonly signal?: AbortSignal; readonly waitMs?: number } = {}): Promise<number> {
    if (this.#without.has('pull')) return 0
    const signal = within(this.#components.clock, LOOKUP_MS, options.signal)
    await this.#exchanges.waitForPartner(options.waitMs ?? 5000, signal)
    // An exchange that outlasts the patience goes on, and what it brings is there next time.
    using patience = new Patience(this.#components, STRAGGLERS_MS, signal)
    const before = this.#table.news
    const partners = this.#exchanges.partners()
    await Promise.all(
      partners.map(async (peer) => {
        const isDone = await endsBefore(this.#tryPull(peer), patience.signal)
        if (isDone) patience.shorten()
      })
    )
    options.signal?.throwIfAborted()
    return this.#table.news - before
  }

  async findIndexed(
    demands: readonly (readonly string[])[],
    options: { readonly signal?: AbortSignal } = {}
  ): Promise<Principal[]> {
    return this.#without.has('dht') ? [] : this.#searches.indexed(demands, options)
  }

  on(event: 'update' | 'expire', listener: (entry: DirectoryEntry) => void): () => void {
    return this.#table.on(event, listener)
  }

  #announce(): void {
    const { agent, broker } = this.#announced
    if (!this.#without.has('dht')) this.#upkeep.announce([...new Set([...broker, ...agent])])
  }

  #isKnown(principal: Principal): boolean {
    return principal === this.#components.host.principal || this.get(principal) !== undefined
  }

  async #namedByDht(topic: string, signal: AbortSignal): Promise<Principal[]> {
    return this.#without.has('dht') ? [] : this.#searches.named(topic, signal)
  }

  /** Those that answered. Provider records outlive their agents: after the first answer the rest have little time. */
  async #pullSoon(peers: readonly Principal[], signal: AbortSignal): Promise<Principal[]> {
    using patience = new Patience(this.#components, STRAGGLERS_MS, signal)
    const answered: Principal[] = []
    await Promise.all(
      peers.map(async (peer) => {
        if ((await this.#tryPull(peer, patience.signal)) === undefined) return
        answered.push(peer)
        patience.shorten()
      })
    )
    return answered
  }

  /** The number of news, `undefined` when the peer did not answer. */
  async #tryPull(peer: Principal, signal?: AbortSignal): Promise<number | undefined> {
    try {
      return await this.#exchanges.pull(peer, signal === undefined ? {} : { signal })
    } catch (error) {
      this.#components.logger.debug('an exchange of adverts failed', { peer, error })
      return undefined
    }
  }

  async #push(agent: Principal, advert: Signed<Advertisement>): Promise<void> {
    const { host, clock, logger } = this.#components
    if (agent === host.principal || this.#without.has('pull')) return
    try {
      const call = host.caller(directoryProtocol, agent)
      await call('publish', { adverts: [advert.bytes] }, { signal: clock.timeout(PUSH_MS) })
    } catch (error) {
      logger.debug('an agent did not take the advert', { agent, error })
    }
  }

  /** Somebody listens who may have missed what was said before. */
  #onSubscriber(topic: string): void {
    for (const { advert, topics } of this.#own.values()) {
      const live = advert.body.notAfter > this.#components.clock.now()
      if (live && topics.includes(topic)) void this.#gossip.publish(topic, advert.bytes)
    }
  }
}
