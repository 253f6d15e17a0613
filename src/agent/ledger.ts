/**
 * Tickets that count against one group of sources, by lines, and the most that they claim together at any instant.
 * The tickets of a line count once: as the largest of them, from the first one's beginning to the last one's end. Pure.
 */
import { ClaimProfile } from '../ticket/claim-profile.ts'
import type { Claim } from '../ticket/claims.ts'
import type { Interval } from '../ticket/interval.ts'
import { largerResources, NO_RESOURCES, type Resources } from '../ticket/resources.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { lineOf, type Ticket } from '../ticket/ticket.ts'

interface Line {
  readonly tickets: Map<string, Signed<Ticket>>
  claim: Claim | undefined
}

/** What claims add up to at any instant. */
export type Profile = Pick<ClaimProfile, 'add' | 'remove' | 'peak'>

export class Ledger {
  readonly #lines = new Map<string, Line>()
  readonly #profile: Profile

  constructor(profile: Profile = new ClaimProfile()) {
    this.#profile = profile
  }

  get isEmpty(): boolean {
    return this.#lines.size === 0
  }

  get lineCount(): number {
    return this.#lines.size
  }

  /** How many tickets of a line are in it. */
  countOf(line: string): number {
    return this.#lines.get(line)?.tickets.size ?? 0
  }

  add(ticket: Signed<Ticket>): void {
    const key = lineOf(ticket)
    const line: Line = this.#lines.get(key) ?? { tickets: new Map(), claim: undefined }
    line.tickets.set(ticket.id, ticket)
    this.#lines.set(key, line)
    this.#count(line)
  }

  remove(ticket: Signed<Ticket>): void {
    const key = lineOf(ticket)
    const line = this.#lines.get(key)
    if (line === undefined || !line.tickets.delete(ticket.id)) return
    if (line.tickets.size === 0) this.#lines.delete(key)
    this.#count(line)
  }

  /** What a line claims while it claims anything; nothing for a line that is not known. */
  claimOf(line: string): Resources {
    return this.#lines.get(line)?.claim?.resources ?? NO_RESOURCES
  }

  /** For each resource, the most that is claimed at one instant of `window`, but for one line's own. */
  peak(window: Interval, except?: string): Resources {
    const own = except === undefined ? undefined : this.#lines.get(except)?.claim
    if (own === undefined) return this.#profile.peak(window)
    this.#profile.remove(own)
    try {
      return this.#profile.peak(window)
    } finally {
      this.#profile.add(own)
    }
  }

  #count(line: Line): void {
    if (line.claim !== undefined) this.#profile.remove(line.claim)
    line.claim = claimOf([...line.tickets.values()])
    if (line.claim !== undefined) this.#profile.add(line.claim)
  }
}

function claimOf(tickets: readonly Signed<Ticket>[]): Claim | undefined {
  if (tickets.length === 0) return undefined
  const bodies = tickets.map(({ body }) => body)
  return {
    notBefore: Math.min(...bodies.map(({ notBefore }) => notBefore)),
    notAfter: Math.max(...bodies.map(({ notAfter }) => notAfter)),
    resources: bodies.map(({ resources }) => resources).reduce(largerResources)
  }
}
