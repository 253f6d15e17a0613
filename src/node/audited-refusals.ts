/** Refusals of administrative slices, noted where they say something: whom an agent of this node gave a ticket in vain. */
import type { Principal } from '../ticket/principal.ts'
import type { Redeem } from '../ticket/redeem.ts'
import type { Reason } from '../ticket/refusal.ts'
import { isAdministrative } from '../ticket/rights.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { ticketObject } from '../ticket/ticket.ts'
import type { AuditTrail } from './audit-trail.ts'
import type { ChainBytes } from './demand.ts'

/** Only of tickets that an agent of this node signed: others anybody can make up, as many as push the rest out. */
export async function noteRefusal(
  components: {
    readonly audit?: AuditTrail
    readonly key: { readonly principal: Principal }
    readonly delegations: { isAgent(principal: Principal): boolean }
  },
  { body }: Signed<Redeem>,
  { tickets }: ChainBytes,
  { code, message }: Reason
): Promise<void> {
  const { audit, delegations, key } = components
  const [first, leaf] = [tickets[0], tickets.at(-1)]
  if (audit === undefined || first === undefined || leaf === undefined) return
  if (!isAdministrative(ticketObject.decode(leaf).body.rights)) return
  try {
    const { issuer, node, rights: granted } = ticketObject.open(first).body
    // No ticket has rights that the one before it has not.
    if (node !== key.principal || !delegations.isAgent(issuer) || !isAdministrative(granted)) return
    const { rights, slice = '' } = ticketObject.open(leaf).body
    const details = { rights: [...rights], message }
    await audit.note({ slice, principal: body.issuer, rights }, 'refuse', code, details)
  } catch {
    // Malformed, signed by nobody, or not to be noted.
  }
}
