/**
 * The broker (paper §2.2): finds the nodes that match a query, asks several agents at once what they hold of them, says
 * what a slice would be made of, and gets its tickets, trying the next agent or node when one refuses or is slow. It
 * remembers what tickets came to, and tells their agents.
 */
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import type { Directory } from '../peer/directory.ts'
import type { agentProtocol } from '../protocol/agent-protocol.ts'
import type { Plan, Want } from '../protocol/broker-protocol.ts'
import type { measureProtocol } from '../protocol/measure-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import { compileQuery, type Query } from '../query/query.ts'
import type { AgentAdvertisement } from '../ticket/advertisement.ts'
import { membershipParams, vouchedBy } from '../ticket/membership.ts'
import type { Principal } from '../ticket/principal.ts'
import { openReceipt, outcomeOf } from '../ticket/receipt.ts'
import { agentsAsked } from './agents-asked.ts'
import { chooseChecked } from './checked-choice.ts'
import { findNodes, isNode, type FoundNode, type Mismatch } from './finding.ts'
import { Gathering, type GatheringComponents, type TicketSearch } from './gathering.ts'
import type { Holding } from './grant.ts'
import { IndexSearch, type Evaluation } from './index-search.ts'
import { Observations } from './observations.ts'
import { Offers } from './offers.ts'
import { PairTimes } from './pair-times.ts'
import { compilePlacement } from './placement.ts'
import { matchNodes, planOf, type Matching } from './planning.ts'
import type { Assignment } from './preference.ts'
import { renewTicket, type RenewingComponents, type TicketRenewal } from './renewing.ts'
import type { Explanation, Holder } from './requirements.ts'
import { releaseTickets, reportReceipts, type Redemption } from './returns.ts'

export interface BrokerComponents {
  /** Whom tickets are for. */
  readonly principal: Principal
  readonly directory: Pick<Directory, 'refresh' | 'entries'> &
    Partial<Pick<Directory, 'findIndexed' | 'learn'>>
  readonly clock: Clock
  readonly logger: Logger
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
  /** Has nodes ping one another; where it is absent, estimates of their distance are all there is. */
  readonly callMeasure?: (node: Principal) => Caller<typeof measureProtocol.methods>
  /** Whether a valid proof of fraud against somebody is known. */
  readonly isProven?: (principal: Principal) => boolean
  /** Has the directory learn what other brokers know of nodes that match; does not fail for want of answers. */
  readonly askOthers?: (
    query: string | undefined,
    options: { readonly signal?: AbortSignal }
  ) => Promise<void>
  /** Envelopes: who vouches for whom the tickets are for. */
  readonly memberships?: () => readonly Uint8Array[]
}

export interface BrokerInit {
  /** How long an agent may take to answer; default 10 s. */
  readonly callMs?: number
  /** After how long the next best is asked beside an agent that is slow; default 2 s. */
  readonly hedgeMs?: number
}

export type Explained = { readonly query?: string } | { readonly want: Want }

interface Options {
  readonly signal?: AbortSignal
}

export interface PlanOptions extends Options {
  /** For whom the slice would be; default whom this broker gets tickets for. */
  readonly holder?: Holder
  /** What is not to be tried. */
  readonly isRuledOut?: (assignment: Assignment) => boolean
}

const CALL_MS = 10_000
const HEDGE_MS = 2000

export class Broker {
  readonly #components: BrokerComponents
  readonly #callMs: number
  readonly #hedgeMs: number
  readonly #isProven: (principal: Principal) => boolean
  readonly #observations = new Observations()
  readonly #gathering: GatheringComponents
  readonly #renewing: RenewingComponents
  /** Absent over a directory without an index. */
  readonly #index: IndexSearch | undefined

