/**
 * Admission control (paper §2.2, §3.3): whether a node can give one more lease. Guarantees are kept by never
 * promising more than there is at any instant of the term. Pure.
 */
import { peakClaimed } from '../ticket/claims.ts'
import { overlaps } from '../ticket/interval.ts'
import type { Interval } from '../ticket/interval.ts'
import { formatPortRange, portsOverlap, type PortRange } from '../ticket/ports.ts'
import type { Reason } from '../ticket/refusal.ts'
import { addResources, resourcesExceeding, type Resources } from '../ticket/resources.ts'

/** What a lease takes of its node, and for how long. */
export interface Demand extends Interval {
  readonly resources: Resources
  readonly ports: readonly PortRange[]
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
