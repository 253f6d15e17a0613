/**
 * Finding out what became of tickets, and dropping what is over. Only a node knows whether a ticket can still be
 * redeemed of it, so until it says that it cannot, the ticket is out.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { Caller } from '../protocol/method.ts'
import type { nodeProtocol } from '../protocol/node-protocol.ts'
import type { Store } from '../store/store.ts'
import type { Principal } from '../ticket/principal.ts'
import { droppedEntries, stateEntry, ticketEntry } from './agent-tables.ts'
import type { Granting } from './granting.ts'
import type { Issued } from './node-account.ts'
import type { TicketBook } from './ticket-book.ts'

export interface SettlingComponents {
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly book: TicketBook
  readonly granting: Granting
  readonly callNode: (node: Principal) => Caller<typeof nodeProtocol.methods>
}

export interface SettlingInit {
  /** How long a node may take to answer. */
  readonly callMs: number
}

export class Settling {
  readonly #components: SettlingComponents
  readonly #init: SettlingInit

  constructor(components: SettlingComponents, init: SettlingInit) {
    this.#components = components
    this.#init = init
  }

  /** Forgets what is over, and what ended makes room for others. */
  async dropOver(): Promise<void> {
    const { book, store, clock, granting } = this.#components
    const dropped = book.dropOver(clock.now())
    if (dropped.tickets.length === 0 && dropped.sources.length === 0) return
    const state = stateEntry({ seq: granting.seq, horizon: book.horizon })
    await store.commit([...droppedEntries(dropped), state])
  }

  /** Asks nodes about tickets whose hold is over, and about redeemed ones whose lease may have ended early. */
  async askDue(signal: AbortSignal): Promise<void> {
    const { book, clock } = this.#components
    const now = book.time(clock.now())
    const due = book.issued().filter(({ ticket, settled }) => !settled && ticket.body.redeemBefore <= now)
    await this.ask(due, false, signal)
  }

  /** With `cancel`, nothing more is to be redeemed of them. */
  async ask(tickets: readonly Issued[], cancel: boolean, signal: AbortSignal): Promise<void> {
    const byNode = Map.groupBy(tickets, ({ ticket }) => ticket.body.node)
    await Promise.all(
      [...byNode].map(async ([node, ofNode]) => {
        for (let at = 0; at < ofNode.length; at += LIMITS.ticketsPerMessageMax) {
          const batch = ofNode.slice(at, at + LIMITS.ticketsPerMessageMax)
          try {
            await this.#askBatch(node, batch, cancel, signal)
          } catch (error) {
            signal.throwIfAborted()
            // The tickets stay out: only the node can say that they will not be redeemed.
            this.#components.logger.debug('node did not settle tickets', { node, error })
            return
          }
        }
      })
    )
  }

  async #askBatch(
    node: Principal,
    batch: readonly Issued[],
    cancel: boolean,
    signal: AbortSignal
  ): Promise<void> {
    const { store, book, clock, callNode } = this.#components
    const { states } = await callNode(node)(
      'settleTickets',
      { tickets: batch.map(({ ticket }) => ticket.bytes), cancel },
      // One node that never answers must not keep the tickets of all others out.
      { signal: within(clock, this.#init.callMs, signal) }
    )
    const settled = batch.filter((_one, index) => states[index] === 'lapsed' || states[index] === 'ended')
    // What was forgotten while the node thought is not to come back.
    const known = settled.filter((issued) => book.get(issued.ticket.id) === issued && !issued.settled)
    if (known.length === 0) return
    // Durable first: a ticket must never count less after a crash than before it.
    await store.commit(known.map((issued) => ticketEntry({ ...issued, settled: true })))
    const gone = book.settle(known)
    if (gone.length > 0) await store.commit(droppedEntries({ tickets: gone, sources: [] }))
  }
}
