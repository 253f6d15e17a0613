/**
 * Whom a peer lets connect: what is denied, and if anything is allowed, nobody but those. Pure.
 *
 * A peer is allowed by any one of its principal, an organisation that vouches for it, and the address that it comes from;
 * what is denied is denied whatever allows it.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { principalSchema, type Principal } from '../ticket/principal.ts'
import { addressMatcher, isAddressRange } from './address-range.ts'

const principals = v.optional(v.pipe(v.array(principalSchema), v.maxLength(LIMITS.gatedPrincipalsMax)), [])
const rulesSchema = v.strictObject({
  principals,
  organisations: principals,
  /** Ranges of IP addresses. */
  addresses: v.optional(
    v.pipe(
      v.array(
        v.pipe(v.string(), v.check(isAddressRange, 'expected a range such as 192.0.2.0/24 or 2001:db8::/32'))
      ),
      v.maxLength(LIMITS.gatedAddressesMax)
    ),
    []
  )
})
type Rules = v.InferOutput<typeof rulesSchema>

export const connectionPolicyEntries = {
  deny: v.exactOptional(rulesSchema),
  /** Absent, everybody is let in who is not denied. */
  allow: v.exactOptional(rulesSchema)
}
export const connectionPolicySchema = v.strictObject(connectionPolicyEntries)
export type ConnectionPolicy = v.InferOutput<typeof connectionPolicySchema>

/** What is known of a peer that is connected or about to be. */
export interface Visitor {
  readonly principal: Principal
  /** Where it comes from, if it comes by itself. */
  readonly address: string | undefined
  /** Those known to vouch for it. */
  readonly organisations: readonly Principal[]
}

/** `unproven`: an organisation that vouches for it would let it in. */
export type Verdict = 'admitted' | 'denied' | 'unproven'

export class ConnectionJudge {
  readonly #deny: Rules
  readonly #allow: Rules | undefined
  readonly #isAddressDenied: (address: string) => boolean
  readonly #isAddressAllowed: (address: string) => boolean
  readonly #trusted: ReadonlySet<Principal>

  /** `trusted`: whom this peer's own configuration names, who are allowed as well. */
  constructor({ deny, allow }: ConnectionPolicy, trusted: Iterable<Principal> = []) {
    this.#deny = deny ?? NO_RULES
    this.#allow = allow
    this.#isAddressDenied = addressMatcher(this.#deny.addresses)
    this.#isAddressAllowed = addressMatcher(allow?.addresses ?? [])
    this.#trusted = new Set(trusted)
  }

  /** Whether names must be looked up, for an address behind one may be denied. */
  get deniesAddresses(): boolean {
    return this.#deny.addresses.length > 0
  }

  isPrincipalDenied(principal: Principal): boolean {
    return this.#deny.principals.includes(principal)
  }

  /** Whether nobody at all is let in from there, so that nobody need be asked who it is. */
  isClosedTo(address: string | undefined): boolean {
    if (this.isAddressDenied(address)) return true
    const allow = this.#allow
    const isByAddressOnly =
      allow !== undefined && allow.principals.length + allow.organisations.length + this.#trusted.size === 0
    return isByAddressOnly && address !== undefined && !this.#isAddressAllowed(address)
  }

  isAddressDenied(address: string | undefined): boolean {
    return address !== undefined && this.#isAddressDenied(address)
  }

  judge({ principal, address, organisations }: Visitor): Verdict {
    const isDenied =
      this.isPrincipalDenied(principal) ||
      this.isAddressDenied(address) ||
      organisations.some((organisation) => this.#deny.organisations.includes(organisation))
    if (isDenied) return 'denied'
    const allow = this.#allow
    if (allow === undefined || this.#trusted.has(principal)) return 'admitted'
    const isAllowed =
      allow.principals.includes(principal) ||
      // An organisation need not vouch for itself.
      [principal, ...organisations].some((organisation) => allow.organisations.includes(organisation)) ||
      (address !== undefined && this.#isAddressAllowed(address))
    if (isAllowed) return 'admitted'
    return allow.organisations.length > 0 ? 'unproven' : 'denied'
  }
}

const NO_RULES: Rules = { principals: [], organisations: [], addresses: [] }

/** Both policies in one: what either denies is denied, and what either allows is allowed. */
export function joinedPolicies(one: ConnectionPolicy, other: ConnectionPolicy): ConnectionPolicy {
  const [deny, allow] = [joinedRules(one.deny, other.deny), joinedRules(one.allow, other.allow)]
  return { ...(deny === undefined ? {} : { deny }), ...(allow === undefined ? {} : { allow }) }
}

function joinedRules(one: Rules | undefined, other: Rules | undefined): Rules | undefined {
  if (one === undefined || other === undefined) return one ?? other
  return {
    principals: [...one.principals, ...other.principals],
    organisations: [...one.organisations, ...other.organisations],
    addresses: [...one.addresses, ...other.addresses]
  }
}
