/** Which ports of one node are promised to whom and when, and the choice of free ones for a request. Pure. */
import type { PortWish } from '../protocol/agent-protocol.ts'
import type { Interval } from '../ticket/interval.ts'
import { PortProfile, type PortClaim } from '../ticket/port-profile.ts'
import {
  formatPortRange,
  formatPortRanges,
  portsOverlap,
  portsWithin,
  type PortRange
} from '../ticket/ports.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { lineOf, type Ticket } from '../ticket/ticket.ts'

/** In the order of the wishes; or why one cannot be met, for people. */
export type PortChoice = { readonly ports: readonly PortRange[] } | { readonly fault: string }

interface TicketClaim extends PortClaim {
  readonly ticket: Signed<Ticket>
}

export class PortTable {
  readonly #profile = new PortProfile<TicketClaim>()
  readonly #claims = new Map<Signed<Ticket>, TicketClaim>()

  add(ticket: Signed<Ticket>): void {
    const { notBefore, notAfter, ports } = ticket.body
    if (ports.length === 0 || this.#claims.has(ticket)) return
    const claim = { notBefore, notAfter, ports, ticket }
    this.#claims.set(ticket, claim)
    this.#profile.add(claim)
  }

  remove(ticket: Signed<Ticket>): void {
    const claim = this.#claims.get(ticket)
    if (claim === undefined) return
    this.#claims.delete(ticket)
    this.#profile.remove(claim)
  }

  /** Why a line cannot have these ports in `term`: they lie outside of `allowed`, or another line has one. */
  fault(
    ports: readonly PortRange[],
    allowed: readonly PortRange[],
    term: Interval,
    line?: string
  ): string | undefined {
    const outside = ports.find((range) => !portsWithin([range], allowed))
    if (outside !== undefined) return notAllowed(formatPortRange(outside), outside.protocol, allowed)
    const holder = this.#profile.conflict(ports, term, ({ ticket }) => lineOf(ticket) !== line)
    return holder === undefined ? undefined : heldText(holder.port, holder.claim)
  }

  /** For each wish ports of its own out of `allowed`. */
  choose(wishes: readonly PortWish[], allowed: readonly PortRange[], term: Interval): PortChoice {
    const chosen: PortRange[] = []
    const mine: PortRange[] = []
    // Named ports first, so that none goes to a wish that any port would do for.
    const ordered = [...wishes.entries()].sort(([, a], [, b]) => (b.port ?? 0) - (a.port ?? 0))
    for (const [index, { protocol, port, last }] of ordered) {
      const range =
        port === undefined
          ? this.#firstFree(protocol, allowed, term, mine)
          : { protocol, first: port, last: last ?? port }
      if (range === undefined) return { fault: noneFree(protocol, allowed) }
      if (portsOverlap([range], mine)) return { fault: `${formatPortRange(range)} is asked for twice` }
      const fault = port === undefined ? undefined : this.fault([range], allowed, term)
      if (fault !== undefined) return { fault }
      chosen[index] = range
      mine.push(range)
    }
    return { ports: chosen }
  }

  #firstFree(
    protocol: PortWish['protocol'],
    allowed: readonly PortRange[],
    term: Interval,
    mine: readonly PortRange[]
  ): PortRange | undefined {
    for (const { protocol: of, first, last } of allowed) {
      if (of !== protocol) continue
      for (let port = first; port <= last; port++) {
        const range = { protocol, first: port, last: port }
        const taken =
          mine.find((one) => portsOverlap([one], [range])) ??
          this.#profile.conflict([range], term)?.claim.ports.find((one) => portsOverlap([one], [range]))
        if (taken === undefined) return range
        // A range may be as wide as the protocol.
        port = taken.last
      }
    }
    return undefined
  }
}

function heldText(port: PortRange, { ticket, ports }: TicketClaim): string {
  const held = ports.filter((range) => portsOverlap([range], [port]))
  const { slice, holder, notAfter } = ticket.body
  const by = slice === undefined ? holder : `slice ${slice} of ${holder}`
  return `${formatPortRanges(held)} of this node is held by ${by} until ${new Date(notAfter).toISOString()}`
}

function notAllowed(port: string, protocol: string, allowed: readonly PortRange[]): string {
  return `${port} is not among the ports of this node that the agent may grant: ${grantable(protocol, allowed)}`
}

function noneFree(protocol: string, allowed: readonly PortRange[]): string {
  return `${protocol}/any: none of what the agent may grant of this node is free: ${grantable(protocol, allowed)}`
}

function grantable(protocol: string, allowed: readonly PortRange[]): string {
  return formatPortRanges(allowed.filter((range) => range.protocol === protocol)).slice(0, 200)
}
