/**
 * What an agent may cut tickets from: the delegation of a node, or a wholesale ticket that it got of another agent.
 * Pure.
 */
import { LIMITS } from '../base/limits.ts'
import type { Delegation } from '../ticket/delegation.ts'
import type { Parent } from '../ticket/fraud.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { lineOf, type Ticket } from '../ticket/ticket.ts'

export interface Source {
  /** What tickets are cut from, the last of the chain. */
  readonly parent: Parent
  /** The node's. */
  readonly delegation: Signed<Delegation>
  /** From the delegation's holder down; empty when the delegation itself is cut from. */
  readonly tickets: readonly Signed<Ticket>[]
  readonly node: Principal
  /**
   * Sources of one group follow one another: a delegation those of the same node before it, a wholesale ticket those
   * of its line. What was cut from any of a group and may still be of use counts against the newest.
   */
  readonly group: string
}

/** The group of all delegations of a node. */
export const DELEGATIONS_GROUP = 'delegation'

export function delegationSource(delegation: Signed<Delegation>): Source {
  const node = delegation.body.issuer
  return { parent: delegation, delegation, tickets: [], node, group: DELEGATIONS_GROUP }
}

/** `tickets` end with the wholesale ticket. */
export function wholesaleSource(delegation: Signed<Delegation>, tickets: readonly Signed<Ticket>[]): Source {
  const parent = tickets.at(-1)
  if (parent === undefined) throw new TypeError('a wholesale source ends with a ticket')
  return { parent, delegation, tickets, node: delegation.body.issuer, group: lineOf(parent) }
}

export function isDelegation(source: Source): boolean {
  return source.group === DELEGATIONS_GROUP
}

/** The envelopes down to what is cut from. */
export function chainBytes({ delegation, tickets }: Source): Uint8Array[] {
  return [delegation.bytes, ...tickets.map(({ bytes }) => bytes)]
}

/** How many tickets may hang below this source, one below the other. */
export function depthLeft({ delegation, tickets }: Source): number {
  return Math.min(delegation.body.maxDepth, LIMITS.chainLinksMax) - tickets.length
}

/** The latest that the children of a source may be redeemed. */
export function redeemLimit({ parent }: Source): number {
  return 'redeemBefore' in parent.body ? parent.body.redeemBefore : parent.body.notAfter
}

/** Whether `later` takes the place of `earlier`, of the same group. */
export function succeeds(later: Source, earlier: Source): boolean {
  if (isDelegation(later)) return later.parent.body.seq > earlier.parent.body.seq
  return later.parent.body.notAfter > earlier.parent.body.notAfter
}

/** Whether a ticket that was cut from this group counts against this very source, by what its signer can be shown. */
export function counts(source: Source, ticket: Signed<Ticket>): boolean {
  const { parent } = source
  if (ticket.body.parent === parent.id) return true
  return 'counts' in parent.body && parent.body.counts.includes(ticket.id)
}
