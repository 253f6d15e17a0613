/**
 * Keeps some peers connected that listen to the same topics: gossip passes only between connected peers, and those who
 * serve one region need not have met. Agents say in their adverts where their nodes are, so they are the ones to ask.
 */
import type { Clock } from '../base/clock.ts'
import { repeat } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { Principal } from '../ticket/principal.ts'
import type { AdvertTable } from './advert-table.ts'
import { organisationTopic, regionTopic } from './topics.ts'

const LOOK_MS = 5000
/** Listeners at hand that are enough for a mesh of the topic. */
const LISTENERS_WANTED = 4
/** Peers asked at each look. */
const ASKED_MAX = 8
/** Who was asked is left alone for so long, whether it answered or not. */
const AGAIN_MS = 60_000

export interface TopicNeighboursComponents {
  readonly principal: Principal
  readonly clock: Clock
  readonly logger: Logger
  readonly table: AdvertTable
  readonly topics: () => readonly string[]
  /** How many peers at hand listen to a topic. */
  readonly listeners: (topic: string) => number
  /** Connects to a peer and asks it for adverts. */
  readonly ask: (peer: Principal) => Promise<unknown>
}

export class TopicNeighbours {
  readonly #components: TopicNeighboursComponents
  /** When each was asked last, by the monotonic clock. */
  readonly #asked = new Map<Principal, number>()
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: TopicNeighboursComponents) {
    this.#components = components
  }

  start(): void {
    const { clock, logger } = this.#components
    this.#loop ??= repeat(
      async () => this.#look(),
      { clock, onError: (error) => logger.debug('neighbours could not be looked for', { error }) },
      { intervalMs: LOOK_MS, initialDelayMs: LOOK_MS / 5 }
    )
  }

  async stop(): Promise<void> {
    await this.#loop?.stop()
    this.#loop = undefined
  }

  async #look(): Promise<void> {
    const now = this.#components.clock.monotonic()
    for (const [peer, at] of this.#asked) if (now - at > AGAIN_MS) this.#asked.delete(peer)
    const chosen = this.#choose()
    for (const peer of chosen) this.#asked.set(peer, now)
    await Promise.all([...chosen].map(async (peer) => this.#components.ask(peer)))
  }

  #choose(): Set<Principal> {
    const { topics, listeners } = this.#components
    const chosen = new Set<Principal>()
    const short = topics().flatMap((topic) => {
      const lacking = LISTENERS_WANTED - listeners(topic)
      return lacking > 0 ? [{ topic, lacking }] : []
    })
    if (short.length === 0) return chosen
    const agentsOf = this.#agentsByTopic()
    for (const { topic, lacking } of short) {
      const fresh = (agentsOf.get(topic) ?? []).filter((agent) => !this.#asked.has(agent))
      for (const agent of fresh.slice(0, lacking)) if (chosen.size < ASKED_MAX) chosen.add(agent)
    }
    return chosen
  }

  #agentsByTopic(): Map<string, Principal[]> {
    const { table, principal } = this.#components
    const agentsOf = new Map<string, Principal[]>()
    for (const { advert } of table.entries()) {
      const { body } = advert
      if (body.role !== 'agent' || body.issuer === principal) continue
      const topics = [...body.regions.map(regionTopic), ...body.organisations.map(organisationTopic)]
      for (const topic of topics) {
        const agents = agentsOf.get(topic)
        if (agents === undefined) agentsOf.set(topic, [body.issuer])
        else agents.push(body.issuer)
      }
    }
    return agentsOf
  }
}