  constructor(components: BrokerComponents, init: BrokerInit = {}) {
    this.#components = components
    this.#callMs = init.callMs ?? CALL_MS
    this.#hedgeMs = init.hedgeMs ?? HEDGE_MS
    this.#isProven = components.isProven ?? (() => false)
    const shown = (): { memberships?: Uint8Array[] } => membershipParams(components.memberships?.())
    this.#gathering = {
      ...components,
      isProven: this.#isProven,
      observations: this.#observations,
      agentsFor: (nodes) => agentsAsked(nodes, this.agents(), this.#holder()),
      times: new PairTimes(components.clock),
      membershipParams: shown,
      release: async (holdings) => this.release(holdings)
    }
    this.#renewing = { ...components, membershipParams: shown, agentsOf: (node) => this.#agentsOf(node) }
    const { findIndexed, learn } = components.directory
    if (findIndexed === undefined || learn === undefined) return
    const directory = components.directory as Directory
    this.#index = new IndexSearch({ ...components, directory }, { callMs: this.#callMs })
  }

  /** The nodes that match, and for the others why not. Throws `QUERY_INVALID`. */
  async find(
    query: string | undefined,
    options: Options = {}
  ): Promise<{ found: FoundNode[]; mismatches: Mismatch[] }> {
    const compiled = query === undefined ? undefined : compileQuery(query)
    const { clock, directory } = this.#components
    const evaluation = {
      wanted: 1,
      run: async () => findNodes(compiled, directory.entries(), { clock, signal: options.signal }),
      matches: ({ found }: { readonly found: readonly FoundNode[] }) => found.length
    }
    return this.#evaluate(compiled, evaluation, options)
  }

  /** Every node as a member by itself: what it fails of the query and the slice's needs. Throws `QUERY_INVALID`. */
  async match(want: Want, options: PlanOptions = {}): Promise<Matching> {
    compilePlacement(want)
    return this.#match(want.query, want, options)
  }

