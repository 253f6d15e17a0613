/** Opens a wholesale ticket that another agent granted and checks that tickets can be cut from it. Pure. */
import { SlicenetError } from '../base/errors.ts'
import { linkFault } from '../ticket/chain.ts'
import { delegationObject } from '../ticket/delegation.ts'
import type { Parent } from '../ticket/fraud.ts'
import type { Principal } from '../ticket/principal.ts'
import { ticketObject } from '../ticket/ticket.ts'
import { depthLeft, wholesaleSource, type Source } from './source.ts'

/** Of whom it was asked for, who is to hold it, and of which node it is. */
export interface Deal {
  readonly agent: Principal
  readonly holder: Principal
  readonly node: Principal
}

/** Throws `PROTOCOL_ERROR` when the other agent gave something else, and as `ObjectType.open`. */
export function openWholesale(chain: readonly Uint8Array[], { agent, holder, node }: Deal): Source {
  const [root, ...links] = chain
  if (root === undefined || links.length === 0) throw bad('there is no ticket in it')
  const delegation = delegationObject.open(root)
  const tickets = links.map((bytes) => ticketObject.open(bytes))
  if (delegation.body.issuer !== node || tickets.some(({ body }) => body.node !== node)) {
    throw bad('it is of another node')
  }
  let parent: Parent = delegation
  for (const ticket of tickets) {
    const fault = linkFault(ticket, parent)
    if (fault !== undefined) throw bad(fault.message)
    parent = ticket
  }
  const source = wholesaleSource(delegation, tickets)
  const leaf = tickets.at(-1)?.body
  if (leaf?.issuer !== agent || leaf.holder !== holder) throw bad('it is from or for somebody else')
  if (!leaf.canDelegate || leaf.slice !== undefined || depthLeft(source) < 1) {
    throw bad('nothing can be cut from it')
  }
  return source
}

function bad(why: string): SlicenetError {
  return new SlicenetError('PROTOCOL_ERROR', `the ticket of another agent is not good: ${why}`)
}
