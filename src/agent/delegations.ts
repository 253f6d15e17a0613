/** Taking delegations: each as long as it counts what is out, so that neither side can be shown to have cheated. */
import { SlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Store } from '../store/store.ts'
import type { AnyObject } from '../ticket/any-object.ts'
import { delegationObject, type Delegation } from '../ticket/delegation.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { droppedEntries, sourceEntry, stateEntry } from './agent-tables.ts'
import type { Granting } from './granting.ts'
import type { Verdict } from './node-account.ts'
import { delegationSource, type Source } from './source.ts'
import type { TicketBook } from './ticket-book.ts'

export interface DelegationsComponents {
  readonly principal: Principal
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly book: TicketBook
  readonly granting: Granting
  /** Whether a node is more than a name: the directory has an advert of it. */
  readonly isKnown: (node: Principal) => boolean
  readonly observe: (object: AnyObject) => void
}

export interface Answer {
  readonly taken: boolean
  readonly lacking: Uint8Array[]
  readonly unknown: string[]
}

/** How often the commits under way are waited for before the node is asked to come again. */
const WAITS_MAX = 3

export class Delegations {
  readonly #components: DelegationsComponents
  /** Ids of what was taken and is not known to be on the disk. */
  readonly #unkept = new Set<string>()

  constructor(components: DelegationsComponents) {
    this.#components = components
  }

  /**
   * Takes a delegation, or says which tickets it must or must not count. Throws `DENIED`, `TICKET_EXPIRED`, `BUSY`,
   * `STORE_FAILED`.
   */
  async offer(bytes: Uint8Array, principal: Principal | undefined): Promise<Answer> {
    const { clock, logger, book, isKnown, observe } = this.#components
    const delegation = delegationObject.open(bytes)
    this.#check(delegation, principal)
    const { verdict, lacking, unknown } = await this.#judge(delegation)
    if (verdict === 'old') throw new SlicenetError('DENIED', 'a newer delegation of this node is held')
    if (verdict === 'unfit') {
      const shown = lacking.slice(0, LIMITS.ticketsPerMessageMax).map(({ ticket }) => ticket.bytes)
      return { taken: false, lacking: shown, unknown: [...unknown] }
    }
    const source = delegationSource(delegation)
    if (verdict === 'held') {
      if (this.#unkept.has(delegation.id)) await this.#keep(source, [])
      return { taken: true, lacking: [], unknown: [] }
    }
    const { hasRoom, dropped } = book.makeRoom(source.node, isKnown, clock.now())
    if (!hasRoom) throw new SlicenetError('DENIED', 'this agent holds delegations of too many nodes')
    await this.#take(source, dropped)
    observe({ type: 'delegation', object: delegation })
    logger.info('delegation taken', { node: source.node, delegation: delegation.id })
    return { taken: true, lacking: [], unknown: [] }
  }

  /** Takes a wholesale ticket, whose chain was checked. Throws `DENIED`, `STORE_FAILED`. */
  async takeWholesale(source: Source): Promise<void> {
    const { clock, book } = this.#components
    const { hasRoom, dropped } = book.makeRoom(source.node, () => true, clock.now())
    if (!hasRoom) throw new SlicenetError('DENIED', 'this agent holds delegations of too many nodes')
    await this.#take(source, dropped)
  }

  #check({ body }: Signed<Delegation>, principal: Principal | undefined): void {
    const { principal: own } = this.#components
    if (body.issuer !== principal) {
      throw new SlicenetError('DENIED', 'a delegation is taken from the node that it is of, and nobody else')
    }
    if (body.holder !== own) throw new SlicenetError('DENIED', 'this delegation is for another agent')
  }

  /** Nothing is waited for between the verdict that is given and what follows from it. */
  async #judge(delegation: Signed<Delegation>): Promise<Verdict> {
    const { clock, book, granting } = this.#components
    for (let wait = 0; wait <= WAITS_MAX; wait++) {
      const now = clock.now()
      if (book.isOver(delegation, now)) throw new SlicenetError('TICKET_EXPIRED', 'this delegation has ended')
      const judged = book.judge(delegation, now)
      // A ticket that is not on the disk yet must not be shown: its number might be used again after a crash.
      const lacking = judged.lacking.filter(({ ticket }) => granting.pending(ticket.id) === undefined)
      if (lacking.length === judged.lacking.length || lacking.length > 0 || judged.unknown.length > 0)
        return { ...judged, lacking }
      await Promise.allSettled(judged.lacking.map(async ({ ticket }) => granting.pending(ticket.id)))
    }
    throw new SlicenetError('BUSY', 'tickets of this node are being granted')
  }

  async #take(source: Source, evicted: readonly string[]): Promise<void> {
    const dropped = this.#components.book.take(source)
    this.#unkept.add(source.parent.id)
    await this.#keep(source, [
      ...droppedEntries(dropped),
      ...droppedEntries({ tickets: [], sources: evicted })
    ])
  }

  async #keep(source: Source, dropped: ReturnType<typeof droppedEntries>): Promise<void> {
    const { store, book, granting } = this.#components
    const state = stateEntry({ seq: granting.seq, horizon: book.horizon })
    await store.commit([...dropped, sourceEntry(source, book.forgottenUntil(source.node)), state])
    this.#unkept.delete(source.parent.id)
  }
}
