/** Taking receipts: what holders show of what became of tickets is checked, and each ticket counted once. */
import type { Clock } from '../base/clock.ts'
import type { Receipt } from '../protocol/agent-protocol.ts'
import type { Entry, Store } from '../store/store.ts'
import type { AnyObject } from '../ticket/any-object.ts'
import { openReceipt, outcomeOf, type OpenReceipt } from '../ticket/receipt.ts'
import { ticketEntry } from './agent-tables.ts'
import type { Ratings } from './ratings.ts'
import type { TicketBook } from './ticket-book.ts'

export interface ReportsComponents {
  readonly store: Store
  readonly clock: Clock
  readonly book: TicketBook
  readonly ratings: Ratings
  readonly observe: (object: AnyObject) => void
}

export class Reports {
  readonly #components: ReportsComponents

  constructor(components: ReportsComponents) {
    this.#components = components
  }

  /** Passes over what is not of a ticket of this agent. Throws as `ObjectType.open` for what is no receipt at all. */
  async take(receipts: readonly Receipt[]): Promise<void> {
    const { store } = this.#components
    const entries = receipts.map(openReceipt).flatMap((receipt) => this.#takeOne(receipt))
    if (entries.length > 0) await store.commit(entries)
  }

  #takeOne(receipt: OpenReceipt): Entry[] {
    const { book, clock, ratings } = this.#components
    const issued = book.get(receipt.redeem.body.ticket)
    const outcome = issued && outcomeOf(receipt, issued.ticket)
    if (issued === undefined || outcome === undefined || issued.rated) return []
    this.#observe(receipt)
    issued.rated = true
    const now = clock.now()
    const { node } = issued.ticket.body
    // Whoever is above this agent in the chain promised the same.
    const above = (book.sourceOf(issued.ticket)?.tickets ?? []).map(({ body }) => body.issuer)
    return [
      ticketEntry(issued),
      ...ratings.add('node', node, outcome, now),
      ...[...new Set(above)].flatMap((agent) => ratings.add('agent', agent, outcome, now))
    ]
  }

  #observe({ redeem, lease, refusal }: OpenReceipt): void {
    const { observe } = this.#components
    observe({ type: 'redeem', object: redeem })
    if (lease !== undefined) observe({ type: 'lease', object: lease })
    if (refusal !== undefined) observe({ type: 'refusal', object: refusal })
  }
}
