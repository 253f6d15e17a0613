/**
 * The node's own say about administrative slices (paper §4.3: only administrators make them): who may hold one and with
 * which capabilities, whatever its agents grant. Pure.
 */
import type { Principal } from '../ticket/principal.ts'
import type { Reason } from '../ticket/refusal.ts'
import { administrativeRights, isAdministrative, type CapabilityRight, type Right } from '../ticket/rights.ts'

export interface AdministrativePolicy {
  readonly holders: readonly Principal[]
  /** That may be leased beside the right `administrative` itself. */
  readonly capabilities: readonly CapabilityRight[]
}

/** The reason to refuse these rights to `holder`; without a policy nobody has administrative ones. */
export function administrationFault(
  policy: AdministrativePolicy | undefined,
  rights: readonly Right[],
  holder: Principal
): Reason | undefined {
  const wanted = administrativeRights(rights)
  if (wanted.length === 0) return undefined
  if (policy === undefined || !policy.holders.includes(holder)) {
    return { code: 'DENIED', message: `this node leases no administrative slices to ${holder}` }
  }
  const allowed = new Set(leasableRights(policy, wanted))
  const right = wanted.find((name) => !allowed.has(name))
  return right === undefined
    ? undefined
    : { code: 'DENIED', message: `this node does not lease the right ${right}` }
}

/** Of `rights`, those that the node leases to anybody: what it delegates, and says in its adverts. */
export function leasableRights(
  policy: AdministrativePolicy | undefined,
  rights: readonly Right[]
): readonly Right[] {
  const administrative = new Set<Right>(administrativeRights(rights))
  const allowed = new Set<Right>(
    policy === undefined || policy.holders.length === 0 ? [] : ['administrative', ...policy.capabilities]
  )
  // Capabilities are for administrative slices alone.
  const isOffered = isAdministrative(rights)
  return rights.filter((right) => !administrative.has(right) || (isOffered && allowed.has(right)))
}
