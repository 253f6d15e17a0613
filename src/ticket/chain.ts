/**
 * The chain check of design §3: from the node's own delegation down to the ticket that is redeemed, every link must
 * follow from the one before it and give no more than it had. Pure: signatures are not looked at here, so that a chain
 * that does not hold together costs none, and the time comes in as an argument.
 */
import { LIMITS } from '../base/limits.ts'
import type { Delegation } from './delegation.ts'
import { contains, isWithin } from './interval.ts'
import { formatPortRange, portsWithin } from './ports.ts'
import type { Principal } from './principal.ts'
import type { Reason } from './refusal.ts'
import { resourcesExceeding } from './resources.ts'
import { rightsFault } from './rights.ts'
import { shapingExceeding, shapingExcess } from './shaping.ts'
import type { Identified, Signed } from './signed-object.ts'
import type { Ticket } from './ticket.ts'

export interface Chain {
  readonly delegation: Signed<Delegation>
  /** From the delegation's holder down; never empty. */
  readonly tickets: readonly Signed<Ticket>[]
}

/** A chain whose signatures may not have been looked at. */
export interface ChainLinks {
  readonly delegation: Identified<Delegation>
  readonly tickets: readonly Identified<Ticket>[]
}

/** Who presents a chain, to whom and when. */
export interface Presentation {
  readonly node: Principal
  readonly holder: Principal
  /** UTC ms by the node's clock. */
  readonly now: number
}

/** The reason to refuse a chain, or `undefined` when every link holds. */
export function chainFault(chain: ChainLinks, presentation: Presentation): Reason | undefined {
  const { delegation, tickets } = chain
  const leaf = tickets.at(-1)
  if (leaf === undefined) return { code: 'CHAIN_INVALID', message: 'no ticket was presented' }
  return (
    linksFault(chain, presentation.node) ??
    holderFault(leaf, presentation) ??
    togetherFault(leaf) ??
    timeFault(delegation, leaf, presentation.now)
  )
}

/** As `chainFault`, whoever presents it and when; there may be no tickets. */
export function linksFault(chain: ChainLinks, node: Principal): Reason | undefined {
  return rootFault(chain, node) ?? linkFaults(chain.delegation, chain.tickets)
}

function rootFault({ delegation, tickets }: ChainLinks, node: Principal): Reason | undefined {
  const wrong = tickets.find((ticket) => ticket.body.node !== node)
  if (wrong !== undefined) {
    return fault('TICKET_WRONG_NODE', `this ticket is for node ${wrong.body.node}, not for ${node}`, wrong)
  }
  if (delegation.body.issuer !== node) {
    return fault('CHAIN_INVALID', `the chain does not begin with a delegation of node ${node}`, delegation)
  }
  const depthMax = Math.min(delegation.body.maxDepth, LIMITS.chainLinksMax)
  if (tickets.length > depthMax) {
    return fault(
      'CHAIN_INVALID',
      `${tickets.length} tickets in a chain that may have ${depthMax}`,
      delegation
    )
  }
  return undefined
}

function linkFaults(
  delegation: Identified<Delegation>,
  tickets: readonly Identified<Ticket>[]
): Reason | undefined {
  let parent: Identified<Delegation> | Identified<Ticket> = delegation
  for (const ticket of tickets) {
    const found = linkFault(ticket, parent)
    if (found !== undefined) return found
    parent = ticket
  }
  return undefined
}

/** The reason why a ticket does not follow from the link before it. */
export function linkFault(
  child: Identified<Ticket>,
  parent: Identified<Delegation> | Identified<Ticket>
): Reason | undefined {
  if (child.body.parent !== parent.id) {
    return fault('CHAIN_INVALID', 'a ticket is not cut from the link before it', child)
  }
  if (child.body.issuer !== parent.body.holder) {
    return fault(
      'CHAIN_INVALID',
      `a ticket was issued by ${child.body.issuer}, who does not hold the link before it`,
      child
    )
  }
  if ('canDelegate' in parent.body && !parent.body.canDelegate) {
    return fault('CHAIN_INVALID', 'a ticket is cut from one that may not be delegated', child)
  }
  const slice = 'slice' in parent.body ? parent.body.slice : undefined
  if (slice !== undefined && slice !== child.body.slice) {
    return fault('CHAIN_INVALID', 'a ticket is for another slice than the link before it', child)
  }
  return attenuationFault(child, parent)
}

