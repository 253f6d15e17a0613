/**
 * Choosing the members of a slice: which nodes, and from which agent a ticket for each (paper §2.2, step 3). Prefers
 * nodes and agents that can be relied on, then nodes with more free, and spreads a slice over the agents, so that no one
 * of them can stop it. Pure.
 */
import type { Principal } from '../ticket/principal.ts'
import { resourcesExceeding, type Resources } from '../ticket/resources.ts'

/** A node that matches, with what agents offer of it. */
export interface Candidate {
  readonly node: Principal
  readonly free: Resources
  /** How far the node can be relied on, 0 to 1000. */
  readonly reliability: number
  readonly offers: readonly {
    readonly agent: Principal
    readonly available: Resources
    readonly until: number
    /** How far the agent can be relied on, 0 to 1000. */
    readonly reliability: number
  }[]
}

export interface Assignment {
  readonly node: Principal
  readonly agent: Principal
}

export interface Wish {
  readonly count: number
  readonly resources: Resources
  /** UTC ms at which the lease is to end. */
  readonly notAfter: number
  /** How many members of the slice each agent has granted already. */
  readonly granted: ReadonlyMap<Principal, number>
}

/**
 * Those whose reliability differs by less than this are alike: else the first node that kept to a ticket would be
 * chosen for every slice after.
 */
const BAND = 250
const bandOf = ({ reliability }: { readonly reliability: number }): number => Math.floor(reliability / BAND)

/** At most `count` assignments, a node at most once. */
export function chooseMembers(candidates: readonly Candidate[], wish: Wish): Assignment[] {
  const load = new Map(wish.granted)
  const chosen: Assignment[] = []
  const hasRoom = ({ free }: Candidate): boolean => resourcesExceeding(wish.resources, free).length === 0
  // Adverts may be old: nodes without room by their word come last, but they come. By id among equals, so that the
  // same adverts give the same choice.
  const ranked = [...candidates].sort(
    (a, b) =>
      Number(hasRoom(b)) - Number(hasRoom(a)) ||
      bandOf(b) - bandOf(a) ||
      b.free.cpuMillis - a.free.cpuMillis ||
      b.free.memoryBytes - a.free.memoryBytes ||
      (a.node < b.node ? -1 : 1)
  )
  for (const candidate of ranked) {
    if (chosen.length >= wish.count) break
    const able = candidate.offers.filter(
      ({ available, until }) =>
        until >= wish.notAfter && resourcesExceeding(wish.resources, available).length === 0
    )
    const [best] = able.sort(
      (a, b) =>
        bandOf(b) - bandOf(a) ||
        (load.get(a.agent) ?? 0) - (load.get(b.agent) ?? 0) ||
        (a.agent < b.agent ? -1 : 1)
    )
    if (best === undefined) continue
    load.set(best.agent, (load.get(best.agent) ?? 0) + 1)
    chosen.push({ node: candidate.node, agent: best.agent })
  }
  return chosen
}
