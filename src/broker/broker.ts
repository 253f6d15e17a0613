/**
 * The broker (paper §2.2): finds the nodes that match a query, asks several agents at once what they hold of them,
 * and gets tickets, trying the next agent or node when one refuses or does not answer.
 */
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import type { Directory } from '../peer/directory.ts'
import type { agentProtocol, Grant, TicketRequest } from '../protocol/agent-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import {
  advertisementObject,
  type AgentAdvertisement,
  type NodeAdvertisement
} from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { refusalError, refusalObject } from '../ticket/refusal.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { chooseMembers, type Assignment, type Candidate } from './choice.ts'
import { compileQuery } from './query.ts'

export interface BrokerComponents {
  readonly directory: Directory
  readonly clock: Clock
  readonly logger: Logger
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
}

export interface FoundNode {
  readonly advert: Signed<NodeAdvertisement>
  readonly via: string
}

/** Why a node is not among those found. */
export interface Mismatch {
  readonly node: Principal
  readonly name: string
  readonly failed: readonly string[]
}

export type Request = Omit<TicketRequest, 'node'>

/** A ticket in hand, with the chain that proves it. */
export interface Holding extends Assignment {
  readonly ticket: Signed<Ticket>
  /** Envelopes, the node's delegation first. */
  readonly chain: readonly Uint8Array[]
}

export interface TicketSearch {
  readonly slice: string
  readonly count: number
  readonly request: Request
  readonly nodes: readonly NodeAdvertisement[]
  /** Pairs that were tried before in vain are not tried again. */
  readonly failed: FailedPairs
  readonly granted: ReadonlyMap<Principal, number>
}

/** (node, agent) pairs that refused, with the reason; a whole node when its own refusal is the reason. */
export class FailedPairs {
  readonly #pairs = new Set<string>()
  readonly #nodes = new Set<Principal>()
  readonly reasons: SlicenetError[] = []

  addPair({ node, agent }: Assignment, reason: SlicenetError): void {
    this.#pairs.add(`${node} ${agent}`)
    this.reasons.push(reason)
  }

  addNode(node: Principal, reason: SlicenetError): void {
    this.#nodes.add(node)
    this.reasons.push(reason)
  }

  has({ node, agent }: Assignment): boolean {
    return this.#nodes.has(node) || this.#pairs.has(`${node} ${agent}`)
  }
}

const AGENT_CALL_MS = 10_000
/** Each round drops at least one pair, so this bounds how many refusals are borne. */
const ROUNDS_MAX = 8

export class Broker {
  readonly #components: BrokerComponents

  constructor(components: BrokerComponents) {
    this.#components = components
  }

  /** The nodes that match, and for the others why not. Throws `QUERY_INVALID`. */
  async find(
    query: string | undefined,
    options: { readonly signal?: AbortSignal } = {}
  ): Promise<{ found: FoundNode[]; mismatches: Mismatch[] }> {
    const compiled = query === undefined ? undefined : compileQuery(query)
    await this.#components.directory.refresh(options)
    const found: FoundNode[] = []
    const mismatches: Mismatch[] = []
    for (const { advert, via } of this.#components.directory.entries()) {
      if (advert.body.role !== 'node') continue
      const failed = compiled?.failures(advert.body) ?? []
      if (failed.length === 0) found.push({ advert: advert as Signed<NodeAdvertisement>, via })
      else mismatches.push({ node: advert.body.issuer, name: advert.body.name, failed })
    }
    found.sort((a, b) => (a.advert.body.name < b.advert.body.name ? -1 : 1))
    mismatches.sort((a, b) => (a.name < b.name ? -1 : 1))
    return { found, mismatches }
  }

  /** Agents by what their adverts say. */
  agents(): AgentAdvertisement[] {
    return this.#components.directory
      .entries()
      .map(({ advert }) => advert.body)
      .filter((body) => body.role === 'agent')
  }

