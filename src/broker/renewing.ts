/** Getting the ticket by which a lease goes on. */
import { asSlicenetError, SlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { within } from '../base/time-limit.ts'
import type { agentProtocol, TicketRequest } from '../protocol/agent-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { Ticket } from '../ticket/ticket.ts'
import { openGrant, type Holding } from './grant.ts'

export interface RenewingComponents {
  /** Whom tickets are for. */
  readonly principal: Principal
  readonly clock: Clock
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
  readonly membershipParams: () => { memberships?: Uint8Array[] }
  /** The agents that a node says it delegates to, but for those that were shown to cheat. */
  readonly agentsOf: (node: Principal) => readonly Principal[]
}

/** A ticket that is redeemed, and what is wanted of its agent for the lease to go on. */
export interface TicketRenewal {
  readonly agent: Principal
  readonly ticket: Signed<Ticket>
  readonly durationMs: number
}

export interface RenewingInit {
  readonly callMs: number
  readonly signal?: AbortSignal | undefined
}

/**
 * Asks the agent that issued the ticket, and where there are no ports, which only that one has, others too. Throws the
 * first one's refusal, and `PROTOCOL_ERROR` when it grants something else.
 */
export async function renewTicket(
  { principal, clock, callAgent, membershipParams, agentsOf }: RenewingComponents,
  { agent, ticket, durationMs }: TicketRenewal,
  { callMs, signal }: RenewingInit
): Promise<Holding> {
  const { node, slice, resources, rights, shaping, ports } = ticket.body
  if (slice === undefined) throw new TypeError('a ticket without a slice has no lease to renew')
  const supersedes = ticket.body.supersedes ?? ticket.id
  const request = {
    resources,
    rights,
    ...(shaping === undefined ? {} : { shaping }),
    ports: eachPort(ports),
    durationMs,
    supersedes
  }
  const others = ports.length === 0 ? agentsOf(node).filter((other) => other !== agent) : []
  let refused: SlicenetError | undefined
  for (const issuer of [agent, ...others]) {
    try {
      const { grants } = await callAgent(issuer)(
        'getTickets',
        { slice, requests: [{ node, ...request }], ...membershipParams() },
        { signal: within(clock, callMs, signal) }
      )
      return openGrant({ node, agent: issuer }, grants[0], { slice, request, holder: principal })
    } catch (error) {
      signal?.throwIfAborted()
      refused ??= asSlicenetError(error)
    }
  }
  throw refused ?? new SlicenetError('NOT_FOUND', 'no agent to ask')
}

/** Of a ticket that is renewed every port is wanted again, by its number. */
function eachPort(ports: Ticket['ports']): TicketRequest['ports'] {
  return ports.map(({ protocol, first, last }) => ({
    protocol,
    port: first,
    ...(first === last ? {} : { last })
  }))
}
