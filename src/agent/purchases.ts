/**
 * Getting wholesale tickets of other agents, to grant tickets of nodes that do not delegate to this one, with the adverts
 * of these nodes, and getting them anew before they end.
 */
import type { Clock } from '../base/clock.ts'
import { asSlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { LogFields, Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { agentProtocol, Grant, TicketRequest } from '../protocol/agent-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import { membershipParams } from '../ticket/membership.ts'
import type { AnyObject } from '../ticket/any-object.ts'
import type { Principal } from '../ticket/principal.ts'
import { refusalObject } from '../ticket/refusal.ts'
import type { Delegations } from './delegations.ts'
import { succeeds, type Source } from './source.ts'
import type { TicketBook } from './ticket-book.ts'
import { openWholesale } from './wholesale.ts'

/** What is wanted of one node. */
export type Purchase = Omit<TicketRequest, 'supersedes' | 'canDelegate'>

/** Another agent, whose partner this one is, and what to get of it; of one node one ticket. */
export interface Supplier {
  readonly agent: Principal
  readonly purchases: readonly Purchase[]
}

export interface PurchasesComponents {
  readonly principal: Principal
  readonly clock: Clock
  readonly logger: Logger
  readonly book: TicketBook
  readonly delegations: Delegations
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
  readonly isProven: (principal: Principal) => boolean
  readonly observe: (object: AnyObject) => void
  /** Whether an advert of a node is known. */
  readonly isKnown: (node: Principal) => boolean
  /** Takes an advert, an envelope that is yet to be checked. */
  readonly learn: (advert: Uint8Array) => void
  /** Envelopes: who vouches for this agent. */
  readonly memberships: () => readonly Uint8Array[]
}

export interface PurchasesInit {
  readonly suppliers: readonly Supplier[]
  /** How long another agent may take to answer. */
  readonly callMs: number
}

/** A ticket is got anew when less than this part of its term is left. */
const PART_LEFT = 1 / 3

interface Due {
  readonly purchase: Purchase
  /** What it takes the place of. */
  readonly held: Source | undefined
}

export class Purchases {
  readonly #components: PurchasesComponents
  readonly #init: PurchasesInit
  /** By agent and node: what stood in the way last, so that each reason is told once. */
  readonly #told = new Map<string, string>()

  constructor(components: PurchasesComponents, init: PurchasesInit) {
    this.#components = components
    this.#init = init
  }

  /** Gets what is not held or ends soon. What cannot be had now is asked for again next time. */
  async buyDue(signal: AbortSignal): Promise<void> {
    const { isProven } = this.#components
    await Promise.all(
      this.#init.suppliers.map(async (supplier) => {
        const due = supplier.purchases.flatMap((purchase) => this.#due(supplier.agent, purchase) ?? [])
        const batch = due
          .filter(({ purchase }) => !isProven(purchase.node))
          .slice(0, LIMITS.ticketsPerMessageMax)
        if (isProven(supplier.agent)) return
        try {
          if (batch.length > 0) await this.#buy(supplier.agent, batch, signal)
          await this.#learn(supplier, signal)
        } catch (error) {
          signal.throwIfAborted()
          const { code } = asSlicenetError(error)
          this.#tell(supplier.agent, '', code, ['another agent gave no tickets', { error }])
        }
      })
    )
  }

  #due(agent: Principal, purchase: Purchase): Due | undefined {
    const { book, clock } = this.#components
    const now = book.time(clock.now())
    const held = book
      .sources()
      .filter((source) => source.node === purchase.node && source.tickets.at(-1)?.body.issuer === agent)
      .reduce<Source | undefined>(
        (last, source) => (last === undefined || succeeds(source, last) ? source : last),
        undefined
      )
    if (held === undefined || held.parent.body.notAfter <= now) return { purchase, held: undefined }
    const { notBefore, notAfter } = held.parent.body
    return notAfter - now < (notAfter - notBefore) * PART_LEFT ? { purchase, held } : undefined
  }

  async #buy(agent: Principal, batch: readonly Due[], signal: AbortSignal): Promise<void> {
    const { callAgent, clock } = this.#components
    const memberships = membershipParams(this.#components.memberships())
    const requests = batch.map(({ purchase, held }) => ({
      ...purchase,
      canDelegate: true,
      ...(held === undefined ? {} : { supersedes: firstOf(held) })
    }))
    const { grants } = await callAgent(agent)(
      'getTickets',
      { requests, ...memberships },
      { signal: within(clock, this.#init.callMs, signal) }
    )
    for (const [index, due] of batch.entries()) {
      try {
        await this.#take(agent, due, grants[index])
      } catch (error) {
        const { code } = asSlicenetError(error)
        this.#tell(agent, due.purchase.node, code, ['a ticket of another agent was not taken', { error }])
      }
    }
  }

  async #take(agent: Principal, { purchase, held }: Due, grant: Grant | undefined): Promise<void> {
    const { principal, delegations, logger, observe } = this.#components
    const { node } = purchase
    if (grant?.chain === undefined) {
      const refused = grant?.refusal && refusalObject.open(grant.refusal).body
      const { code = 'PROTOCOL_ERROR', message = 'it gave neither a ticket nor a refusal' } = refused ?? {}
      this.#tell(agent, node, code, ['another agent refused a ticket', { code, reason: message }])
      return
    }
    const source = openWholesale(grant.chain, { agent, holder: principal, node })
    if (held !== undefined && (source.group !== held.group || !succeeds(source, held))) {
      logger.debug('another agent gave a ticket that does not go on with the one held', { agent, node })
      return
    }
    await delegations.takeWholesale(source)
    observe({ type: 'delegation', object: source.delegation })
    for (const ticket of source.tickets) observe({ type: 'ticket', object: ticket })
    this.#told.delete(agent)
    this.#told.delete(agent + node)
    logger.info('wholesale ticket taken', { agent, node, ticket: source.parent.id })
  }

  /** What was bought is offered with its node's advert, which its node sends to the agents that it delegates to. */
  async #learn({ agent, purchases }: Supplier, signal: AbortSignal): Promise<void> {
    const { book, clock, callAgent, isKnown, learn } = this.#components
    const held = new Set(book.nodes(clock.now()))
    const nodes = purchases.map(({ node }) => node).filter((node) => held.has(node) && !isKnown(node))
    if (nodes.length === 0) return
    let left = nodes.length
    await callAgent(agent)(
      'getAds',
      { query: `node.id in ${JSON.stringify(nodes)}` },
      {
        signal: within(clock, this.#init.callMs, signal),
        onItem({ advert }) {
          left -= 1
          if (left >= 0) learn(advert)
        }
      }
    )
  }

  /** Whoever runs this agent learns why it does not get what it is to get; `node` is empty where it is all of them. */
  #tell(agent: Principal, node: string, code: string, [what, fields]: [string, LogFields]): void {
    const key = `${agent}${node}`
    if (this.#told.get(key) === code) return
    this.#told.set(key, code)
    this.#components.logger.warn(what, { agent, ...(node === '' ? {} : { node }), ...fields })
  }
}

/** Of a wholesale source, the id of the first ticket of its line. */
function firstOf({ parent }: Source): string {
  return 'supersedes' in parent.body && parent.body.supersedes !== undefined
    ? parent.body.supersedes
    : parent.id
}