  /**
   * Every node, by name, with every condition that it fails: of a query, or of a slice, where those that are members, or
   * are only not needed, match. Throws `QUERY_INVALID`.
   */
  async explain(what: Explained, options: PlanOptions = {}): Promise<readonly Explanation[]> {
    if (!('want' in what)) return (await this.#match(what.query, undefined, options)).explanations
    const { explanations, rejections } = await this.#plan(what.want, options)
    const failed = new Map(rejections.map((rejection) => [rejection.node, rejection.failed]))
    return explanations.map((one) => {
      const all = failed.get(one.node) ?? []
      return { ...one, matches: all.length === 0, failed: all }
    })
  }

  /** What a slice would be made of now; nothing is held. Throws `QUERY_INVALID`. */
  async plan(want: Want, options: PlanOptions = {}): Promise<Plan> {
    const { explanations: _each, ...plan } = await this.#plan(want, options)
    return plan
  }

  /** Agents by what their adverts say. */
  agents(): AgentAdvertisement[] {
    return this.#components.directory
      .entries()
      .map(({ advert }) => advert.body)
      .filter((body) => body.role === 'agent')
  }

  /**
   * How far a node can be relied on, 0 to 1000, by what this broker's own tickets came to; 0 where a proof of fraud is
   * known, `undefined` where nothing is.
   */
  reliabilityOf(node: Principal): number | undefined {
    if (this.#isProven(node)) return 0
    return this.#observations.seen('node', node, this.#components.clock.now())
  }

  /**
   * Gets up to `count` tickets that go with one another and with the members held, fewer when no agent would give more;
   * `failed` then holds the reasons. Where fewer than `minimum` can be had from the start, none is asked for.
   */
  async getTickets(search: TicketSearch, options: Options = {}): Promise<Holding[]> {
    const init = { callMs: this.#callMs, hedgeMs: this.#hedgeMs, signal: options.signal }
    return new Gathering(this.#gathering, search, init).run()
  }

  /** Gets a ticket that goes on with the line of one in hand, for a term from now. Throws as `renewTicket`. */
  async renewTicket(renewal: TicketRenewal, options: Options = {}): Promise<Holding> {
    return renewTicket(this.#renewing, renewal, { callMs: this.#callMs, signal: options.signal })
  }

  /** Takes note of what a ticket came to. Throws as `ObjectType.open` when an answer is malformed. */
  observe(redemption: Redemption): void {
    const { ticket, agent } = redemption
    const now = this.#components.clock.now()
    if (redemption.lease === undefined && redemption.refusal === undefined) {
      this.#observations.add('node', ticket.body.node, 'broken', now)
      return
    }
    const outcome = outcomeOf(openReceipt(redemption), ticket)
    if (outcome === undefined) return
    this.#observations.add('node', ticket.body.node, outcome, now)
    this.#observations.add('agent', agent, outcome, now)
  }

  /** Shows agents what their tickets came to. Those that do not answer do not learn it. */
  async report(redemptions: readonly Redemption[]): Promise<void> {
    await reportReceipts(this.#components, redemptions, this.#callMs)
  }

  /** Gives tickets back that will not be redeemed. Agents that do not answer find out when the hold is over. */
  async release(holdings: readonly Pick<Holding, 'agent' | 'ticket'>[]): Promise<void> {
    await releaseTickets(this.#components, holdings, this.#callMs)
  }

  async #plan(want: Want, options: PlanOptions): Promise<Plan & { explanations: readonly Explanation[] }> {
    const { clock } = this.#components
    const { signal, isRuledOut = () => false } = options
    const placement = compilePlacement(want)
    const { explanations } = await this.#match(want.query, want, options)
    const nodes = explanations.filter(({ matches }) => matches).map(({ advert }) => advert.body)
    const offers = new Offers(this.#gathering, nodes, { callMs: this.#callMs, query: want.query, signal })
    const now = clock.now()
    const { count, resources } = want
    const wish = { count, resources, notAfter: now + want.durationMs, granted: new Map(), placement }
    try {
      await offers.all(this.#hedgeMs)
      for (;;) {
        const candidates = offers.candidates(isRuledOut)
        const choice = await chooseChecked(this.#gathering, candidates, wish, signal)
        if (choice.members.length < count && offers.isWaiting) await offers.more()
        else {
          const { times } = this.#gathering
          const init = { want, explanations, candidates, choice, placement, times, now }
          return { explanations, ...(await planOf(init, { clock, signal })) }
        }
      }
    } finally {
      offers.stop()
    }
  }

  async #match(
    text: string | undefined,
    want: Want | undefined,
    { signal, holder = this.#holder() }: PlanOptions
  ): Promise<Matching> {
    const query = text === undefined ? undefined : compileQuery(text)
    const { clock, directory } = this.#components
    const requirements = { query, want, holder, isProven: this.#isProven }
    const evaluation = {
      wanted: want?.count ?? 1,
      run: async () => matchNodes(requirements, directory.entries(), { clock, signal }),
      matches: ({ explanations }: Matching) => explanations.filter(({ matches }) => matches).length
    }
    return this.#evaluate(query, evaluation, signal === undefined ? {} : { signal })
  }

  /** Evaluates over what connected peers know, and what the index leads to. */
  async #evaluate<T>(query: Query | undefined, evaluation: Evaluation<T>, options: Options): Promise<T> {
    const { directory, askOthers } = this.#components
    await Promise.all([directory.refresh(options), askOthers?.(query?.text, options)])
    if (query === undefined || this.#index === undefined) return evaluation.run()
    return this.#index.evaluate(query, evaluation, options)
  }

  #holder(): Holder {
    const { principal, memberships, clock } = this.#components
    const organisations = vouchedBy(memberships?.() ?? [], { member: principal, now: clock.now() })
    return { principal, organisations }
  }

  #agentsOf(node: Principal): readonly Principal[] {
    const entry = this.#components.directory
      .entries()
      .filter(isNode)
      .find(({ advert }) => advert.body.issuer === node)
    return entry?.advert.body.agents.filter((agent) => !this.#isProven(agent)) ?? []
  }
}
