/**
 * The broker (paper §2.2): finds the nodes that match a query, asks several agents at once what they hold of them,
 * and gets tickets, trying the next agent or node when one refuses or does not answer.
 */
import { asSlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { Directory } from '../peer/directory.ts'
import type { agentProtocol, TicketRequest } from '../protocol/agent-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import {
  advertisementObject,
  type AgentAdvertisement,
  type NodeAdvertisement
} from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { chooseMembers, type Assignment, type Candidate } from './choice.ts'
import type { FailedPairs } from './failed-pairs.ts'
import { openGrant, type Holding } from './grant.ts'
import { compileQuery } from './query.ts'

export interface BrokerComponents {
  /** Whom tickets are for. */
  readonly principal: Principal
  readonly directory: Pick<Directory, 'refresh' | 'entries'>
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

export interface TicketSearch {
  readonly slice: string
  readonly count: number
  readonly request: Request
  readonly nodes: readonly NodeAdvertisement[]
  /** Pairs that were tried before in vain are not tried again. */
  readonly failed: FailedPairs
  readonly granted: ReadonlyMap<Principal, number>
}

const CALL_MS = 10_000
/** Each round drops at least one pair, so this bounds how many refusals are borne. */
const ROUNDS_MAX = 8

export class Broker {
  readonly #components: BrokerComponents
  readonly #callMs: number

  /** `callMs`: how long an agent may take to answer; default 10 s. */
  constructor(components: BrokerComponents, init: { readonly callMs?: number } = {}) {
    this.#components = components
    this.#callMs = init.callMs ?? CALL_MS
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

  /** What every agent offers of the nodes wanted. An agent that does not answer in time offers nothing. */
  async #candidates(search: TicketSearch, signal: AbortSignal | undefined): Promise<Candidate[]> {
    // By node, then by agent: whoever says the same thing a thousand times is heard once.
    const offers = new Map(search.nodes.map(({ issuer }) => [issuer, new Map<Principal, Offered>()]))
    await Promise.all(
      agentsOf(search.nodes).map(async (agent) => {
        try {
          await this.#components.callAgent(agent)(
            'getAds',
            {},
            {
              signal: within(this.#components.clock, this.#callMs, signal),
              onItem({ advert, available, until }) {
                const node = advertisementObject.open(advert).body.issuer
                offers.get(node)?.set(agent, { agent, available, until })
              }
            }
          )
        } catch (error) {
          signal?.throwIfAborted()
          this.#components.logger.debug('an agent did not say what it holds', { agent, error })
        }
      })
    )
    return search.nodes.map(({ issuer, free }) => ({
      node: issuer,
      free,
      offers: [...(offers.get(issuer)?.values() ?? [])]
    }))
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
      { slice, requests },
      { signal: within(this.#components.clock, this.#callMs, signal) }
    )
    return assignments.flatMap((assignment, index) => {
      try {
        const { principal } = this.#components
        return [openGrant(assignment, grants[index], { slice, request, holder: principal })]
      } catch (error) {
        failed.addPair(assignment, asSlicenetError(error))
        return []
      }
    })
  }
}

type Offered = Candidate['offers'][number]

/** The agents that the nodes name, those named most often first, as many as are worth asking. */
function agentsOf(nodes: readonly NodeAdvertisement[]): Principal[] {
  const named = Map.groupBy(
    nodes.flatMap(({ agents }) => [...new Set(agents)]),
    (agent) => agent
  )
  return [...named]
    .sort(([a, ofA], [b, ofB]) => ofB.length - ofA.length || (a < b ? -1 : 1))
    .slice(0, LIMITS.agentsAskedMax)
    .map(([agent]) => agent)
}

/** As many at a time as one message takes. */
function batches<T>(items: readonly T[]): T[][] {
  const size = LIMITS.ticketsPerMessageMax
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
