/**
 * Opens what an agent granted and checks that it is what was asked for, so that an agent's fault is not found out at
 * a node, and laid at its door. Pure.
 */
import { SlicenetError } from '../base/errors.ts'
import type { Grant, TicketRequest } from '../protocol/agent-protocol.ts'
import { chainFault } from '../ticket/chain.ts'
import { delegationObject } from '../ticket/delegation.ts'
import { portsWithin } from '../ticket/ports.ts'
import type { Principal } from '../ticket/principal.ts'
import { refusalError, refusalObject } from '../ticket/refusal.ts'
import { resourcesExceeding } from '../ticket/resources.ts'
import { isAdministrative } from '../ticket/rights.ts'
import { SHAPING_NAMES, shapingDiffering } from '../ticket/shaping.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import type { Assignment } from './preference.ts'

/** A ticket in hand, with the chain that proves it. */
export interface Holding extends Assignment {
  readonly ticket: Signed<Ticket>
  /** Envelopes, the node's delegation first. */
  readonly chain: readonly Uint8Array[]
}

/** What was asked for, whichever the node. */
export interface Asked {
  readonly slice: string
  readonly holder: Principal
  readonly request: Omit<TicketRequest, 'node'>
}

/** Throws the agent's refusal, or `PROTOCOL_ERROR` when the ticket is not the one asked for. */
export function openGrant(assignment: Assignment, grant: Grant | undefined, asked: Asked): Holding {
  if (grant?.refusal !== undefined) throw refusalError(refusalObject.open(grant.refusal))
  const [root, ...links] = grant?.chain ?? []
  if (grant?.chain === undefined || root === undefined) {
    throw new SlicenetError('PROTOCOL_ERROR', 'the agent neither granted nor refused')
  }
  const delegation = delegationObject.open(root)
  const tickets = links.map((bytes) => ticketObject.open(bytes))
  const ticket = tickets.at(-1)
  if (ticket === undefined || ticket.body.issuer !== assignment.agent || !isAsAsked(ticket.body, asked)) {
    throw new SlicenetError('PROTOCOL_ERROR', 'the agent granted another ticket than the one asked for')
  }
  // At the instant that its term begins: whether that is past is for the node's clock to say.
  const presentation = { node: assignment.node, holder: asked.holder, now: ticket.body.notBefore }
  const fault = chainFault({ delegation, tickets }, presentation)
  if (fault === undefined) return { ...assignment, ticket, chain: grant.chain }
  throw new SlicenetError('PROTOCOL_ERROR', `the agent granted a ticket that is not good: ${fault.message}`)
}

function isAsAsked(ticket: Ticket, { slice, request }: Asked): boolean {
  return (
    ticket.slice === slice &&
    ticket.supersedes === request.supersedes &&
    resourcesExceeding(request.resources, ticket.resources).length === 0 &&
    ticket.notAfter - ticket.notBefore >= request.durationMs &&
    request.rights.every((right) => ticket.rights.includes(right)) &&
    // One that nobody asked for would be another kind of machine.
    isAdministrative(request.rights) === isAdministrative(ticket.rights) &&
    isShapedAsAsked(ticket, request) &&
    hasPorts(ticket, request.ports)
  )
}

/** What was not asked for is the agent's to bound, but a lease goes on with just what it has. */
function isShapedAsAsked(ticket: Ticket, { shaping, supersedes }: Asked['request']): boolean {
  if (supersedes !== undefined) return shapingDiffering(shaping, ticket.shaping).length === 0
  return SHAPING_NAMES.every(
    (name) => shaping?.[name] === undefined || shaping[name] === ticket.shaping?.[name]
  )
}

function hasPorts({ ports }: Ticket, wishes: Asked['request']['ports']): boolean {
  const named = wishes.flatMap(({ protocol, port, last }) =>
    port === undefined ? [] : [{ protocol, first: port, last: last ?? port }]
  )
  const enough = [...Map.groupBy(wishes, ({ protocol }) => protocol)].every(([protocol, wished]) => {
    const ranges = ports.filter((range) => range.protocol === protocol)
    const had = ranges.reduce((count, { first, last }) => count + last - first + 1, 0)
    return had >= wished.reduce((count, { port = 0, last = port }) => count + last - port + 1, 0)
  })
  return enough && portsWithin(named, ports)
}
