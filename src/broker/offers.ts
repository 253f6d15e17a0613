/**
 * Asking agents what they hold: offers of nodes, and what agents tell of nodes and of one another. Several are asked at
 * once, and nobody has to wait for the slowest.
 */
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { abortion, elapsed, within } from '../base/time-limit.ts'
import type { agentProtocol, Offer } from '../protocol/agent-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import { advertisementObject, type NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Observations } from './observations.ts'
import type { AgentOffer, Assignment, Candidate } from './preference.ts'

export interface OffersComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
  readonly observations: Observations
  readonly isProven: (principal: Principal) => boolean
  /** Whom to ask about these nodes, and of no more than are worth asking. */
  readonly agentsFor: (nodes: readonly NodeAdvertisement[]) => Principal[]
}

export interface OffersInit {
  /** An agent that does not answer within this offers nothing. */
  readonly callMs: number
  /** What matches it is all that agents need tell; everything when absent. */
  readonly query?: string | undefined
  readonly signal?: AbortSignal | undefined
}

type Offered = Omit<AgentOffer, 'reliability'>

/** Numbers that were told of somebody, by whom. */
type Told = Map<Principal, Map<Principal, number>>

/** What agents offer of some nodes, as far as it was heard; but for nodes and agents that were shown to cheat. */
export class Offers {
  readonly #components: OffersComponents
  readonly #nodes: readonly NodeAdvertisement[]
  /** By node, then by agent: whoever says the same thing a thousand times is heard once. */
  readonly #offers: Map<Principal, Map<Principal, Offered>>
  readonly #ofNodes: Told
  readonly #ofAgents: Told
  readonly #stopped = new AbortController()
  readonly #init: OffersInit
  readonly #gone: Promise<never>
  #waiting = 0
  #answered = Promise.withResolvers<void>()

  /** Asks at once. */
  constructor(components: OffersComponents, nodes: readonly NodeAdvertisement[], init: OffersInit) {
    this.#components = components
    this.#init = init
    this.#gone = abortion(init.signal, this.#stopped.signal)
    this.#nodes = nodes.filter(({ issuer }) => !components.isProven(issuer))
    this.#offers = new Map(this.#nodes.map(({ issuer }) => [issuer, new Map()]))
    this.#ofNodes = new Map(this.#nodes.map(({ issuer }) => [issuer, new Map()]))
    const agents = components.agentsFor(this.#nodes).filter((agent) => !components.isProven(agent))
    this.#ofAgents = new Map(agents.map((agent) => [agent, new Map()]))
    this.#waiting = agents.length
    for (const agent of agents) void this.#ask(agent)
  }

  /** Whether there are agents that have not answered yet. */
  get isWaiting(): boolean {
    return this.#waiting > 0
  }

  /** Resolves when all agents answered or were given up, or after `ms`. Throws the signal's reason. */
  async all(ms: number): Promise<void> {
    const over = elapsed(this.#components.clock, ms).then(() => true)
    while (this.isWaiting) {
      const next = this.#answered.promise.then(() => false)
      if (await Promise.race([over, next, this.#gone])) return
    }
    this.#init.signal?.throwIfAborted()
  }

  /** Resolves when one more agent answered or was given up, if any has not. Throws the signal's reason. */
  async more(): Promise<void> {
    if (this.isWaiting) await Promise.race([this.#answered.promise, this.#gone])
    this.#init.signal?.throwIfAborted()
  }

  /** Waits for no more answers. */
  stop(): void {
    this.#stopped.abort(new Error('no more offers are needed'))
  }

  /** Without the pairs of node and agent that are ruled out. */
  candidates(isRuledOut: (pair: Assignment) => boolean = () => false): Candidate[] {
    const { observations, clock } = this.#components
    const now = clock.now()
    const told = (of: Told, principal: Principal): number[] => [...(of.get(principal)?.values() ?? [])]
    const ratings = new Map(
      [...this.#ofAgents.keys()].map((agent) => [
        agent,
        observations.of('agent', agent, told(this.#ofAgents, agent), now)
      ])
    )
    return this.#nodes.map((advert) => ({
      advert,
      reliability: observations.of('node', advert.issuer, told(this.#ofNodes, advert.issuer), now),
      offers: [...(this.#offers.get(advert.issuer)?.values() ?? [])]
        .filter(({ agent }) => !isRuledOut({ node: advert.issuer, agent }))
        .map((offer) => ({ ...offer, reliability: ratings.get(offer.agent) ?? 0 }))
    }))
  }

  async #ask(agent: Principal): Promise<void> {
    const { clock, logger, callAgent } = this.#components
    const { callMs, query, signal } = this.#init
    const stopped = this.#stopped.signal
    const until = signal === undefined ? stopped : AbortSignal.any([signal, stopped])
    try {
      const { ratings } = await callAgent(agent)('getAds', query === undefined ? {} : { query }, {
        signal: within(clock, callMs, until),
        onItem: (offer) => this.#take(agent, offer)
      })
      for (const { agent: other, reliability } of ratings) {
        if (other !== agent) this.#ofAgents.get(other)?.set(agent, reliability)
      }
    } catch (error) {
      if (!until.aborted) logger.debug('an agent did not say what it holds', { agent, error })
    } finally {
      this.#waiting -= 1
      this.#answered.resolve()
      this.#answered = Promise.withResolvers()
    }
  }

  #take(agent: Principal, { advert, available, until, reliability }: Offer): void {
    // Whoever signed it: an agent speaks for itself, and only of nodes that this peer knows already.
    const node = advertisementObject.decode(advert).body.issuer
    this.#offers.get(node)?.set(agent, { agent, available, until })
    this.#ofNodes.get(node)?.set(agent, reliability)
  }
}
