/** Taking tickets back: a signed revocation is durable before its node hears of it, and told until the node has it. */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { Caller } from '../protocol/method.ts'
import type { nodeProtocol } from '../protocol/node-protocol.ts'
import type { Store } from '../store/store.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { revocationObject, type Revocation } from '../ticket/revocation.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { revocationEntry, ticketEntry, type KeptRevocation } from './agent-tables.ts'
import { CLOCK_SKEW_MS } from './decision.ts'
import { chainBytes } from './source.ts'
import type { TicketBook } from './ticket-book.ts'

export interface RevokingComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly book: TicketBook
  readonly callNode: (node: Principal) => Caller<typeof nodeProtocol.methods>
}

export interface RevokingInit {
  /** How long a node may take to answer. */
  readonly callMs: number
}

export class Revoking {
  readonly #components: RevokingComponents
  readonly #init: RevokingInit
  /** By the id of the ticket. */
  readonly #pending = new Map<string, KeptRevocation>()
  #seq = 0

  constructor(components: RevokingComponents, init: RevokingInit) {
    this.#components = components
    this.#init = init
  }

  restore(kept: ReadonlyMap<string, KeptRevocation>): void {
    for (const [ticket, revocation] of kept) this.#pending.set(ticket, revocation)
  }

  /**
   * Revokes a ticket of this agent: nothing is redeemed or renewed with it any more as soon as its node has heard of
   * it, and it is not superseded from now on. Throws `NOT_FOUND` for a ticket that is not remembered, `BUSY` while too
   * many nodes have not heard of revocations, `STORE_FAILED`.
   */
  async revoke(ticketId: string): Promise<Signed<Revocation>> {
    const { key, store, clock, book } = this.#components
    const issued = book.get(ticketId)
    const source = issued && book.sourceOf(issued.ticket)
    if (issued === undefined || source === undefined) {
      throw new SlicenetError('NOT_FOUND', `no ticket ${ticketId} of this agent is out`)
    }
    if (this.#pending.size >= LIMITS.revocationsMax) {
      throw new SlicenetError('BUSY', 'too many revocations wait for their nodes')
    }
    const now = clock.now()
    const { node, notAfter } = issued.ticket.body
    this.#seq = Math.max(this.#seq + 1, now)
    const revocation = revocationObject.sign(
      {
        issuer: key.principal,
        notBefore: Math.min(now, notAfter - 1) - CLOCK_SKEW_MS,
        notAfter,
        seq: this.#seq,
        node,
        target: { id: ticketId }
      },
      key
    )
    const chain = [...chainBytes(source), issued.ticket.bytes]
    const kept = { revocation: revocation.bytes, node, until: notAfter, chain }
    // From here on nothing supersedes it, whatever becomes of the disk.
    issued.revoked = true
    await store.commit([revocationEntry(ticketId, kept), ticketEntry(issued)])
    this.#pending.set(ticketId, kept)
    return revocation
  }

  /** Tells nodes what they have not heard; what they do not take is told again next time. */
  async tell(signal: AbortSignal): Promise<void> {
    const byNode = Map.groupBy(this.#pending, ([, { node }]) => node)
    await Promise.all(
      [...byNode.values()].map(async (ofNode) => {
        for (const [ticket, kept] of ofNode) if (!(await this.#tellOne(ticket, kept, signal))) return
      })
    )
  }

  /** Gives whether the node answers at all. */
  async #tellOne(ticket: string, kept: KeptRevocation, signal: AbortSignal): Promise<boolean> {
    const { store, clock, logger, callNode } = this.#components
    const [delegation, ...tickets] = kept.chain
    const isOver = kept.until <= clock.now() - CLOCK_SKEW_MS
    try {
      if (!isOver && delegation !== undefined) {
        const params = { revocation: kept.revocation, delegation, tickets }
        await callNode(kept.node)('revoke', params, {
          signal: within(clock, this.#init.callMs, signal)
        })
        logger.info('ticket revoked', { ticket, node: kept.node })
      }
    } catch (error) {
      signal.throwIfAborted()
      logger.debug('a node did not take a revocation', { ticket, node: kept.node, error })
      return error instanceof SlicenetError && !error.retryable
    }
    await store.commit([revocationEntry(ticket, null)])
    this.#pending.delete(ticket)
    return true
  }
}
