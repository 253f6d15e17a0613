/**
 * Saying what an agent holds, node by node, of those that match the caller's query. Queries are evaluated a little at a
 * time and with pauses, so that they never have more than a part of the agent's time, however many there are.
 */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Offer } from '../protocol/agent-protocol.ts'
import type { Call } from '../protocol/method.ts'
import { compileQuery, type Query } from '../query/query.ts'
import type { Advertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { Ratings } from './ratings.ts'
import type { TicketBook } from './ticket-book.ts'

export interface OfferingComponents {
  readonly clock: Clock
  readonly book: TicketBook
  readonly ratings: Ratings
  readonly advertOf: (node: Principal) => Signed<Advertisement> | undefined
  readonly isProven: (principal: Principal) => boolean
}

/** What is evaluated at a stretch: so long, and so many adverts. */
const STRETCH_MS = 5
const STRETCH_ADVERTS = 256
/** A stretch is followed by a pause of so many times its length: queries together have a quarter of the time. */
const PAUSE_FACTOR = 3

export class Offering {
  readonly #components: OfferingComponents
  /** Queries under way. */
  #queries = 0
  /** When the next stretch may begin, on the monotonic clock. */
  #freeAt = -Infinity

  constructor(components: OfferingComponents) {
    this.#components = components
  }

  /** Throws `QUERY_INVALID`, and `BUSY` when there are too many queries or this one takes too long. */
  async offer(query: string | undefined, call: Call<Offer, never>): Promise<void> {
    const { book, clock } = this.#components
    const nodes = book.nodes(clock.now())
    if (query === undefined) {
      for (const node of nodes) await this.#emit(node, call)
      return
    }
    const compiled = compileQuery(query)
    if (this.#queries >= LIMITS.agentQueriesAtOnceMax) {
      throw new SlicenetError('BUSY', `${this.#queries} queries are being answered`)
    }
    this.#queries += 1
    try {
      await this.#offerMatching(nodes, compiled, call)
    } finally {
      this.#queries -= 1
    }
  }

  async #offerMatching(nodes: readonly Principal[], query: Query, call: Call<Offer, never>): Promise<void> {
    const { clock, advertOf } = this.#components
    let spent = 0
    for (let at = 0; at < nodes.length;) {
      await this.#turn(call.signal)
      const began = clock.monotonic()
      const end = Math.min(nodes.length, at + STRETCH_ADVERTS)
      const found: Principal[] = []
      let used = 0
      for (; at < end && used < STRETCH_MS; at++) {
        const node = nodes[at]
        const body = node === undefined ? undefined : advertOf(node)?.body
        if (node !== undefined && body?.role === 'node' && query.matches(body)) found.push(node)
        used = clock.monotonic() - began
      }
      spent += used
      this.#freeAt = clock.monotonic() + used * PAUSE_FACTOR
      if (spent > LIMITS.agentQueryMsMax) {
        throw new SlicenetError('BUSY', `this query takes too long over ${nodes.length} nodes`, {
          hint: 'ask for fewer nodes, such as those of one region, or for less of each'
        })
      }
      for (const node of found) await this.#emit(node, call)
    }
  }

  /** Waits for the pause after the stretch before to be over, whoever's it was. */
  async #turn(signal: AbortSignal): Promise<void> {
    const { clock } = this.#components
    for (let wait; (wait = this.#freeAt - clock.monotonic()) > 0;) await clock.sleep(wait, { signal })
  }

  async #emit(node: Principal, call: Call<Offer, never>): Promise<void> {
    const { clock, advertOf, book, ratings, isProven } = this.#components
    const now = clock.now()
    const advert = advertOf(node)
    const available = book.available(node, now)
    if (advert === undefined || available === undefined || isProven(node)) return
    await call.emit({
      advert: advert.bytes,
      available: available.resources,
      until: available.until,
      reliability: ratings.of('node', node, now)
    })
  }
}
