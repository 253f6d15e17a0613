/**
 * Settling (design §3): the node, which alone knows, tells the issuer or holder of a ticket what became of it, and bars
 * what is given back unredeemed.
 */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { TicketState } from '../protocol/node-protocol.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import type { LeaseTable } from './lease-table.ts'
import type { SteadyClock } from './steady-clock.ts'

export interface SettlementComponents {
  readonly table: LeaseTable
  readonly clock: SteadyClock
  readonly node: Principal
  /** Whether somebody issues tickets under a delegation of this node; others are given less room. */
  readonly isAgent: (issuer: Principal) => boolean
  /** Told of each ticket that is over before its term. */
  readonly onFreed: (ticket: Signed<Ticket>) => void
}

/**
 * What became of a ticket and of those cut from it; with `cancel`, what is not redeemed yet never will be. Throws
 * `DENIED` for anybody but its issuer and holder, `TICKET_WRONG_NODE`, and `QUOTA_EXCEEDED` when too many strangers' tickets
 * are barred already: anybody can sign a ticket, and each takes room until it is over.
 */
export async function settleTicket(
  { table, clock, node, isAgent, onFreed }: SettlementComponents,
  bytes: Uint8Array,
  { caller, cancel }: { readonly caller: Principal; readonly cancel: boolean }
): Promise<TicketState> {
  const ticket = ticketObject.open(bytes)
  const { id, body } = ticket
  if (body.issuer !== caller && body.holder !== caller) {
    throw new SlicenetError('DENIED', 'only the issuer and the holder of a ticket may settle it')
  }
  if (body.node !== node) throw new SlicenetError('TICKET_WRONG_NODE', `this ticket is for node ${body.node}`)
  const mayComeYet = table.ofTicket(id) === undefined && clock.now() < body.redeemBefore
  if (mayComeYet && (cancel || table.isCancelled(id))) {
    // No lease lasts longer than that, whatever a ticket says.
    const until = Math.min(body.redeemBefore, clock.now() + LIMITS.leaseMsMax)
    await table.cancel(id, { redeemBefore: until, isForeign: !isAgent(body.issuer) })
  }
  const leases = table.under(id)
  if (leases.some(({ state }) => state !== 'ended' && state !== 'renewed')) return 'redeemed'
  if (mayComeYet && !table.isCancelled(id)) return 'open'
  if (body.notAfter > clock.now()) onFreed(ticket)
  return leases.length > 0 ? 'ended' : 'lapsed'
}
