/**
 * Admission control (paper §2.2, §3.3): whether a node can give one more lease. Guarantees are kept by never
 * promising more than there is at any instant of the term, and no link of a chain yields more than it is for, however
 * many tickets were cut from it (design §3, SHARP). Pure.
 */
import type { Chain } from '../ticket/chain.ts'
import { peakClaimed } from '../ticket/claims.ts'
import { overlaps } from '../ticket/interval.ts'
import type { Interval } from '../ticket/interval.ts'
import { formatPortRange, portsOverlap, type PortRange } from '../ticket/ports.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Reason } from '../ticket/refusal.ts'
import { addResources, resourcesExceeding, scaleResources, type Resources } from '../ticket/resources.ts'

/** As many ids as a refusal holds. */
const EVIDENCE_MAX = 16

/** What a lease takes of its node, and for how long. */
export interface Demand extends Interval {
  readonly resources: Resources
  readonly ports: readonly PortRange[]
}

/** What a lease takes, and of which links of which agent's chain. */
export interface LeasedDemand extends Demand {
  readonly agent: Principal
  /** Ids of the tickets of its chain, the redeemed one last. */
  readonly tickets: readonly string[]
}

/** The reason to refuse `wanted` beside what is leased, or `undefined` when it fits. */
export function admissionFault(
  wanted: Demand,
  leased: readonly Demand[],
  capacity: Resources
): Reason | undefined {
  const total = addResources(peakClaimed(leased, wanted), wanted.resources)
  const [short] = resourcesExceeding(total, capacity)
  if (short !== undefined) {
    return {
      code: 'OVERBOOKED',
      message: `${short}: ${total[short]} would be leased of the ${capacity[short]} that the node has`
    }
  }
  const port = wanted.ports.find((range) =>
    leased.some((lease) => overlaps(lease, wanted) && portsOverlap([range], lease.ports))
  )
  if (port !== undefined) return { code: 'PORT_TAKEN', message: `${formatPortRange(port)} is leased already` }
  return undefined
}

/**
 * The reason to refuse the last ticket of a checked chain beside what is leased under the links of that chain: tickets
 * cut from one ticket may not take more than it has, those of an agent not more than it may issue.
 */
export function overdrawnFault(
  { delegation, tickets }: Chain,
  wanted: Demand,
  leased: readonly LeasedDemand[]
): Reason | undefined {
  const among = (others: readonly LeasedDemand[], limit: Resources): string | undefined => {
    const total = addResources(peakClaimed(others, wanted), wanted.resources)
    const [resource] = resourcesExceeding(total, limit)
    return resource && `${resource}: ${total[resource]} would be leased of ${limit[resource]}`
  }
  for (const ticket of tickets) {
    const under = leased.filter((lease) => lease.tickets.includes(ticket.id))
    const excess = among(under, ticket.body.resources)
    if (excess === undefined) continue
    const message = `with the tickets cut from one, ${excess}`
    return { code: 'TICKET_EXCEEDS_PARENT', message, evidence: evidence(ticket.id, under) }
  }
  const { holder, resources, overbookPercent } = delegation.body
  const ofAgent = leased.filter(({ agent }) => agent === holder)
  const excess = among(ofAgent, scaleResources(resources, overbookPercent))
  if (excess === undefined) return undefined
  // No proof of guilt: a clock that runs ahead counts a ticket as over that this node does not.
  const message = `of what agent ${holder} may issue, ${excess}`
  return { code: 'OVERBOOKED', message, evidence: evidence(delegation.id, ofAgent) }
}

function evidence(link: string, leased: readonly LeasedDemand[]): string[] {
  return [link, ...leased.flatMap(({ tickets }) => tickets.at(-1) ?? [])].slice(0, EVIDENCE_MAX)
}
