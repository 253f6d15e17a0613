/**
 * The broker (paper §2.2): finds the nodes that match a query, asks several agents at once what they hold of them,
 * and gets tickets, trying the next agent or node when one refuses or does not answer. It remembers what tickets came
 * to, and tells their agents.
 */
import { asSlicenetError, SlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { Directory } from '../peer/directory.ts'
import type { agentProtocol, Receipt, TicketRequest } from '../protocol/agent-protocol.ts'
import type { Plan, Want } from '../protocol/broker-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import { compileQuery, type Query } from '../query/query.ts'
import type { AgentAdvertisement, NodeAdvertisement } from '../ticket/advertisement.ts'
import { membershipParams, vouchedBy } from '../ticket/membership.ts'
import type { Principal } from '../ticket/principal.ts'
import { openReceipt, outcomeOf } from '../ticket/receipt.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { Ticket } from '../ticket/ticket.ts'
import { agentsAsked, type Asker } from './agents-asked.ts'
import { askOffers, type AskingComponents } from './asking.ts'
import { chooseMembers, type Assignment } from './choice.ts'
import type { FailedPairs } from './failed-pairs.ts'
import { findNodes, type FoundNode, type Mismatch } from './finding.ts'
import { openGrant, type Holding } from './grant.ts'
import { IndexSearch, type Evaluation } from './index-search.ts'
import { Observations } from './observations.ts'
import { explainNodes, planOf, type Explained, type Explanation } from './planning.ts'

export interface BrokerComponents {
  /** Whom tickets are for. */
  readonly principal: Principal
  readonly directory: Pick<Directory, 'refresh' | 'entries'> &
    Partial<Pick<Directory, 'findIndexed' | 'learn'>>
  readonly clock: Clock
  readonly logger: Logger
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
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

export type Request = Omit<TicketRequest, 'node'>

export interface TicketSearch {
  readonly slice: string
  readonly count: number
  readonly request: Request
  readonly nodes: readonly NodeAdvertisement[]
  /** Pairs that were tried before in vain are not tried again. */
  readonly failed: FailedPairs
  readonly granted: ReadonlyMap<Principal, number>
}

/** A ticket that is redeemed, and what is wanted of its agent for the lease to go on. */
export interface TicketRenewal {
  readonly agent: Principal
  readonly ticket: Signed<Ticket>
  readonly durationMs: number
}

/** What a ticket came to: the holder's demand and the node's answer, envelopes; neither when the node gave none. */
export interface Redemption extends Receipt {
  readonly agent: Principal
  readonly ticket: Signed<Ticket>
}

const CALL_MS = 10_000
/** Each round gets a ticket or drops a pair, so this bounds how many refusals are borne. */
const ROUNDS_MAX = 8
/** So many receipts of the largest objects fit one message. */
const RECEIPTS_AT_ONCE = 7

export class Broker {
  readonly #components: BrokerComponents
  readonly #callMs: number
  readonly #observations = new Observations()
  readonly #asking: AskingComponents
  /** Absent over a directory without an index. */
  readonly #index: IndexSearch | undefined

  /** `callMs`: how long an agent may take to answer; default 10 s. */
  constructor(components: BrokerComponents, init: { readonly callMs?: number } = {}) {
    this.#components = components
    this.#callMs = init.callMs ?? CALL_MS
    const isProven = components.isProven ?? (() => false)
    this.#asking = {
      ...components,
      isProven,
      observations: this.#observations,
      agentsFor: (nodes) => agentsAsked(nodes, this.agents(), this.#asker())
    }
    const { findIndexed, learn } = components.directory
    if (findIndexed === undefined || learn === undefined) return
    const directory = components.directory as Directory
    this.#index = new IndexSearch({ ...components, directory }, { callMs: this.#callMs })
  }

  /** The nodes that match, and for the others why not. Throws `QUERY_INVALID`. */
  async find(
    query: string | undefined,
    options: { readonly signal?: AbortSignal } = {}
  ): Promise<{ found: FoundNode[]; mismatches: Mismatch[] }> {
    const compiled = query === undefined ? undefined : compileQuery(query)
    return this.#evaluate(
      compiled,
      {
        wanted: 1,
        run: async () =>
          findNodes(compiled, this.#components.directory.entries(), {
            clock: this.#components.clock,
            signal: options.signal
          }),
        matches: ({ found }) => found.length
      },
      options
    )
  }

  /** Every node, by name, with every condition that it fails. Throws `QUERY_INVALID`. */
  async explain(what: Explained, options: { readonly signal?: AbortSignal } = {}): Promise<Explanation[]> {
    const query = 'want' in what ? what.want.query : what.query
    const compiled = query === undefined ? undefined : compileQuery(query)
    return this.#evaluate(
      compiled,
      {
        wanted: 'want' in what ? what.want.count : 1,
        run: async () =>
          explainNodes(what, this.#components.directory.entries(), {
            clock: this.#components.clock,
            signal: options.signal
          }),
        matches: (explanations) => explanations.filter(({ matches }) => matches).length
      },
      options
    )
  }

  /** What a slice would be made of now; nothing is held. Throws `QUERY_INVALID`. */
  async plan(want: Want, options: { readonly signal?: AbortSignal } = {}): Promise<Plan> {
    const explanations = await this.explain({ want }, options)
    const nodes = explanations.filter(({ matches }) => matches).map(({ advert }) => advert.body)
    const candidates = await askOffers(this.#asking, nodes, this.#callMs, options.signal)
    return planOf(want, explanations, candidates, this.#components.clock.now())
  }

  /** Evaluates over what connected peers know, and what the index leads to. */
  async #evaluate<T>(
    query: Query | undefined,
    evaluation: Evaluation<T>,
    options: { readonly signal?: AbortSignal }
  ): Promise<T> {
    const { directory, askOthers } = this.#components
    await Promise.all([directory.refresh(options), askOthers?.(query?.text, options)])
    if (query === undefined || this.#index === undefined) return evaluation.run()
    return this.#index.evaluate(query, evaluation, options)
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
    if (this.#asking.isProven(node)) return 0
    return this.#observations.seen('node', node, this.#components.clock.now())
  }

  /** Gets up to `count` tickets, fewer when no agent would give more; `failed` then holds the reasons. */
  async getTickets(
    search: TicketSearch,
    options: { readonly signal?: AbortSignal } = {}
  ): Promise<Holding[]> {
    const holdings: Holding[] = []
    const candidates = await askOffers(this.#asking, search.nodes, this.#callMs, options.signal)
    for (let round = 0; round < ROUNDS_MAX && holdings.length < search.count; round++) {
      const taken = new Set(holdings.map(({ node }) => node))
      const assignments = chooseMembers(
        candidates
          .filter(({ node }) => !taken.has(node))
          .map((candidate) => ({
            ...candidate,
            offers: candidate.offers.filter(
              ({ agent }) => !search.failed.has({ node: candidate.node, agent })
            )
          })),
        {
          count: search.count - holdings.length,
          resources: search.request.resources,
          notAfter: this.#components.clock.now() + search.request.durationMs,
          granted: countByAgent(holdings, search.granted)
        }
      )
      if (assignments.length === 0) break
      const byAgent = Map.groupBy(assignments, ({ agent }) => agent)
      const rounds = await Promise.all(
        [...byAgent].map(([agent, ofAgent]) => this.#ask(agent, ofAgent, search, options.signal))
      )
      holdings.push(...rounds.flat())
    }
    return holdings
  }

  /**
   * Gets a ticket that goes on with the line of one in hand, for a term from now: of the agent that issued it, and
   * where there are no ports, which only that one has, of others too. Throws the first one's refusal, and
   * `PROTOCOL_ERROR` when it grants something else.
   */
  async renewTicket(
    { agent, ticket, durationMs }: TicketRenewal,
    options: { readonly signal?: AbortSignal } = {}
  ): Promise<Holding> {
    const { node, slice, resources, rights, ports } = ticket.body
    if (slice === undefined) throw new TypeError('a ticket without a slice has no lease to renew')
    const supersedes = ticket.body.supersedes ?? ticket.id
    const request = { resources, rights, ports: eachPort(ports), durationMs, supersedes }
    const others = ports.length === 0 ? this.#agentsOf(node).filter((other) => other !== agent) : []
    let refused: SlicenetError | undefined
    for (const issuer of [agent, ...others]) {
      if (issuer !== agent && this.#asking.isProven(issuer)) continue
      try {
        return await this.#getOne({ node, agent: issuer }, slice, request, options.signal)
      } catch (error) {
        options.signal?.throwIfAborted()
        refused ??= asSlicenetError(error)
      }
    }
    throw refused ?? new SlicenetError('NOT_FOUND', 'no agent to ask')
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
    const answered = redemptions.filter(({ lease, refusal }) => lease !== undefined || refusal !== undefined)
    await Promise.all(
      [...Map.groupBy(answered, ({ agent }) => agent)].map(async ([agent, ofAgent]) => {
        try {
          for (const batch of batches(ofAgent, RECEIPTS_AT_ONCE)) {
            const receipts = batch.map(({ redeem, lease, refusal }) => ({
              redeem,
              ...(lease === undefined ? {} : { lease }),
              ...(refusal === undefined ? {} : { refusal })
            }))
            const signal = within(this.#components.clock, this.#callMs)
            await this.#components.callAgent(agent)('report', { receipts }, { signal })
          }
        } catch (error) {
          this.#components.logger.debug('receipts were not reported', { agent, error })
        }
      })
    )
  }

  /** Gives tickets back that will not be redeemed. Agents that do not answer find out when the hold is over. */
  async release(holdings: readonly Holding[]): Promise<void> {
    const byAgent = Map.groupBy(holdings, ({ agent }) => agent)
    await Promise.all(
      [...byAgent].map(async ([agent, ofAgent]) => {
        try {
          for (const batch of batches(ofAgent)) {
            const tickets = batch.map(({ ticket }) => ticket.id)
            const signal = within(this.#components.clock, this.#callMs)
            await this.#components.callAgent(agent)('releaseTickets', { tickets }, { signal })
          }
        } catch (error) {
          this.#components.logger.debug('tickets were not given back', { agent, error })
        }
      })
    )
  }

  async #getOne(
    assignment: Assignment,
    slice: string,
    request: Request,
    signal: AbortSignal | undefined
  ): Promise<Holding> {
    const { principal, clock, callAgent } = this.#components
    const { grants } = await callAgent(assignment.agent)(
      'getTickets',
      { slice, requests: [{ node: assignment.node, ...request }], ...this.#shown() },
      { signal: within(clock, this.#callMs, signal) }
    )
    return openGrant(assignment, grants[0], { slice, request, holder: principal })
  }

  #asker(): Asker {
    const { principal, memberships, clock } = this.#components
    const organisations = vouchedBy(memberships?.() ?? [], { member: principal, now: clock.now() })
    return { principal, organisations }
  }

  #shown(): { memberships?: Uint8Array[] } {
    return membershipParams(this.#components.memberships?.())
  }

  /** The agents that a node says it delegates to. */
  #agentsOf(node: Principal): readonly Principal[] {
    for (const { advert } of this.#components.directory.entries()) {
      if (advert.body.role === 'node' && advert.body.issuer === node) return advert.body.agents
    }
    return []
  }

  async #ask(
    agent: Principal,
    assignments: readonly Assignment[],
    search: TicketSearch,
    signal: AbortSignal | undefined
  ): Promise<Holding[]> {
    const holdings: Holding[] = []
    for (const batch of batches(assignments)) {
      try {
        holdings.push(...(await this.#askBatch(agent, batch, search, signal)))
      } catch (error) {
        signal?.throwIfAborted()
        // Its other nodes would be as vain, and cost as much time.
        search.failed.addAgent(agent, asSlicenetError(error))
        return holdings
      }
    }
    return holdings
  }

  async #askBatch(
    agent: Principal,
    assignments: readonly Assignment[],
    search: TicketSearch,
    signal: AbortSignal | undefined
  ): Promise<Holding[]> {
    const { slice, request, failed } = search
    const requests = assignments.map(({ node }) => ({ node, ...request }))
    const { grants } = await this.#components.callAgent(agent)(
      'getTickets',
      { slice, requests, ...this.#shown() },
      { signal: within(this.#components.clock, this.#callMs, signal) }
    )
    return assignments.flatMap((assignment, index) => {
      try {
        const { principal } = this.#components
        return [openGrant(assignment, grants[index], { slice, request, holder: principal })]
      } catch (error) {
        const reason = asSlicenetError(error)
        // An answer has room for so much: the next round asks for the rest.
        const isRest = reason.code === 'BUSY' && index > 0
        if (!isRest) failed.addPair(assignment, reason)
        return []
      }
    })
  }
}

/** Of a ticket that is renewed every port is wanted again, by its number. */
function eachPort(ports: Ticket['ports']): Request['ports'] {
  return ports.flatMap(({ protocol, first, last }) =>
    Array.from({ length: last - first + 1 }, (_one, index) => ({ protocol, port: first + index }))
  )
}

/** As many at a time as one message takes. */
function batches<T>(items: readonly T[], size: number = LIMITS.ticketsPerMessageMax): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_one, index) =>
    items.slice(index * size, (index + 1) * size)
  )
}

function countByAgent(
  holdings: readonly Holding[],
  granted: ReadonlyMap<Principal, number>
): ReadonlyMap<Principal, number> {
  const counts = new Map(granted)
  for (const { agent } of holdings) counts.set(agent, (counts.get(agent) ?? 0) + 1)
  return counts
}
