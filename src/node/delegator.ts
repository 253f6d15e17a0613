/**
 * Delegates shares of the node to agents (paper §4.2): signs a delegation for each, hands it over, and makes a new
 * one when half of its time is gone, the policy changed, or something that the agent issued is over before its term. A
 * delegation is durable before an agent has it.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { agentProtocol } from '../protocol/agent-protocol.ts'
import type { Caller, ResultOf } from '../protocol/method.ts'
import type { Store } from '../store/store.ts'
import type { Chain } from '../ticket/chain.ts'
import { delegationObject, type Delegation } from '../ticket/delegation.ts'
import { ceilingOf, delegatedPercent } from '../ticket/fraud.ts'
import type { PortRange } from '../ticket/ports.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import type { Reason } from '../ticket/refusal.ts'
import type { Right } from '../ticket/rights.ts'
import { scaleResources, type Resources } from '../ticket/resources.ts'
import { SHAPING_NAMES, type Shaping } from '../ticket/shaping.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import {
  ceilingAt,
  decodeState,
  encodeState,
  isCurrent,
  NOTHING_DELEGATED,
  withOffer,
  withTaken,
  type DelegationState
} from './delegation-state.ts'
import type { DelegationRules } from './redemption.ts'

/** What the node's policy says of one agent. */
export interface AgentShare {
  readonly agent: Principal
  /** Of the node's capacity; the shares may add up to more than 100. */
  readonly sharePercent: number
  readonly overbookPercent: number
  readonly maxDepth: number
  readonly ports: readonly PortRange[]
  readonly rights: readonly Right[]
  readonly shaping?: Shaping | undefined
}

export interface DelegatorComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
  /** Ids of the tickets of an agent's that hold leases now, each the first of its chain. */
  readonly leasedTo: (agent: Principal) => readonly string[]
  /** Whether no lease can come of a ticket any more. */
  readonly isOver: (ticket: Signed<Ticket>) => boolean
  /** Whether somebody is known to have cheated: no more is delegated to such. */
  readonly isProven: (agent: Principal) => boolean
}

export interface DelegatorInit {
  readonly capacity: Resources
  /** Of the node's adverts. */
  readonly epoch: number
  readonly shares: readonly AgentShare[]
  readonly termMs: number
  readonly retryMs: number
}

type Terms = Pick<Delegation, 'resources' | 'ports' | 'rights' | 'shaping' | 'overbookPercent' | 'maxDepth'>
type Answer = ResultOf<typeof agentProtocol.methods.delegate>

/** What an agent said of its tickets when it did not take a delegation. */
interface Said {
  /** Out, and no lease yet. */
  readonly open: Map<string, Signed<Ticket>>
  /** Not its own, it says: they are not counted. */
  readonly disowned: Set<string>
}

const TABLE = 'node-delegations'
const CALL_MS = 10_000
/** An agent issues tickets while it is asked; it must come to an end all the same. */
const ROUNDS_MAX = 8
const DISOWNED_MAX = 4096

