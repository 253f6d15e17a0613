/** Whom a node or an agent serves: everybody, or principals by name and those that organisations vouch for. Pure. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { principalSchema, type Principal } from './principal.ts'

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
