/** Whom a node or an agent serves: everybody, or principals by name and those that organisations vouch for. Pure. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { principalSchema, type Principal } from './principal.ts'

const LISTED_MAX = 3
const NOBODY = 'nobody'

const principals = v.pipe(v.array(principalSchema), v.maxLength(LIMITS.acceptedPrincipalsMax))

/** Where it is absent, everybody is served; where both lists are empty, nobody. */
export const acceptsSchema = v.strictObject({ principals, organisations: principals })
export type Accepts = v.InferOutput<typeof acceptsSchema>

/** `organisations`: those that are known to vouch for the principal, as `vouchedBy` gives them. */
export function isAccepted(
  accepts: Accepts | undefined,
  principal: Principal,
  organisations: readonly Principal[]
): boolean {
  return (
    accepts === undefined ||
    accepts.principals.includes(principal) ||
    organisations.some((organisation) => accepts.organisations.includes(organisation))
  )
}

/**
 * Why who advertised does not serve `principal`, in words that go on with its name; `undefined` when it does, or
 * tells nobody whom it serves.
 */
export function acceptanceFault(
  { accepts }: { readonly accepts?: Accepts | undefined },
  principal: Principal,
  organisations: readonly Principal[]
): string | undefined {
  if (accepts === undefined || isAccepted(accepts, principal, organisations)) return undefined
  const whom = servedBy(accepts)
  return `serves ${whom}${whom === NOBODY ? '' : ' only'}`
}

/** Whom such a one serves, in a few words. */
export function servedBy({ principals, organisations }: Accepts): string {
  const whom = [
    ...(organisations.length === 0 ? [] : [`members of ${listed(organisations)}`]),
    ...(principals.length === 0 ? [] : [`${principals.length} named principals`])
  ]
  return whom.length === 0 ? NOBODY : whom.join(' and ')
}

/** The first few: what is told is to be read. */
function listed(organisations: readonly Principal[]): string {
  const rest = organisations.length - LISTED_MAX
  const shown = organisations.slice(0, LISTED_MAX).join(', ')
  return rest > 0 ? `${shown} or ${rest} other organisations` : shown
}
