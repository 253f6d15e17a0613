/** Opens the chain of a demand and checks it: what is cheap first, signatures last (security, attack 4). */
import { chainFault, type Chain } from '../ticket/chain.ts'
import { delegationObject } from '../ticket/delegation.ts'
import { contains } from '../ticket/interval.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Redeem } from '../ticket/redeem.ts'
import type { Reason } from '../ticket/refusal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { ticketObject } from '../ticket/ticket.ts'

/** Envelopes: the node's delegation, and the tickets from the top. */
export interface ChainBytes {
  readonly delegation: Uint8Array
  readonly tickets: readonly Uint8Array[]
}

/** The chain, or the reason to refuse it. Throws for what is malformed or not signed by whom it names. */
export function openChain(
  redeem: Signed<Redeem>,
  request: ChainBytes,
  { node, now }: { readonly node: Principal; readonly now: number }
): Chain | Reason {
  if (redeem.body.node !== node) {
    return { code: 'TICKET_WRONG_NODE', message: `this demand is for node ${redeem.body.node}` }
  }
  if (!contains(redeem.body, now)) {
    return { code: 'TICKET_EXPIRED', message: 'this demand was to be presented in another interval' }
  }
  const delegation = delegationObject.decode(request.delegation)
  const tickets = request.tickets.map((bytes) => ticketObject.decode(bytes))
  const fault = chainFault({ delegation, tickets }, { node, holder: redeem.body.issuer, now })
  if (fault !== undefined) return fault
  return { delegation: delegation.verify(), tickets: tickets.map((ticket) => ticket.verify()) }
}

/** A chain whose signatures all hold, whatever its links say. Throws as `openChain`. */
export function openLinks({ delegation, tickets }: ChainBytes): Chain {
  return {
    delegation: delegationObject.open(delegation),
    tickets: tickets.map((bytes) => ticketObject.open(bytes))
  }
}