/** Amounts, interval, ports, rights and shaping may only shrink from link to link. */
function attenuationFault(
  child: Identified<Ticket>,
  parent: Identified<Delegation> | Identified<Ticket>
): Reason | undefined {
  const [resource] = resourcesExceeding(child.body.resources, parent.body.resources)
  if (resource !== undefined) {
    const [has, had] = [child.body.resources[resource], parent.body.resources[resource]]
    return fault('TICKET_EXCEEDS_PARENT', `${resource} is ${has} where the link before it has ${had}`, child)
  }
  if (!isWithin(child.body, parent.body)) {
    return fault('TICKET_EXCEEDS_PARENT', 'the term reaches beyond that of the link before it', child)
  }
  const port = child.body.ports.find((range) => !portsWithin([range], parent.body.ports))
  if (port !== undefined) {
    return fault(
      'TICKET_EXCEEDS_PARENT',
      `${formatPortRange(port)} is not among the ports of the link before it`,
      child
    )
  }
  const right = child.body.rights.find((name) => !parent.body.rights.includes(name))
  if (right !== undefined) {
    return fault('TICKET_EXCEEDS_PARENT', `the link before it has no right ${right}`, child)
  }
  const [looser] = shapingExceeding(child.body.shaping, parent.body.shaping)
  if (looser !== undefined) {
    const excess = shapingExcess(looser, child.body.shaping, parent.body.shaping)
    return fault('TICKET_EXCEEDS_PARENT', `${excess} by the link before it`, child)
  }
  if ('redeemBefore' in parent.body && child.body.redeemBefore > parent.body.redeemBefore) {
    return fault('TICKET_EXCEEDS_PARENT', 'the hold lasts longer than that of the link before it', child)
  }
  return undefined
}

function holderFault(leaf: Identified<Ticket>, { holder }: Presentation): Reason | undefined {
  if (leaf.body.slice === undefined) {
    return fault(
      'CHAIN_INVALID',
      'a ticket without a slice is for cutting others from, not for a lease',
      leaf
    )
  }
  if (leaf.body.holder === holder) return undefined
  return fault('TICKET_WRONG_HOLDER', `this ticket is for ${leaf.body.holder}, not for ${holder}`, leaf)
}

/** A ticket that others are cut from may hold rights for several of them; what becomes a lease may not. */
function togetherFault(leaf: Identified<Ticket>): Reason | undefined {
  const found = rightsFault(leaf.body.rights, leaf.body.ports)
  return found === undefined ? undefined : fault('CHAIN_INVALID', found, leaf)
}

function timeFault(
  delegation: Identified<Delegation>,
  leaf: Identified<Ticket>,
  now: number
): Reason | undefined {
  if (now >= leaf.body.redeemBefore) {
    return fault(
      'TICKET_EXPIRED',
      `this ticket was to be redeemed before ${iso(leaf.body.redeemBefore)}`,
      leaf
    )
  }
  if (now >= leaf.body.notAfter) {
    return fault('TICKET_EXPIRED', `the term of this ticket ended at ${iso(leaf.body.notAfter)}`, leaf)
  }
  if (now < leaf.body.notBefore) {
    return fault(
      'TICKET_NOT_YET_VALID',
      `the term of this ticket begins at ${iso(leaf.body.notBefore)}`,
      leaf
    )
  }
  if (!contains(delegation.body, now)) {
    return fault('TICKET_EXPIRED', 'the delegation that this ticket rests on is not in force', delegation)
  }
  return undefined
}

function iso(time: number): string {
  return new Date(time).toISOString()
}

function fault(code: Reason['code'], message: string, evidence: Identified<unknown>): Reason {
  return { code, message, evidence: [evidence.id] }
}
