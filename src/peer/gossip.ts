/**
 * Adverts and proofs by gossip: fresh, but lost on whoever is away. Each message is checked before it is forwarded; a
 * peer that sends what no honest one would loses its standing.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Verdict } from './advert-table.ts'
import type { Judgement, OverlayGossip } from './overlay.ts'

export interface GossipComponents {
  readonly clock: Clock
  readonly logger: Logger
}

/** What becomes of the messages of a topic. */
export interface TopicRule {
  readonly bytesMax: number
  /** Checks a message and keeps it if it is news; what is not new is not forwarded. Not asked twice about a message. */
  readonly offer: (data: Uint8Array, from: Principal) => Verdict
}

export class Gossip {
  readonly #components: GossipComponents
  readonly #topics = new Map<string, TopicRule>()
  readonly #offences: Offences
  readonly #onSubscriber: (topic: string) => void
  /** Own topics whose listeners told of themselves before the stream to them was open. */
  readonly #unheard = new Set<string>()
  #overlay: OverlayGossip | undefined

  /** `onSubscriber` hears of each topic that another peer begins to listen to. */
  constructor(components: GossipComponents, init: { onSubscriber: (topic: string) => void }) {
    this.#components = components
    this.#onSubscriber = init.onSubscriber
    this.#offences = new Offences(components.clock)
  }

  start(overlay: OverlayGossip): void {
    this.#overlay = overlay
    overlay.onListener((topic) => this.#onSubscriber(topic))
    overlay.onHeartbeat(() => {
      const topics = [...this.#unheard]
      this.#unheard.clear()
      for (const topic of topics) this.#onSubscriber(topic)
    })
    for (const [topic, rule] of this.#topics) this.#join(overlay, topic, rule)
  }

  stop(): void {
    this.#overlay = undefined
  }

  /** Gives whether it is listened to: strangers name topics, and there is a maximum. */
  subscribe(topic: string, rule: TopicRule): boolean {
    if (this.#topics.has(topic)) return true
    if (topic.length > LIMITS.topicCharsMax || this.#topics.size >= LIMITS.topicsPerPeerMax) return false
    this.#topics.set(topic, rule)
    if (this.#overlay !== undefined) this.#join(this.#overlay, topic, rule)
    return true
  }

  unsubscribe(topic: string): void {
    if (this.#topics.delete(topic)) this.#overlay?.unsubscribe(topic)
  }

  /** How many peers it was handed to; none is no error. Subscribing is not needed. */
  async publish(topic: string, bytes: Uint8Array): Promise<number> {
    if (this.#overlay === undefined) return 0
    // Once handed over, even to nobody, the same bytes would pass for seen already.
    const { known, atHand } = this.#overlay.audience(topic)
    if (atHand === 0) {
      if (known > 0) this.#unheard.add(topic)
      return 0
    }
    try {
      return await this.#overlay.publish(topic, bytes)
    } catch (error) {
      this.#components.logger.debug('a message was not published', { topic, error })
      return 0
    }
  }

  acceptsMessage(topic: string, data: Uint8Array): boolean {
    return data.length <= (this.#topics.get(topic)?.bytesMax ?? -1)
  }

  /** How many peers at hand listen to a topic. */
  listeners(topic: string): number {
    return this.#overlay?.audience(topic).atHand ?? 0
  }

  /** What is listened to. */
  topics(): string[] {
    return [...this.#topics.keys()]
  }

  scoreOf(peer: Principal): number {
    return this.#offences.scoreOf(peer)
  }

  #join(overlay: OverlayGossip, topic: string, rule: TopicRule): void {
    overlay.subscribe(topic, (data, from) => {
      const verdict = rule.offer(data, from)
      if (verdict === 'invalid') this.#offences.add(from)
      return JUDGEMENTS[verdict]
    })
  }
}

/** An honest peer may forward what this one finds stale or too much; only what is invalid for all counts against it. */
const JUDGEMENTS: Readonly<Record<Verdict, Judgement>> = {
  new: 'accept',
  known: 'ignore',
  stale: 'ignore',
  expired: 'ignore',
  'not-yet': 'ignore',
  'too-often': 'ignore',
  full: 'ignore',
  invalid: 'reject'
}

const OFFENCE_POINTS = 20
const HALF_LIFE_MS = 60_000
const OFFENDERS_MAX = 1024

/** Points against peers, halved each minute; some five offences in a row silence a peer for a while. */
class Offences {
  readonly #clock: Clock
  readonly #offenders = new Map<Principal, { points: number; at: number }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(peer: Principal): void {
    const points = OFFENCE_POINTS - this.scoreOf(peer)
    this.#offenders.delete(peer)
    this.#offenders.set(peer, { points, at: this.#clock.monotonic() })
    if (this.#offenders.size > OFFENDERS_MAX) {
      const [oldest] = this.#offenders.keys()
      if (oldest !== undefined) this.#offenders.delete(oldest)
    }
  }

  scoreOf(peer: Principal): number {
    const offender = this.#offenders.get(peer)
    if (offender === undefined) return 0
    return -offender.points * 0.5 ** ((this.#clock.monotonic() - offender.at) / HALF_LIFE_MS)
  }
}
