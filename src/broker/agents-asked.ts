/**
 * Which agents are asked what they hold: those that nodes say they delegate to, and those that say themselves that they
 * serve nodes there, for what one agent bought of another no node tells. Pure.
 */
import { LIMITS } from '../base/limits.ts'
import { isAccepted } from '../ticket/accepts.ts'
import type { AgentAdvertisement, NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Holder } from './requirements.ts'

/**
 * Those named most often first, then those that no node names; as many as are worth asking. Agents whose own adverts say
 * that they do not serve the asker are left out.
 */
export function agentsAsked(
  nodes: readonly NodeAdvertisement[],
  adverts: readonly AgentAdvertisement[],
  { principal, organisations }: Holder
): Principal[] {
  const unwilling = new Set(
    adverts
      .filter(({ accepts }) => !isAccepted(accepts, principal, organisations))
      .map(({ issuer }) => issuer)
  )
  const named = Map.groupBy(
    nodes.flatMap(({ agents }) => [...new Set(agents)]),
    (agent) => agent
  )
  const byCount = [...named]
    .sort(([a, ofA], [b, ofB]) => ofB.length - ofA.length || (a < b ? -1 : 1))
    .map(([agent]) => agent)
  const places = new Set(nodes.flatMap(({ attributes: { region } }) => region ?? []))
  const others = adverts
    .filter(({ issuer, nodes: count, regions }) => {
      const isThere = regions.length === 0 || regions.some((region) => places.has(region))
      return count > 0 && isThere && !named.has(issuer)
    })
    .map(({ issuer }) => issuer)
    .sort()
  const willing = (agents: readonly Principal[]): Principal[] =>
    agents.filter((agent) => !unwilling.has(agent))
  // Whoever has many nodes name many agents keeps nobody out of the rest.
  const most = willing(byCount).slice(0, LIMITS.agentsAskedMax - Math.min(others.length, OTHERS_KEPT))
  return [...most, ...willing(others)].slice(0, LIMITS.agentsAskedMax)
}

/** So many are asked that no node names, however many are named. */
const OTHERS_KEPT = 16
