/**
 * With whom adverts and proofs are exchanged and when: with each peer that speaks the directory protocol as it connects, with a
 * few of them now and then, with all of them on request; a bounded number at a time, each peer once at a time.
 */
import type { Clock } from '../base/clock.ts'
import { repeat } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { orAborted } from '../base/time-limit.ts'
import { directoryProtocol } from '../protocol/directory-protocol.ts'
import type { Principal } from '../ticket/principal.ts'
import type { AdvertTable } from './advert-table.ts'
import type { DirectoryHost } from './overlay.ts'
import { pullProofs } from './proof-exchange.ts'
import type { Interests } from './interests.ts'
import type { ProofTable } from './proof-table.ts'
import { pullFrom, type DirectoryCaller } from './pull.ts'

/** Peers asked at each interval: fewer by who only asks for proofs, which are rare and come by gossip. */
const PEERS_PER_ROUND = 6
const COLLECTORS_PER_ROUND = 4
const PEERS_PER_PROOFS_ROUND = 2
const EXCHANGE_MS_MAX = 60_000
/** Changes that come together lead to one round. */
const ASK_SOON_MS = 1000

export interface ExchangesComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly host: Pick<DirectoryHost, 'principal' | 'connected' | 'caller' | 'watchPeers'>
  readonly table: AdvertTable
  readonly proofs: ProofTable
  /** What this peer gathers now. */
  readonly interests: () => Interests
}

export interface ExchangesInit {
  readonly intervalMs: number
  /** What to ask for by itself, not only on request: proofs are everybody's business, adverts are not. */
  readonly eager: { readonly adverts: boolean; readonly proofs: boolean }
}

export class Exchanges {
  readonly #components: ExchangesComponents
  readonly #intervalMs: number
  readonly #eager: ExchangesInit['eager']
  /** Connected peers that speak the protocol, in the order they were asked last. */
  readonly #partners = new Set<Principal>()
  /** Of those, who gathers the adverts of others and so has more than its own. */
  readonly #collectors = new Set<Principal>()
  readonly #running = new Map<Principal, Promise<number>>()
  #active = 0
  readonly #waiting: (() => void)[] = []
  #stopping = new AbortController()
  #unwatch: (() => void) | undefined
  #rounds: { stop(): Promise<void> } | undefined
  readonly #met: (() => void)[] = []
  #asking: Promise<void> | undefined

  constructor(components: ExchangesComponents, init: ExchangesInit) {
    this.#components = components
    this.#intervalMs = init.intervalMs
    this.#eager = init.eager
  }