export class Delegator implements Startable, DelegationRules {
  readonly #components: DelegatorComponents
  readonly #init: DelegatorInit
  readonly #states = new Map<Principal, DelegationState>()
  readonly #said = new Map<Principal, Said>()
  /** Ids that their agents have confirmed since this process began. */
  readonly #confirmed = new Set<string>()
  /** Agents to whom something came back that the delegation they hold does not say. */
  readonly #stale = new Set<Principal>()
  readonly #listeners = new Set<() => void>()
  #delegatedPercent = 0
  /** Of the delegation signed last, to whomever: two with one number would be fraud. */
  #seq = 0
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: DelegatorComponents, init: DelegatorInit) {
    this.#components = components
    this.#init = init
  }

  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { store, clock, logger } = this.#components
    for await (const [agent, bytes] of store.iterate(TABLE)) this.#states.set(agent, decodeState(bytes))
    this.#seq = Math.max(0, ...[...this.#states.values()].map(lastSeq))
    this.#delegatedPercent = this.#declare(clock.now())
    this.#loop = repeat(
      (signal) => this.#delegate(signal),
      { clock, onError: (error) => logger.warn('delegating failed', { error }) },
      { intervalMs: this.#init.retryMs }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    await loop?.stop()
  }

  /** Calls back whenever an agent took a delegation. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener)
  }

  /** Agents that hold a delegation of this node now. */
  agents(): Principal[] {
    return this.#init.shares
      .map(({ agent }) => agent)
      .filter((agent) => this.#confirmed.has(this.#states.get(agent)?.taken?.id ?? ''))
  }

  /**
   * What the node owns to in its adverts: what it ever delegated and is not over, and what its policy has it delegate.
   * The same for as long as the process runs, because what was signed under one advert is held against it.
   */
  get delegatedPercent(): number {
    return this.#delegatedPercent
  }

  fault(chain: Chain): Reason | undefined {
    const { delegation, tickets } = chain
    const state = this.#states.get(delegation.body.holder)
    if (state === undefined || isCurrent(state, chain)) return undefined
    return {
      code: 'TICKET_EXPIRED',
      message: 'the delegation of this ticket was replaced by one that does not count it',
      evidence: [delegation.id, ...tickets.slice(0, 1).map(({ id }) => id)]
    }
  }

  isAgent(principal: Principal): boolean {
    return this.#states.has(principal)
  }

  freed({ id, body }: Signed<Ticket>): void {
    const taken = this.#states.get(body.issuer)?.taken
    if (taken?.id === body.parent || taken?.body.counts.includes(id)) this.#stale.add(body.issuer)
  }

  #declare(now: number): number {
    const { capacity, shares } = this.#init
    const most = new Map([...this.#states].map(([agent, state]) => [agent, ceilingAt(state, now)]))
    for (const share of shares) {
      const before = most.get(share.agent)
      const { resources } = this.#terms(share)
      most.set(share.agent, before === undefined ? resources : ceilingOf([before, resources]))
    }
    return delegatedPercent(most.values(), capacity)
  }

  async #delegate(signal: AbortSignal): Promise<void> {
    const { logger, isProven } = this.#components
    await Promise.all(
      this.#init.shares.map(async (share) => {
        if (isProven(share.agent)) return
        try {
          await this.#delegateTo(share, signal)
        } catch (error) {
          signal.throwIfAborted()
          logger.debug('an agent did not take its delegation', { agent: share.agent, error })
        }
      })
    )
  }

  async #delegateTo(share: AgentShare, signal: AbortSignal): Promise<void> {
    const { agent } = share
    let offer = await this.#offerFor(share)
    if (this.#confirmed.has(offer.id)) return
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const answer = await this.#hand(offer, signal)
      if (answer.taken) return this.#confirm(agent, offer)
      this.#learn(agent, answer)
      offer = await this.#sign(share)
    }
  }

  /** What the agent is to hold now: what it has, as long as that is good. */
  async #offerFor(share: AgentShare): Promise<Signed<Delegation>> {
    const { taken, offers } = this.#states.get(share.agent) ?? NOTHING_DELEGATED
    const offer = offers.at(-1)
    if (offer !== undefined && this.#isFresh(offer, share)) return offer
    const isKept = offer === undefined && taken !== undefined && this.#isFresh(taken, share)
    if (isKept && !this.#stale.has(share.agent)) return taken
    return this.#sign(share)
  }

  async #hand(offer: Signed<Delegation>, signal: AbortSignal): Promise<Answer> {
    const { clock, callAgent } = this.#components
    const call = callAgent(offer.body.holder)
    return call('delegate', { delegation: offer.bytes }, { signal: within(clock, CALL_MS, signal) })
  }

  async #confirm(agent: Principal, offer: Signed<Delegation>): Promise<void> {
    const state = this.#states.get(agent) ?? NOTHING_DELEGATED
    if (state.taken?.id !== offer.id) await this.#keep(agent, withTaken(state, offer))
    if (state.taken !== undefined) this.#confirmed.delete(state.taken.id)
    this.#confirmed.add(offer.id)
    for (const listener of this.#listeners) listener()
    this.#components.logger.info('delegated', { agent, delegation: offer.id })
  }

  /** What an agent says is believed: it says it against itself, and nobody else's tickets are touched by it. */
  #learn(agent: Principal, { lacking, unknown }: Answer): void {
    const { key } = this.#components
    const { open, disowned } = this.#saidBy(agent)
    for (const bytes of lacking) {
      const ticket = ticketObject.open(bytes)
      const { issuer, node } = ticket.body
      if (issuer !== agent || node !== key.principal) continue
      if (open.size < LIMITS.countedTicketsMax) open.set(ticket.id, ticket)
      disowned.delete(ticket.id)
    }
    for (const id of unknown) if (disowned.size < DISOWNED_MAX) disowned.add(id)
  }

  #saidBy(agent: Principal): Said {
    const said = this.#said.get(agent) ?? { open: new Map(), disowned: new Set() }
    this.#said.set(agent, said)
    return said
  }

  /** More than half of its term is left, and it says what the policy says. */
  #isFresh({ body }: Signed<Delegation>, share: AgentShare): boolean {
    const left = body.notAfter - this.#components.clock.now()
    return (
      left > this.#init.termMs / 2 &&
      JSON.stringify(granted(body)) === JSON.stringify(granted(this.#terms(share)))
    )
  }

  #terms(share: AgentShare): Terms {
    const { ports, rights, shaping, overbookPercent, maxDepth, sharePercent } = share
    return {
      resources: scaleResources(this.#init.capacity, sharePercent),
      ports,
      rights,
      ...(shaping === undefined ? {} : { shaping }),
      overbookPercent,
      maxDepth
    }
  }

  async #sign(share: AgentShare): Promise<Signed<Delegation>> {
    const { key, clock } = this.#components
    const { agent } = share
    const now = clock.now()
    const state = this.#states.get(agent) ?? NOTHING_DELEGATED
    this.#seq = Math.max(now, this.#seq + 1)
    this.#stale.delete(agent)
    const offer = delegationObject.sign(
      {
        issuer: key.principal,
        holder: agent,
        // An agent's clock may lag behind.
        notBefore: now - 60_000,
        notAfter: now + this.#init.termMs,
        seq: this.#seq,
        epoch: this.#init.epoch,
        counts: this.#counting(agent),
        ...this.#terms(share)
      },
      key
    )
    await this.#keep(agent, withOffer(state, offer, now))
    return offer
  }

  /** Leases first, then what is still open: where they are too many, the rest is not held against the agent. */
  #counting(agent: Principal): string[] {
    const { leasedTo, isOver } = this.#components
    const { open, disowned } = this.#saidBy(agent)
    for (const ticket of open.values()) if (isOver(ticket)) open.delete(ticket.id)
    const ids = new Set([...leasedTo(agent), ...open.keys()])
    return [...ids]
      .filter((id) => !disowned.has(id))
      .slice(0, LIMITS.countedTicketsMax)
      .sort()
  }

  async #keep(agent: Principal, state: DelegationState): Promise<void> {
    await this.#components.store.commit([{ table: TABLE, key: agent, value: encodeState(state) }])
    this.#states.set(agent, state)
  }
}

function lastSeq({ taken, offers }: DelegationState): number {
  return Math.max(taken?.body.seq ?? 0, ...offers.map(({ body }) => body.seq))
}

/** The terms in one order, so that two can be compared. */
function granted(terms: Terms): unknown[] {
  const { resources, ports, rights, shaping, overbookPercent, maxDepth } = terms
  const amounts = Object.entries(resources).sort(([a], [b]) => (a < b ? -1 : 1))
  return [
    amounts,
    ports.map(({ protocol, first, last }) => [protocol, first, last]),
    rights,
    SHAPING_NAMES.map((name) => shaping?.[name] ?? null),
    overbookPercent,
    maxDepth
  ]
}
