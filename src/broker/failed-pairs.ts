/** What was tried in vain while tickets are gathered, so that it is not tried again, and why. */
import type { ErrorCode, SlicenetError } from '../base/errors.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Assignment } from './preference.ts'

/** By these a node says that a ticket is worth nothing, whatever else it would lease. */
const TICKETS_OWN: ReadonlySet<ErrorCode> = new Set([
  'CHAIN_INVALID',
  'ISSUER_CHEATED',
  'TICKET_EXCEEDS_PARENT',
  'TICKET_EXPIRED',
  'TICKET_NOT_YET_VALID',
  'TICKET_REDEEMED',
  'TICKET_REVOKED'
])

/**
 * An agent's refusal rules out that agent for that node, as does a node's that is about the ticket; any other of a node
 * rules out the node, and an agent's silence the agent.
 */
export class FailedPairs {
  readonly #pairs = new Set<string>()
  readonly #nodes = new Set<Principal>()
  readonly #agents = new Set<Principal>()
  #last: SlicenetError | undefined

  addPair({ node, agent }: Assignment, reason: SlicenetError): void {
    this.#pairs.add(`${node} ${agent}`)
    this.#last = reason
  }

  addNode(node: Principal, reason: SlicenetError): void {
    this.#nodes.add(node)
    this.#last = reason
  }

  addAgent(agent: Principal, reason: SlicenetError): void {
    this.#agents.add(agent)
    this.#last = reason
  }

  /** What a node answered to a ticket in hand: another agent's may be good there, where the ticket is to blame. */
  addRefusal(assignment: Assignment, reason: SlicenetError): void {
    if (TICKETS_OWN.has(reason.code)) this.addPair(assignment, reason)
    else this.addNode(assignment.node, reason)
  }

  has({ node, agent }: Assignment): boolean {
    return this.#nodes.has(node) || this.#agents.has(agent) || this.#pairs.has(`${node} ${agent}`)
  }

  /** The reason that came last. */
  get last(): SlicenetError | undefined {
    return this.#last
  }
}
