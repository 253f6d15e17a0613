/**
 * Whom an agent grants tickets to, and on what terms: rules in order, of which the first that matches decides. Pure.
 */
import { LIMITS } from '../base/limits.ts'
import type { Accepts } from '../ticket/accepts.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Right } from '../ticket/rights.ts'
import type { Shaping } from '../ticket/shaping.ts'

/** Amounts that a quota may bound, each for what is held at the same instant. */
export const QUOTA_RESOURCES = ['cpuMillis', 'memoryBytes', 'diskBytes', 'egressBps'] as const
export type QuotaResource = (typeof QUOTA_RESOURCES)[number]

/** What is absent has no bound. */
export interface Quota extends Readonly<Partial<Record<QuotaResource, number>>> {
  /** Tickets that are out; one and its renewals count once. */
  readonly tickets?: number
}

/** What tickets are for: slices, or others that are cut from them. */
export type Grants = 'slices' | 'wholesale' | 'both'

/** What is granted to whom a rule matches. */
export interface Terms {
  readonly grants: Grants
  readonly durationMsMax: number
  readonly rights: readonly Right[]
  /** What a ticket may say at most, and says where it is not asked for less. Absent: what the node delegates, and the usual share. */
  readonly shaping?: Shaping | undefined
  readonly perPrincipal: Quota
  /** For all members together of the organisation that was matched. */
  readonly perOrganisation: Quota
}

export interface AdmissionRule {
  /** For people, in refusals. */
  readonly name: string
  /** Absent: everybody. */
  readonly match?: Accepts
  /** Absent: nothing is granted. */
  readonly terms?: Terms
}

export interface AdmissionPolicy {
  /** Nothing is granted to whom none matches. */
  readonly rules: readonly AdmissionRule[]
}

/** Another agent that may have tickets without a slice, to cut its own from. */
export interface Partner {
  readonly principal: Principal
}

/** A policy of lists of principals, all on the same terms. */
export interface PlainPolicy {
  /** Who may have tickets. */
  readonly holders: 'anyone' | readonly Principal[]
  readonly durationMsMax: number
  readonly rights: readonly Right[]
  readonly shaping?: Shaping | undefined
  /** Tickets of one holder that no node has settled; default 256. */
  readonly ticketsPerHolderMax?: number
  readonly partners?: readonly Partner[]
}

export type AgentPolicy = PlainPolicy | AdmissionPolicy

export const TICKETS_PER_HOLDER = 256

export function admissionPolicy(policy: AgentPolicy): AdmissionPolicy {
  return 'rules' in policy ? policy : { rules: plainRules(policy) }
}

function plainRules(policy: PlainPolicy): AdmissionRule[] {
  const { holders, durationMsMax, rights, shaping, partners = [] } = policy
  const { ticketsPerHolderMax = TICKETS_PER_HOLDER } = policy
  const terms = (grants: Grants): Terms => ({
    grants,
    durationMsMax,
    rights,
    shaping,
    perPrincipal: { tickets: ticketsPerHolderMax },
    perOrganisation: {}
  })
  const named = partners.map(({ principal }) => principal)
  const isHolder = (principal: Principal): boolean => holders === 'anyone' || holders.includes(principal)
  const only = (principals: readonly Principal[]): Accepts => ({
    principals: [...principals],
    organisations: []
  })
  return [
    { name: 'partners', match: only(named.filter(isHolder)), terms: terms('both') },
    { name: 'partners', match: only(named.filter((one) => !isHolder(one))), terms: terms('wholesale') },
    { name: 'holders', ...(holders === 'anyone' ? {} : { match: only(holders) }), terms: terms('slices') }
  ]
}

/** The rule that decides on somebody, and the organisation by which it does. */
export interface Matched {
  readonly rule: AdmissionRule
  /** Absent where the rule names the principal, or everybody. */
  readonly organisation?: Principal
}

/** `organisations`: those that vouch for `principal`. The first in the order of the rule counts. */
export function matchedRule(
  { rules }: AdmissionPolicy,
  principal: Principal,
  organisations: readonly Principal[]
): Matched | undefined {
  for (const rule of rules) {
    if (rule.match === undefined) return { rule }
    const organisation = rule.match.organisations.find((one) => organisations.includes(one))
    if (organisation !== undefined) return { rule, organisation }
    if (rule.match.principals.includes(principal)) return { rule }
  }
  return undefined
}

/** Whether what a principal shows of its memberships makes a difference. */
export function looksAtMemberships({ rules }: AdmissionPolicy): boolean {
  return rules.some(({ match }) => match !== undefined && match.organisations.length > 0)
}

/**
 * Whom an agent tells that it serves slices of: `undefined` for everybody, and where it is more than an advert has room
 * for, since who is left out would not ask.
 */
export function acceptedBy({ rules }: AdmissionPolicy): Accepts | undefined {
  const decided = { principals: new Set<Principal>(), organisations: new Set<Principal>() }
  const accepts: { [K in keyof Accepts]: Principal[] } = { principals: [], organisations: [] }
  for (const { match, terms } of rules) {
    const isServed = terms !== undefined && terms.grants !== 'wholesale'
    if (match === undefined) {
      if (isServed) return undefined
      break
    }
    for (const kind of ['principals', 'organisations'] as const) {
      for (const one of match[kind]) {
        if (isServed && !decided[kind].has(one)) accepts[kind].push(one)
        decided[kind].add(one)
      }
    }
  }
  const { principals, organisations } = accepts
  const max = LIMITS.acceptedPrincipalsMax
  return principals.length > max || organisations.length > max ? undefined : accepts
}
