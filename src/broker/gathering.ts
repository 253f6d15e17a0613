/**
 * Gathering the tickets of one slice: members are chosen, their agents asked at once, and where one refuses, others are
 * chosen that go with those in hand. An agent that keeps waiting is not waited for: the next best is asked beside it, and
 * what then comes too late, or is no longer needed, is given back at once.
 */
import { asSlicenetError, type SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { abortion, elapsed, within } from '../base/time-limit.ts'
import type { TicketRequest } from '../protocol/agent-protocol.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { chooseChecked, type ChoosingComponents } from './checked-choice.ts'
import { Compatibility } from './compatibility.ts'
import type { FailedPairs } from './failed-pairs.ts'
import { openGrant, type Holding } from './grant.ts'
import { Offers, type OffersComponents } from './offers.ts'
import type { Placement } from './placement.ts'
import type { AgentOffer, Assignment, Candidate } from './preference.ts'

export interface GatheringComponents extends ChoosingComponents, OffersComponents {
  /** Whom tickets are for. */
  readonly principal: Principal
  /** Spread into calls for tickets: who vouches for the principal. */
  readonly membershipParams: () => { memberships?: Uint8Array[] }
  readonly release: (holdings: readonly Holding[]) => Promise<void>
}

export interface TicketSearch {
  readonly slice: string
  readonly count: number
  /** With fewer the slice is not worth having: then none is asked for. */
  readonly minimum: number
  readonly request: Omit<TicketRequest, 'node'>
  readonly nodes: readonly NodeAdvertisement[]
  /** The query that they match, if any, so that agents tell of no others. */
  readonly query?: string | undefined
  readonly placement: Placement
  /** Members that the slice has; the new ones are to go with them. */
  readonly held: readonly NodeAdvertisement[]
  /** Pairs that were tried before in vain are not tried again. */
  readonly failed: FailedPairs
  readonly granted: ReadonlyMap<Principal, number>
}

export interface GatheringInit {
  /** How long an agent may take to answer, and after how long the next best is asked beside it. */
  readonly callMs: number
  readonly hedgeMs: number
  readonly signal?: AbortSignal | undefined
}

/** A call that an agent has not answered yet. */
interface Call {
  readonly agent: Principal
  readonly assignments: readonly Assignment[]
  /** Whether it was waited for long enough, and others were asked instead. */
  isLate: boolean
  readonly settled: Promise<void>
}

/** So many tickets are asked for, for each that is wanted; this bounds how many refusals are borne. */
const ASKED_PER_TICKET_MAX = 8
/** How often all tickets in hand are given up because others, that do not go with them, make a larger slice. */
const REGROUPS_MAX = 2
const CALLS_PER_AGENT_MAX = 4

export class Gathering {
  readonly #components: GatheringComponents
  readonly #search: TicketSearch
  readonly #init: GatheringInit
  readonly #offers: Offers
  readonly #compatibility: Compatibility
  readonly #adverts: ReadonlyMap<Principal, NodeAdvertisement>
  readonly #over = new AbortController()
  readonly #calls = new Set<Call>()
  #holdings: Holding[] = []
  #asked = 0
  #regroups = 0

  constructor(components: GatheringComponents, search: TicketSearch, init: GatheringInit) {
    this.#components = components
    this.#search = search
    this.#init = init
    this.#offers = new Offers(components, search.nodes, { ...init, query: search.query })
    this.#compatibility = new Compatibility(search.placement, components.times)
    this.#adverts = new Map(search.nodes.map((advert) => [advert.issuer, advert]))
  }

  /** Tickets that go with one another and with the members held, `count` at most. Throws the signal's reason. */
  async run(): Promise<Holding[]> {
    const { signal, hedgeMs } = this.#init
    const gone = abortion(signal, this.#over.signal)
    try {
      await this.#offers.all(hedgeMs)
      while (await this.#askForMore()) {
        await Promise.race([...[...this.#calls].map(({ settled }) => settled), gone])
      }
      signal?.throwIfAborted()
      return this.#holdings
    } catch (error) {
      // Whoever gave up does not wait for long.
      const released = this.#components.release(this.#holdings)
      await Promise.race([released, elapsed(this.#components.clock, hedgeMs)])
      throw error
    } finally {
      // Of calls that are not answered yet every ticket is given back as it comes.
      this.#over.abort(new Error('the tickets are gathered'))
      this.#offers.stop()
    }
  }

  /** Whether there is anything to wait for: asks for what is missing first. */
  async #askForMore(): Promise<boolean> {
    for (;;) {
      const missing = this.#search.count - this.#holdings.length - this.#awaited().length
      if (this.#holdings.length >= this.#search.count) return false
      const chosen = missing > 0 ? await this.#choose(missing) : []
      if (chosen.length > 0) this.#ask(chosen)
      if (this.#calls.size > 0) return true
      if (chosen.length === 0 && !(await this.#regroup())) return false
    }
  }

  /** Of the calls that are waited for. */
  #awaited(): Assignment[] {
    return [...this.#calls].flatMap(({ isLate, assignments }) => (isLate ? [] : assignments))
  }

  /** Members that go with what is in hand and what is asked for. */
  async #choose(missing: number): Promise<readonly Assignment[]> {
    const { count, minimum, held } = this.#search
    const room = count * ASKED_PER_TICKET_MAX - this.#asked
    const taken = [...this.#holdings, ...this.#awaited()]
    const want = Math.min(missing, room)
    if (want <= 0) return []
    for (;;) {
      const candidates = this.#candidates(new Set(taken.map(({ node }) => node)))
      const members = await this.#chosen(candidates, want, [...held, ...this.#advertsOf(taken)], taken)
      // Who is slow to tell what it holds is waited for only where it is needed.
      if (members.length < want && this.#offers.isWaiting) await this.#offers.more()
      else return this.#asked > 0 || members.length >= minimum ? members : []
    }
  }

  async #chosen(
    candidates: readonly Candidate[],
    count: number,
    held: readonly NodeAdvertisement[],
    taken: readonly Assignment[]
  ): Promise<readonly Assignment[]> {
    const { request, placement, granted } = this.#search
    const { clock } = this.#components
    const wish = {
      count,
      resources: request.resources,
      notAfter: clock.now() + request.durationMs,
      granted: countByAgent(taken, granted),
      placement,
      held
    }
    const { members } = await chooseChecked(this.#components, candidates, wish, this.#init.signal)
    return members
  }

  #candidates(taken: ReadonlySet<Principal>): Candidate[] {
    const { failed } = this.#search
    const slow = new Set([...this.#calls].flatMap(({ isLate, agent }) => (isLate ? [agent] : [])))
    return this.#offers
      .candidates((pair) => slow.has(pair.agent) || failed.has(pair))
      .filter(({ advert }) => !taken.has(advert.issuer))
  }

  /**
   * When nothing more goes with the tickets in hand: whether others make a larger slice. Then those of them that it does
   * not have are given back.
   */
  async #regroup(): Promise<boolean> {
    const { count, held, placement } = this.#search
    const isBound = placement.distinct.length > 0 || placement.pairwise !== undefined
    if (!isBound || this.#holdings.length === 0 || this.#regroups >= REGROUPS_MAX) return false
    this.#regroups += 1
    const own = new Map(this.#holdings.map((holding) => [holding.node, this.#offerOf(holding)]))
    const candidates = this.#candidates(new Set()).map((candidate) => {
      const offer = own.get(candidate.advert.issuer)
      return offer === undefined ? candidate : { ...candidate, offers: [offer] }
    })
    const members = await this.#chosen(candidates, count, held, [])
    if (members.length <= this.#holdings.length) return false
    const kept = new Set(members.map(({ node }) => node))
    const given = this.#holdings.filter(({ node }) => !kept.has(node))
    this.#holdings = this.#holdings.filter(({ node }) => kept.has(node))
    void this.#components.release(given)
    return true
  }

  /** A ticket in hand is as good as an offer can be. */
  #offerOf({ agent }: Holding): AgentOffer {
    const { resources } = this.#search.request
    return { agent, available: resources, until: Number.POSITIVE_INFINITY, reliability: 1000 }
  }

  #ask(assignments: readonly Assignment[]): void {
    for (const [agent, ofAgent] of Map.groupBy(assignments, (one) => one.agent)) {
      const calls = [...this.#calls].filter((call) => call.agent === agent).length
      const size = LIMITS.ticketsPerMessageMax
      // What does not fit is missing still when one of these is answered.
      const most = Math.max(1, CALLS_PER_AGENT_MAX - calls) * size
      for (let from = 0; from < Math.min(most, ofAgent.length); from += size) {
        this.#call(agent, ofAgent.slice(from, Math.min(most, from + size)))
      }
    }
  }

  #call(agent: Principal, assignments: readonly Assignment[]): void {
    this.#asked += assignments.length
    const answered = this.#answer(agent, assignments).finally(() => this.#calls.delete(call))
    const late = elapsed(this.#components.clock, this.#init.hedgeMs).then(() => {
      call.isLate = true
    })
    const call: Call = {
      agent,
      assignments,
      isLate: false,
      get settled() {
        return this.isLate ? answered : Promise.race([answered, late])
      }
    }
    this.#calls.add(call)
  }

  /** Takes what an agent grants, and gives back what is not needed by then. */
  async #answer(agent: Principal, assignments: readonly Assignment[]): Promise<void> {
    const { failed } = this.#search
    const granted: Holding[] = []
    try {
      granted.push(...(await this.#granted(agent, assignments)))
    } catch (error) {
      // Its other nodes would be as vain, and cost as much time.
      failed.addAgent(agent, asSlicenetError(error))
    }
    const surplus = granted.filter((holding) => !this.#take(holding))
    if (surplus.length > 0) void this.#components.release(surplus)
  }

  #take(holding: Holding): boolean {
    const isLate = this.#over.signal.aborted || this.#holdings.length >= this.#search.count
    if (isLate || this.#holdings.some(({ node }) => node === holding.node)) return false
    const [place, ...others] = this.#advertsOf([holding, ...this.#holdings]).map((advert) =>
      this.#compatibility.place(advert)
    )
    if (place === undefined || !others.every((other) => this.#compatibility.holds(place, other))) return false
    this.#holdings.push(holding)
    return true
  }

  async #granted(agent: Principal, assignments: readonly Assignment[]): Promise<Holding[]> {
    const { slice, request, failed } = this.#search
    const { callAgent, clock, principal, membershipParams } = this.#components
    const requests = assignments.map(({ node }) => ({ node, ...request }))
    // Whoever gives up does not cut the call off: what is granted then could not be given back.
    const { grants } = await callAgent(agent)(
      'getTickets',
      { slice, ...membershipParams(), requests },
      { signal: within(clock, this.#init.callMs) }
    )
    return assignments.flatMap((assignment, index) => {
      try {
        return [openGrant(assignment, grants[index], { slice, request, holder: principal })]
      } catch (error) {
        const reason: SlicenetError = asSlicenetError(error)
        // An answer has room for so much: the rest is asked for again.
        const isRest = reason.code === 'BUSY' && index > 0
        if (!isRest) failed.addPair(assignment, reason)
        return []
      }
    })
  }

  #advertsOf(members: readonly Assignment[]): NodeAdvertisement[] {
    return members.flatMap(({ node }) => this.#adverts.get(node) ?? [])
  }
}

function countByAgent(
  members: readonly Assignment[],
  granted: ReadonlyMap<Principal, number>
): ReadonlyMap<Principal, number> {
  const counts = new Map(granted)
  for (const { agent } of members) counts.set(agent, (counts.get(agent) ?? 0) + 1)
  return counts
}
