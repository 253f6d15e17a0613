/**
 * Receipts: what became of a ticket, by the word of its holder and of the node, both signed. Pure.
 */
import { SlicenetError, type ErrorCode } from '../base/errors.ts'
import { leaseObject, type Lease } from './lease.ts'
import { redeemObject, type Redeem } from './redeem.ts'
import { refusalObject, type Refusal } from './refusal.ts'
import type { Outcome } from './reliability.ts'
import type { Signed } from './signed-object.ts'
import type { Ticket } from './ticket.ts'

export interface OpenReceipt {
  readonly redeem: Signed<Redeem>
  readonly lease?: Signed<Lease>
  readonly refusal?: Signed<Refusal>
}

/** Refusals by which a promise was broken; all others are the holder's own doing, or say nothing of the node. */
const BREACHES: ReadonlySet<ErrorCode> = new Set([
  'OVERBOOKED',
  'PORT_TAKEN',
  'ISSUER_CHEATED',
  'TICKET_EXCEEDS_PARENT',
  'VSERVER_FAILED'
])

/** Throws as `ObjectType.open`, and `ENCODING_INVALID` when there is not exactly one answer to the demand. */
export function openReceipt(bytes: {
  readonly redeem: Uint8Array
  readonly lease?: Uint8Array
  readonly refusal?: Uint8Array
}): OpenReceipt {
  const redeem = redeemObject.open(bytes.redeem)
  if (bytes.lease !== undefined && bytes.refusal === undefined) {
    return { redeem, lease: leaseObject.open(bytes.lease) }
  }
  if (bytes.refusal !== undefined && bytes.lease === undefined) {
    return { redeem, refusal: refusalObject.open(bytes.refusal) }
  }
  throw new SlicenetError('ENCODING_INVALID', 'a receipt has either a lease or a refusal')
}

/** What a receipt says of a ticket; `undefined` when it is of another one, or says nothing of who promised it. */
export function outcomeOf(
  { redeem, lease, refusal }: OpenReceipt,
  ticket: Signed<Ticket>
): Outcome | undefined {
  const { node, holder } = ticket.body
  if (redeem.body.ticket !== ticket.id || redeem.body.issuer !== holder || redeem.body.node !== node) {
    return undefined
  }
  if (lease !== undefined) {
    const isOfTicket = lease.body.issuer === node && lease.body.ticket === ticket.id
    return isOfTicket && lease.body.holder === holder ? 'kept' : undefined
  }
  const isAnswer = refusal?.body.issuer === node && refusal.body.request === redeem.id
  return isAnswer && BREACHES.has(refusal.body.code) ? 'broken' : undefined
}
