/**
 * What was issued under one delegation or ticket, summed as it comes: tells in no time that a ticket cannot be one too
 * many, so that only the doubtful are looked into.
 */
import { ClaimProfile } from './claim-profile.ts'
import { PortProfile } from './port-profile.ts'
import { resourcesExceeding, type Resources } from './resources.ts'
import type { Identified } from './signed-object.ts'
import type { Ticket } from './ticket.ts'

export class IssueLedger {
  readonly #profile = new ClaimProfile()
  readonly #ports = new PortProfile()
  readonly #tickets = new Map<string, Ticket>()

  /** The profiles know a claim by the object that it is, and this one keeps it. */
  add({ id, body }: Identified<Ticket>): void {
    if (this.#tickets.has(id)) return
    this.#tickets.set(id, body)
    this.#profile.add(body)
    this.#ports.add(body)
  }

  remove(id: string): void {
    const ticket = this.#tickets.get(id)
    if (ticket === undefined) return
    this.#tickets.delete(id)
    this.#profile.remove(ticket)
    this.#ports.remove(ticket)
  }

  get isEmpty(): boolean {
    return this.#tickets.size === 0
  }

  ids(): Iterable<string> {
    return this.#tickets.keys()
  }

  /**
   * Whether tickets in the term of this one, which is among them, may come to more than `limit`, or have a port of its. Tickets
   * of one line are added to each other here, which they are not in truth.
   */
  isDoubtful({ id, body }: Identified<Ticket>, limit: Resources): boolean {
    if (resourcesExceeding(this.#profile.peak(body), limit).length > 0) return true
    const own = this.#tickets.get(id)
    if (own === undefined || body.ports.length === 0) return false
    this.#ports.remove(own)
    const conflict = this.#ports.conflict(body.ports, body)
    this.#ports.add(own)
    return conflict !== undefined
  }
}
