/**
 * Settling (design §3): the node, which alone knows, tells the issuer or holder of a ticket what became of it, and bars
 * what is given back unredeemed.
 */
import { SlicenetError } from '../base/errors.ts'
import type { TicketState } from '../protocol/node-protocol.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import type { LeaseTable } from './lease-table.ts'
import type { SteadyClock } from './steady-clock.ts'

export interface SettlementComponents {
  readonly table: LeaseTable
  readonly clock: SteadyClock
  /** Told of each ticket that is over before its term. */
  readonly onFreed: (ticket: Signed<Ticket>) => void
}

/**
 * What became of a ticket and of those cut from it; with `cancel`, what is not redeemed yet never will be. Throws
 * `DENIED` for anybody but its issuer and holder.
 */
export async function settleTicket(
  { table, clock, onFreed }: SettlementComponents,
  bytes: Uint8Array,
  { caller, cancel }: { readonly caller: Principal; readonly cancel: boolean }
): Promise<TicketState> {
  const ticket = ticketObject.open(bytes)
  const { id, body } = ticket
  if (body.issuer !== caller && body.holder !== caller) {
    throw new SlicenetError('DENIED', 'only the issuer and the holder of a ticket may settle it')
  }
  const mayComeYet = table.ofTicket(id) === undefined && clock.now() < body.redeemBefore
  if (mayComeYet && (cancel || table.isCancelled(id))) await table.cancel(id, body.redeemBefore)
  const leases = table.under(id)
  if (leases.some(({ state }) => state !== 'ended' && state !== 'renewed')) return 'redeemed'
  if (mayComeYet && !table.isCancelled(id)) return 'open'
  if (body.notAfter > clock.now()) onFreed(ticket)
  return leases.length > 0 ? 'ended' : 'lapsed'
}
