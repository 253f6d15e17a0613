/**
 * Which of the nodes that match are preferred, and from which agent a ticket for each is asked (paper §2.2, step 3). In
 * this order: nodes that have room by their own word; those that can be relied on; those of higher rank; those with more
 * free. Of a node's agents those that can be relied on come first, then those that granted fewest members, so that no one
 * of them can stop a slice. Pure.
 */
import type { Rank } from '../query/rank.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { resourcesExceeding, type Resources } from '../ticket/resources.ts'

export interface AgentOffer {
  readonly agent: Principal
  readonly available: Resources
  /** UTC ms at which the agent's delegation ends. */
  readonly until: number
  /** How far the agent can be relied on, 0 to 1000. */
  readonly reliability: number
}

/** A node that matches, with what agents offer of it. */
export interface Candidate {
  readonly advert: NodeAdvertisement
  /** How far the node can be relied on, 0 to 1000. */
  readonly reliability: number
  readonly offers: readonly AgentOffer[]
}

export interface Assignment {
  readonly node: Principal
  readonly agent: Principal
}

/** What a ticket is to be for. */
export interface TicketWish {
  readonly resources: Resources
  /** UTC ms at which the lease is to end. */
  readonly notAfter: number
}

/**
 * Those whose reliability differs by less than this are alike: else the first node that kept to a ticket would be
 * chosen for every slice after.
 */
const BAND = 250
const bandOf = ({ reliability }: { readonly reliability: number }): number => Math.floor(reliability / BAND)

export interface Preferred {
  readonly candidate: Candidate
  readonly hasRoom: boolean
  readonly rank: number | undefined
}

/**
 * Adverts may be old: nodes without room by their word come last, but they come. By id among equals, so that the same
 * adverts give the same choice.
 */
export function inOrder(
  candidates: readonly Candidate[],
  resources: Resources,
  rank: Rank | undefined
): Preferred[] {
  const all = candidates.map((candidate) => ({
    candidate,
    hasRoom: resourcesExceeding(resources, candidate.advert.free).length === 0,
    rank: rank?.of(candidate.advert)
  }))
  return all.sort(
    (a, b) =>
      Number(b.hasRoom) - Number(a.hasRoom) ||
      bandOf(b.candidate) - bandOf(a.candidate) ||
      byRank(a.rank, b.rank) ||
      b.candidate.advert.free.cpuMillis - a.candidate.advert.free.cpuMillis ||
      b.candidate.advert.free.memoryBytes - a.candidate.advert.free.memoryBytes ||
      (a.candidate.advert.issuer < b.candidate.advert.issuer ? -1 : 1)
  )
}

/** More first, none last. */
function byRank(a: number | undefined, b: number | undefined): number {
  if (a === b) return 0
  if (a === undefined) return 1
  if (b === undefined) return -1
  return b - a
}

export function isAble({ available, until }: AgentOffer, { resources, notAfter }: TicketWish): boolean {
  return until >= notAfter && resourcesExceeding(resources, available).length === 0
}

/** An agent for each; `granted`: how many members of the slice each agent has granted already. */
export function assignAgents(
  chosen: readonly Candidate[],
  wish: TicketWish,
  granted: ReadonlyMap<Principal, number>
): Assignment[] {
  const load = new Map(granted)
  return chosen.flatMap(({ advert, offers }) => {
    const [best] = offers
      .filter((offer) => isAble(offer, wish))
      .sort(
        (a, b) =>
          bandOf(b) - bandOf(a) ||
          (load.get(a.agent) ?? 0) - (load.get(b.agent) ?? 0) ||
          (a.agent < b.agent ? -1 : 1)
      )
    if (best === undefined) return []
    load.set(best.agent, (load.get(best.agent) ?? 0) + 1)
    return [{ node: advert.issuer, agent: best.agent }]
  })
}
