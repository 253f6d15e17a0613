/**
 * Admission control (paper §2.2, §3.3): whether a node can give one more lease. Guarantees are kept by never
 * promising more than there is at any instant of the term, and no link of a chain yields more than it is for, however
 * many tickets were cut from it (design §3, SHARP). Pure.
 */
import type { Chain } from '../ticket/chain.ts'
import type { ClaimProfile } from '../ticket/claim-profile.ts'
import type { Interval } from '../ticket/interval.ts'
import { formatPortRange, type PortRange } from '../ticket/ports.ts'
import type { Reason } from '../ticket/refusal.ts'
import {
  NO_RESOURCES,
  addResources,
  resourcesExceeding,
  scaleResources,
  type Resources
} from '../ticket/resources.ts'
import { lineOf } from '../ticket/ticket.ts'
import type { Leased } from './leased.ts'

/** As many ids as a refusal holds. */
const EVIDENCE_MAX = 16

/** What is asked of the node, and for how long. */
export interface Demand extends Interval {
  readonly resources: Resources
  readonly ports: readonly PortRange[]
}

/** The reason to refuse `wanted` beside what is leased, or `undefined` when it fits. */
export function admissionFault(wanted: Demand, leased: Leased, capacity: Resources): Reason | undefined {
  const short = excess(leased.all, wanted, capacity)
  if (short !== undefined) return { code: 'OVERBOOKED', message: `${short} that the node has` }
  const taken = leased.conflict(wanted.ports, wanted)
  if (taken !== undefined) {
    return { code: 'PORT_TAKEN', message: `${formatPortRange(taken.port)} is leased already, ${taken.by}` }
  }
  return undefined
}

/**
 * The reason to refuse the last ticket of a checked chain beside what is leased under the links of that chain: tickets
 * cut from one ticket, or from others of its line, may not take more than it has, those of an agent not more than it may
 * issue.
 */
export function overdrawnFault(
  { delegation, tickets }: Chain,
  wanted: Demand,
  leased: Leased
): Reason | undefined {
  for (const ticket of tickets) {
    const { id, body } = ticket
    const line = lineOf(ticket)
    const over = excess(leased.under(line), wanted, body.resources)
    if (over === undefined) continue
    const message = `with the tickets cut from one, ${over} that it is for`
    const evidence = [id, ...leased.redeemedUnder(line, EVIDENCE_MAX - 1)]
    return { code: 'TICKET_EXCEEDS_PARENT', message, evidence }
  }
  const { holder, resources, overbookPercent } = delegation.body
  const over = excess(leased.ofAgent(holder), wanted, scaleResources(resources, overbookPercent))
  if (over === undefined) return undefined
  // No proof of guilt: a clock that runs ahead counts a ticket as over that this node does not.
  const message = `${over} that agent ${holder} may issue`
  const evidence = [delegation.id, ...leased.redeemedOfAgent(holder, EVIDENCE_MAX - 1)]
  return { code: 'OVERBOOKED', message, evidence }
}

/** The first resource of which `wanted` beside `others` would be more than `limit`, in words. */
function excess(others: ClaimProfile | undefined, wanted: Demand, limit: Resources): string | undefined {
  const exceeding = (peak: Resources): string | undefined => {
    const total = addResources(peak, wanted.resources)
    const [resource] = resourcesExceeding(total, limit)
    return resource && `${resource}: ${total[resource]} would be leased of the ${limit[resource]}`
  }
  if (others === undefined) return exceeding(NO_RESOURCES)
  // The peak over all time is known without looking, and mostly low enough.
  return exceeding(others.peakEver()) && exceeding(others.peak(wanted))
}
