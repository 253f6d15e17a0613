/** What the daemon answers about tickets, revocations and proofs of fraud. */
import { SlicenetError } from '../base/errors.ts'
import type { Handlers } from '../protocol/method.ts'
import type { MemberRecord, SliceRecord } from '../service/slice-book.ts'
import type { PeerParts } from './compose.ts'
import type { ControlMethods } from './control-client.ts'
import type { TicketView } from './control-protocol.ts'
import { proofView } from './proof-view.ts'

type ControlHandlers = Handlers<ControlMethods>

type TicketMethod = 'ticketList' | 'ticketRevoke' | 'issuerRevoke'

export function ticketHandlers(parts: () => PeerParts): Pick<ControlHandlers, TicketMethod> {
  return {
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    async ticketList() {
      const { host, agent, services } = parts()
      const issued = (agent?.tickets() ?? []).map(({ id, ...ticket }): TicketView => ({
        ticket: id,
        role: 'issued',
        issuer: host.principal,
        ...ticket
      }))
      return { tickets: [...issued, ...services.records().flatMap(heldTickets)] }
    },
    async ticketRevoke({ ticket }, { signal }) {
      const { agent, node } = parts()
      // Of a ticket of its own an agent's word goes further: it is not renewed either.
      const isOwn = agent?.tickets().some(({ id }) => id === ticket) ?? false
      if (agent !== undefined && (isOwn || node === undefined)) {
        return { revocation: (await agent.revoke(ticket, { signal })).id, by: 'agent' }
      }
      if (node !== undefined)
        return { revocation: (await node.manager.revokeHere({ id: ticket })).id, by: 'node' }
      throw new SlicenetError('DENIED', 'this peer is neither agent nor node, and has issued no tickets', {
        hint: 'give a ticket back that you do not need by deleting its slice'
      })
    },
    async issuerRevoke({ issuer, beforeSeq }) {
      const { node } = parts()
      if (node === undefined)
        throw new SlicenetError('DENIED', 'only a node refuses all tickets of an issuer')
      return { revocation: (await node.manager.revokeHere({ issuer, beforeSeq })).id }
    }
  }
}

function heldTickets({ members }: SliceRecord): TicketView[] {
  return [...members.values()].flatMap((member) => {
    const { ticket, state, renewal } = member
    const next = renewal === undefined ? [] : [heldTicket(renewal.ticket, 'renewing')]
    return [heldTicket(ticket, state), ...next]
  })
}

function heldTicket({ id, body }: MemberRecord['ticket'], state: TicketView['state']): TicketView {
  const { node, issuer, holder, slice, notBefore, notAfter } = body
  return {
    ticket: id,
    role: 'held',
    node,
    issuer,
    holder,
    ...(slice === undefined ? {} : { slice }),
    notBefore,
    notAfter,
    state
  }
}

export function proofHandlers(parts: () => PeerParts): Pick<ControlHandlers, 'proofList' | 'proofGet'> {
  return {
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    async proofList() {
      return { proofs: parts().directory.proofs.all().map(proofView) }
    },
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    async proofGet({ proof }) {
      const found = parts()
        .directory.proofs.all()
        .find((bundle) => bundle.proof.id === proof)
      if (found === undefined) throw new SlicenetError('NOT_FOUND', `this peer knows no proof ${proof}`)
      return { bundle: found.bytes }
    }
  }
}