  async start(): Promise<void> {
    const { host, clock, logger } = this.#components
    this.#stopping = new AbortController()
    this.#unwatch = await host.watchPeers(directoryProtocol.id, {
      onMeet: (peer) => this.#meet(peer),
      onLeave: (peer) => {
        this.#partners.delete(peer)
        this.#collectors.delete(peer)
      }
    })
    this.#rounds = repeat(
      async (signal) => this.#round(signal),
      { clock, onError: (error) => logger.debug('a round of exchanges failed', { error }) },
      { intervalMs: this.#intervalMs, initialDelayMs: this.#intervalMs }
    )
  }

  async stop(): Promise<void> {
    if (this.#unwatch === undefined) return
    this.#unwatch()
    this.#unwatch = undefined
    this.#stopping.abort(new Error('stopped'))
    await this.#rounds?.stop()
    for (const go of this.#waiting.splice(0)) go()
    await Promise.allSettled(this.#running.values())
    this.#partners.clear()
  }

  /** What this peer gathers has changed: a few partners are asked soon, not only when it is time. */
  askSoon(): void {
    const { clock, logger, interests } = this.#components
    const isRunning = this.#unwatch !== undefined && this.#eager.adverts
    // Who gathers everything lacks nothing for want of interest.
    if (!isRunning || this.#asking !== undefined || interests() === undefined) return
    const asking = clock.sleep(ASK_SOON_MS, { signal: this.#stopping.signal })
    this.#asking = asking
    void asking
      .then(async () => {
        await this.#round(this.#stopping.signal)
      })
      .catch((error: unknown) => logger.debug('a round of exchanges failed', { error }))
      .finally(() => (this.#asking = undefined))
  }

  /** Peers connected now that adverts can be exchanged with. */
  partners(): Principal[] {
    const connected = new Set(this.#components.host.connected())
    return [...this.#partners].filter((partner) => connected.has(partner))
  }

  /** Resolves as soon as there is a partner, or after `ms`. */
  async waitForPartner(ms: number, signal: AbortSignal): Promise<void> {
    if (this.partners().length > 0) return
    const met = new Promise<void>((resolve) => this.#met.push(resolve))
    const tired = new AbortController()
    const within = AbortSignal.any([signal, tired.signal])
    await Promise.race([met, this.#components.clock.sleep(ms, { signal: within }).catch(() => {})])
    tired.abort(new Error('met'))
    signal.throwIfAborted()
  }

  /** Gives the number of adverts that were news; joins an exchange with the same peer that is under way. */
  async pull(from: Principal, options: { signal?: AbortSignal } = {}): Promise<number> {
    const running = this.#running.get(from) ?? this.#begin(from, options.signal)
    return options.signal === undefined ? running : orAborted(running, options.signal)
  }

  async #begin(from: Principal, signal: AbortSignal | undefined): Promise<number> {
    const exchange = this.#exchange(from, signal, async (call, options) =>
      pullFrom(
        {
          ...this.#components,
          onCollector: (collects) => this.#noteCollector(from, collects)
        },
        call,
        from,
        options
      )
    ).finally(() => this.#running.delete(from))
    this.#running.set(from, exchange)
    return exchange
  }

  async #exchange(
    from: Principal,
    signal: AbortSignal | undefined,
    pull: (call: DirectoryCaller, options: { readonly signal: AbortSignal }) => Promise<number>
  ): Promise<number> {
    while (this.#active >= LIMITS.pullsAtOnceMax && !this.#stopping.signal.aborted) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    this.#active += 1
    try {
      this.#stopping.signal.throwIfAborted()
      const signals = [this.#stopping.signal, this.#components.clock.timeout(EXCHANGE_MS_MAX)]
      if (signal !== undefined) signals.push(signal)
      const call = this.#components.host.caller(directoryProtocol, from)
      return await pull(call, { signal: AbortSignal.any(signals) })
    } finally {
      this.#active -= 1
      this.#waiting.shift()?.()
    }
  }

  #noteCollector(peer: Principal, collects: boolean): void {
    if (collects && this.#partners.has(peer)) this.#collectors.add(peer)
    else this.#collectors.delete(peer)
  }

  #meet(peer: Principal): void {
    if (this.#partners.has(peer)) return
    this.#partners.add(peer)
    for (const resolve of this.#met.splice(0)) resolve()
    void this.#try(peer)
  }

  async #round(signal: AbortSignal): Promise<void> {
    const round = this.#nextPartners()
    for (const peer of round) {
      this.#partners.delete(peer)
      this.#partners.add(peer)
    }
    await Promise.all(round.map(async (peer) => this.#try(peer)))
    signal.throwIfAborted()
  }

  /** Those asked longest ago; for adverts mostly who has those of others. */
  #nextPartners(): Principal[] {
    const partners = this.partners()
    if (!this.#eager.adverts) return partners.slice(0, PEERS_PER_PROOFS_ROUND)
    const collectors = partners.filter((peer) => this.#collectors.has(peer)).slice(0, COLLECTORS_PER_ROUND)
    const others = partners.filter((peer) => !this.#collectors.has(peer))
    return [...collectors, ...others].slice(0, PEERS_PER_ROUND)
  }

  async #try(peer: Principal): Promise<void> {
    try {
      if (this.#eager.adverts) await this.pull(peer)
      if (this.#eager.proofs) {
        await this.#exchange(peer, undefined, async (call, options) =>
          pullProofs(this.#components.proofs, call, peer, options)
        )
      }
    } catch (error) {
      this.#components.logger.debug('an exchange failed', { peer, error })
    }
  }
}
