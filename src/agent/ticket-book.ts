/**
 * An agent's book: the delegations that it holds and the tickets that it has issued, and the decision whether one
 * more may be issued. Pure: no I/O, and time comes in as an argument, so that the simulation can run it.
 */
import type { ErrorCode } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { PortWish, TicketRequest } from '../protocol/agent-protocol.ts'
import { peakClaimed, type Claim } from '../ticket/claims.ts'
import type { Delegation } from '../ticket/delegation.ts'
import { contains, type Interval } from '../ticket/interval.ts'
import type { PortRange } from '../ticket/ports.ts'
import type { Principal } from '../ticket/principal.ts'
import {
  addResources,
  resourcesExceeding,
  scaleResources,
  subtractResources,
  type Resources
} from '../ticket/resources.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { Ticket } from '../ticket/ticket.ts'

/** What is about to be signed, or why nothing is. */
export type Decision =
  | {
      readonly granted: {
        readonly delegation: Signed<Delegation>
        readonly ports: readonly PortRange[]
      } & Interval
    }
  | { readonly refused: { readonly code: ErrorCode; readonly message: string } }

/** The node's clock may lag behind the agent's by this much: a term begins so long before it is asked for. */
const CLOCK_SKEW_MS = 60_000

export class TicketBook {
  readonly #delegations = new Map<Principal, Signed<Delegation>>()
  /** By node, then by ticket id: a decision looks at one node's tickets only. */
  readonly #issued = new Map<Principal, Map<string, Signed<Ticket>>>()

  /** Takes a delegation unless a newer one of this node is held. Gives whether it was taken. */
  addDelegation(delegation: Signed<Delegation>): boolean {
    const node = delegation.body.issuer
    const held = this.#delegations.get(node)
    if (held !== undefined && held.body.seq >= delegation.body.seq) return held.id === delegation.id
    if (held === undefined && this.#delegations.size >= LIMITS.delegationsPerAgentMax) return false
    this.#delegations.set(node, delegation)
    return true
  }

  delegation(node: Principal, now: number): Signed<Delegation> | undefined {
    const held = this.#delegations.get(node)
    return held !== undefined && contains(held.body, now) ? held : undefined
  }

  delegations(now: number): Signed<Delegation>[] {
    return [...this.#delegations.values()].filter((delegation) => contains(delegation.body, now))
  }

  /** Forgets delegations that have ended, and gives their nodes. */
  dropEnded(now: number): Principal[] {
    const ended = [...this.#delegations.values()].filter(({ body }) => body.notAfter <= now)
    for (const { body } of ended) this.#delegations.delete(body.issuer)
    return ended.map(({ body }) => body.issuer)
  }

  record(ticket: Signed<Ticket>): void {
    const { node } = ticket.body
    const tickets = this.#issued.get(node) ?? new Map<string, Signed<Ticket>>()
    tickets.set(ticket.id, ticket)
    this.#issued.set(node, tickets)
  }

  forget(ticket: Signed<Ticket>): void {
    const tickets = this.#issued.get(ticket.body.node)
    tickets?.delete(ticket.id)
    if (tickets?.size === 0) this.#issued.delete(ticket.body.node)
  }

  issued(id: string): Signed<Ticket> | undefined {
    for (const tickets of this.#issued.values()) {
      const found = tickets.get(id)
      if (found !== undefined) return found
    }
    return undefined
  }

  /** Every ticket that counts. */
  allIssued(): readonly Signed<Ticket>[] {
    return [...this.#issued.values()].flatMap((tickets) => [...tickets.values()])
  }

  /** Tickets whose term is over by any clock that is not off by more than the skew allowed for. */
  over(now: number): readonly Signed<Ticket>[] {
    return this.allIssued().filter(({ body }) => body.notAfter <= now - CLOCK_SKEW_MS)
  }

  /** What may still be granted of a node, for a term that begins now. */
  available(node: Principal, now: number): Resources | undefined {
    const delegation = this.delegation(node, now)
    if (delegation === undefined) return undefined
    const issued = peakClaimed(this.#claims(node), { notBefore: now - CLOCK_SKEW_MS, notAfter: now + 1 })
    return subtractResources(issuable(delegation.body), issued)
  }

  /** Decides on a request without changing anything. */
  decide(request: TicketRequest, now: number): Decision {
    const delegation = this.delegation(request.node, now)
    if (delegation === undefined) return refuse('NOT_FOUND', `no delegation of node ${request.node} is held`)
    const term = {
      notBefore: Math.max(now - CLOCK_SKEW_MS, delegation.body.notBefore),
      notAfter: now + request.durationMs
    }
    if (term.notAfter > delegation.body.notAfter) {
      const until = new Date(delegation.body.notAfter).toISOString()
      return refuse('QUOTA_EXCEEDED', `the node delegates until ${until} only`)
    }
    const right = request.rights.find((name) => !delegation.body.rights.includes(name))
    if (right !== undefined) return refuse('DENIED', `the node does not delegate the right ${right}`)
    const [tooMuch] = resourcesExceeding(request.resources, delegation.body.resources)
    if (tooMuch !== undefined) {
      return refuse(
        'OVERBOOKED',
        `${tooMuch}: ${request.resources[tooMuch]} of ${delegation.body.resources[tooMuch]}`
      )
    }
    const wanted = addResources(peakClaimed(this.#claims(request.node), term), request.resources)
    const [short] = resourcesExceeding(wanted, issuable(delegation.body))
    if (short !== undefined) return refuse('OVERBOOKED', `no ${short} is left to grant at this node`)
    const ports = this.#choosePorts(request, delegation)
    if (ports === undefined) return refuse('PORT_TAKEN', 'a port asked for is not free at this node')
    return { granted: { delegation, ports, ...term } }
  }

  #claims(node: Principal): Claim[] {
    return [...(this.#issued.get(node)?.values() ?? [])].map((ticket) => ticket.body)
  }

  /** Exclusive things are never overbooked: each goes to one ticket at a time. */
  #choosePorts(request: TicketRequest, delegation: Signed<Delegation>): PortRange[] | undefined {
    const taken = new Set<string>()
    for (const { body } of this.#issued.get(request.node)?.values() ?? []) {
      for (const { protocol, first, last } of body.ports) {
        for (let port = first; port <= last; port++) taken.add(`${protocol}/${port}`)
      }
    }
    // In the order of the wishes; named ports first, so that none goes to a wish that any port would do for.
    const chosen: PortRange[] = []
    const wishes = [...request.ports.entries()].sort(([, a], [, b]) => (b.port ?? 0) - (a.port ?? 0))
    for (const [index, wish] of wishes) {
      const port = freePort(wish, delegation.body.ports, taken)
      if (port === undefined) return undefined
      chosen[index] = port
      taken.add(`${port.protocol}/${port.first}`)
    }
    return chosen
  }
}

function issuable(delegation: Delegation): Resources {
  return scaleResources(delegation.resources, delegation.overbookPercent)
}

function freePort(
  wish: PortWish,
  delegated: readonly PortRange[],
  taken: ReadonlySet<string>
): PortRange | undefined {
  for (const range of delegated) {
    if (range.protocol !== wish.protocol) continue
    const first = Math.max(range.first, wish.port ?? range.first)
    const last = Math.min(range.last, wish.port ?? range.last)
    for (let port = first; port <= last; port++) {
      if (!taken.has(`${wish.protocol}/${port}`)) return { protocol: wish.protocol, first: port, last: port }
    }
  }
  return undefined
}

function refuse(code: ErrorCode, message: string): Decision {
  return { refused: { code, message } }
}