  /** Gets up to `count` tickets, fewer when no agent would give more; `failed` then holds the reasons. */
  async getTickets(
    search: TicketSearch,
    options: { readonly signal?: AbortSignal } = {}
  ): Promise<Holding[]> {
    const holdings: Holding[] = []
    const candidates = await this.#candidates(search, options.signal)
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

  /** Gives tickets back that will not be redeemed. Agents that do not answer find out when the hold is over. */
  async release(holdings: readonly Holding[]): Promise<void> {
    const byAgent = Map.groupBy(holdings, ({ agent }) => agent)
    await Promise.all(
      [...byAgent].map(async ([agent, ofAgent]) => {
        const tickets = ofAgent.map(({ ticket }) => ticket.id)
        try {
          const signal = AbortSignal.timeout(AGENT_CALL_MS)
          await this.#components.callAgent(agent)('releaseTickets', { tickets }, { signal })
        } catch (error) {
          this.#components.logger.debug('tickets were not given back', { agent, error })
        }
      })
    )
  }

  /** What every agent offers of the nodes wanted. An agent that does not answer in time offers nothing. */
  async #candidates(search: TicketSearch, signal: AbortSignal | undefined): Promise<Candidate[]> {
    const wanted = new Map(search.nodes.map((advert) => [advert.issuer, advert]))
    const offers = new Map<Principal, Candidate['offers'][number][]>()
    const agents = new Set(search.nodes.flatMap((advert) => advert.agents))
    await Promise.all(
      [...agents].map(async (agent) => {
        try {
          await this.#components.callAgent(agent)(
            'getAds',
            {},
            {
              signal: bounded(signal),
              onItem({ advert, available, until }) {
                const node = advertisementObject.open(advert).body.issuer
                if (!wanted.has(node)) return
                offers.set(node, [...(offers.get(node) ?? []), { agent, available, until }])
              }
            }
          )
        } catch (error) {
          signal?.throwIfAborted()
          this.#components.logger.debug('an agent did not say what it holds', { agent, error })
        }
      })
    )
    return [...wanted.values()].map(({ issuer, free }) => ({
      node: issuer,
      free,
      offers: offers.get(issuer) ?? []
    }))
  }

  async #ask(
    agent: Principal,
    assignments: readonly Assignment[],
    { slice, request, failed }: TicketSearch,
    signal: AbortSignal | undefined
  ): Promise<Holding[]> {
    const requests = assignments.map(({ node }) => ({ node, ...request }))
    try {
      const params = { slice, requests }
      const { grants } = await this.#components.callAgent(agent)('getTickets', params, {
        signal: bounded(signal)
      })
      return assignments.flatMap((assignment, index) => {
        try {
          return [holdingOf(assignment, grants[index])]
        } catch (error) {
          failed.addPair(assignment, asSlicenetError(error))
          return []
        }
      })
    } catch (error) {
      signal?.throwIfAborted()
      for (const assignment of assignments) failed.addPair(assignment, asSlicenetError(error))
      return []
    }
  }
}

function bounded(signal: AbortSignal | undefined): AbortSignal {
  const limit = AbortSignal.timeout(AGENT_CALL_MS)
  return signal === undefined ? limit : AbortSignal.any([signal, limit])
}

function countByAgent(
  holdings: readonly Holding[],
  granted: ReadonlyMap<Principal, number>
): ReadonlyMap<Principal, number> {
  const counts = new Map(granted)
  for (const { agent } of holdings) counts.set(agent, (counts.get(agent) ?? 0) + 1)
  return counts
}

/** Opens what an agent granted; throws its refusal, or `PROTOCOL_ERROR` when the ticket is not the one asked for. */
function holdingOf(assignment: Assignment, grant: Grant | undefined): Holding {
  if (grant?.refusal !== undefined) throw refusalError(refusalObject.open(grant.refusal))
  const last = grant?.chain?.at(-1)
  if (grant?.chain === undefined || last === undefined) {
    throw new SlicenetError('PROTOCOL_ERROR', 'the agent neither granted nor refused')
  }
  const ticket = ticketObject.open(last)
  if (ticket.body.node !== assignment.node || ticket.body.issuer !== assignment.agent) {
    throw new SlicenetError('PROTOCOL_ERROR', 'the agent granted another ticket than the one asked for')
  }
  return { ...assignment, ticket, chain: grant.chain }
}
