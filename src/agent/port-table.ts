/** Which ports of one node are promised to whom and when, and the choice of free ones for a request. Pure. */
import type { PortWish } from '../protocol/agent-protocol.ts'
import { overlaps, type Interval } from '../ticket/interval.ts'
import type { PortProtocol, PortRange } from '../ticket/ports.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { lineOf, type Ticket } from '../ticket/ticket.ts'

export class PortTable {
  readonly #holders = new Map<string, Set<Signed<Ticket>>>()

  add(ticket: Signed<Ticket>): void {
    for (const key of keysOf(ticket)) {
      this.#holders.set(key, (this.#holders.get(key) ?? new Set<Signed<Ticket>>()).add(ticket))
    }
  }

  remove(ticket: Signed<Ticket>): void {
    for (const key of keysOf(ticket)) {
      const holders = this.#holders.get(key)
      holders?.delete(ticket)
      if (holders?.size === 0) this.#holders.delete(key)
    }
  }

  /** Whether no other line has any of these ports at an instant of `term`. */
  areFree(ports: readonly PortRange[], term: Interval, line: string): boolean {
    return ports.every(({ protocol, first, last }) => {
      for (let port = first; port <= last; port++) {
        if (!this.#isFree(protocol, port, term, line)) return false
      }
      return true
    })
  }

  /** In the order of the wishes, each a port of its own out of `allowed`; `undefined` when one cannot be met. */
  choose(
    wishes: readonly PortWish[],
    allowed: readonly PortRange[],
    term: Interval
  ): PortRange[] | undefined {
    const chosen: PortRange[] = []
    const mine = new Set<string>()
    // Named ports first, so that none goes to a wish that any port would do for.
    const ordered = [...wishes.entries()].sort(([, a], [, b]) => (b.port ?? 0) - (a.port ?? 0))
    for (const [index, wish] of ordered) {
      const port = this.#firstFree(wish, allowed, term, mine)
      if (port === undefined) return undefined
      chosen[index] = { protocol: wish.protocol, first: port, last: port }
      mine.add(keyOf(wish.protocol, port))
    }
    return chosen
  }

  #firstFree(
    { protocol, port: named }: PortWish,
    allowed: readonly PortRange[],
    term: Interval,
    mine: ReadonlySet<string>
  ): number | undefined {
    for (const range of allowed) {
      if (range.protocol !== protocol) continue
      const last = Math.min(range.last, named ?? range.last)
      for (let port = Math.max(range.first, named ?? range.first); port <= last; port++) {
        if (!mine.has(keyOf(protocol, port)) && this.#isFree(protocol, port, term)) return port
      }
    }
    return undefined
  }

  #isFree(protocol: PortProtocol, port: number, term: Interval, line?: string): boolean {
    for (const ticket of this.#holders.get(keyOf(protocol, port)) ?? []) {
      if (overlaps(ticket.body, term) && lineOf(ticket) !== line) return false
    }
    return true
  }
}

function keyOf(protocol: PortProtocol, port: number): string {
  return `${protocol}/${port}`
}

function* keysOf({ body }: Signed<Ticket>): Generator<string> {
  for (const { protocol, first, last } of body.ports) {
    for (let port = first; port <= last; port++) yield keyOf(protocol, port)
  }
}
