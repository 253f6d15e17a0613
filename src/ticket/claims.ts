/**
 * Claims on resources over time, and the most that overlapping ones add up to at any instant: what both an agent's
 * overbooking limit and a node's admission control rest on. Pure.
 */
import { overlaps, type Interval } from './interval.ts'
import { NO_RESOURCES, addResources, largerResources, type Resources } from './resources.ts'

export interface Claim extends Interval {
  readonly resources: Resources
}

/**
 * For each resource, the most that `claims` hold together at one instant of `window`.
 * A sum only grows where a claim begins, so it is enough to look at those instants.
 */
export function peakClaimed(claims: readonly Claim[], window: Interval): Resources {
  const relevant = claims.filter((claim) => overlaps(claim, window))
  const instants = new Set([window.notBefore])
  for (const { notBefore } of relevant) if (notBefore > window.notBefore) instants.add(notBefore)
  let peak = NO_RESOURCES
  for (const instant of instants) {
    const sum = relevant
      .filter((claim) => claim.notBefore <= instant && instant < claim.notAfter)
      .reduce((total, claim) => addResources(total, claim.resources), NO_RESOURCES)
    peak = largerResources(peak, sum)
  }
  return peak
}
