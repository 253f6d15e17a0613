/**
 * Granting tickets: policy, decision, signature. What one message asks for is decided and counted before anything is
 * waited for, and in the store, all of it in one step, before any of it is out of the house.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Grant, TicketRequest } from '../protocol/agent-protocol.ts'
import type { Store } from '../store/store.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { callId } from '../ticket/refusal.ts'
import { RefusalSigner } from '../ticket/refusal-signer.ts'
import type { Right } from '../ticket/resource-schema.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import { stateEntry, ticketEntry } from './agent-tables.ts'
import type { Ask, Decision, Refused } from './decision.ts'
import type { Issued } from './node-account.ts'
import { chainBytes, redeemLimit } from './source.ts'
import type { TicketBook } from './ticket-book.ts'

/** Another agent that may have tickets without a slice, to cut its own from. */
export interface Partner {
  readonly principal: Principal
}

export interface AgentPolicy {
  /** Who may have tickets. */
  readonly holders: 'anyone' | readonly Principal[]
  readonly durationMsMax: number
  readonly rights: readonly Right[]
  /** Tickets of one holder that no node has settled; default 256. */
  readonly ticketsPerHolderMax?: number
  readonly partners?: readonly Partner[]
}

export interface GrantingComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly book: TicketBook
  readonly isProven: (principal: Principal) => boolean
}

/** A request, and the id of the call that it came in. */
interface Asked extends Ask {
  readonly call: () => string
}

export interface GrantingInit {
  readonly policy: AgentPolicy
  readonly holdMs: number
}

export const TICKETS_PER_HOLDER = 256

/** What refusals and the frame of the answer take beside the chains. */
const REPLY_BYTES_MAX = LIMITS.messageBytesMax - LIMITS.ticketsPerMessageMax * 1024

export class Granting {
  readonly #components: GrantingComponents
  readonly #init: GrantingInit
  /** The last sequence number used: one series for all nodes, so that none need be remembered for its own. */
  #seq = 0
  readonly #refusals: RefusalSigner
  /** Tickets that are being written down, by id. */
  readonly #pending = new Map<string, Promise<void>>()

  constructor(components: GrantingComponents, init: GrantingInit) {
    this.#components = components
    this.#init = init
    this.#refusals = new RefusalSigner(components.key, () => components.clock.now())
  }

  get seq(): number {
    return this.#seq
  }

  restore(seq: number): void {
    this.#seq = seq
  }

  /** The commit that a ticket waits for, while it may yet turn out never to have been issued. */
  pending(ticket: string): Promise<void> | undefined {
    return this.#pending.get(ticket)
  }

  /** One grant a request, in order. Throws `STORE_FAILED` and the like; nothing was issued then. */
  async grant(
    slice: string | undefined,
    holder: Principal,
    requests: readonly TicketRequest[]
  ): Promise<Grant[]> {
    const { book, store, logger } = this.#components
    const issued: Issued[] = []
    try {
      // Chains may be long: what does not fit the answer any more is to be asked for again.
      let room = REPLY_BYTES_MAX
      const call = (): string =>
        callId('getTickets', slice === undefined ? { requests } : { slice, requests })
      const grants = requests.map((request) => {
        const grant = this.#decide({ request, holder, slice, call }, issued, room)
        room -= sizeOf(grant)
        return grant
      })
      if (issued.length === 0) return grants
      const state = stateEntry({ seq: this.#seq, horizon: book.horizon })
      const kept = store.commit([...issued.map(ticketEntry), state])
      for (const { ticket } of issued) this.#pending.set(ticket.id, kept)
      await kept
      for (const { ticket } of issued) {
        logger.info('ticket granted', { ticket: ticket.id, node: ticket.body.node, holder, slice })
      }
      return grants
    } catch (error) {
      for (const one of issued) book.unrecord(one)
      throw error
    } finally {
      for (const { ticket } of issued) this.#pending.delete(ticket.id)
    }
  }

  #decide(ask: Asked, issued: Issued[], room: number): Grant {
    const { book, clock } = this.#components
    const now = book.time(clock.now())
    const fault = this.#policyFault(ask)
    const decision = fault === undefined ? book.decide(ask, now) : { refused: fault }
    if ('refused' in decision) return this.#refuse(ask, decision.refused)
    const ticket = this.#sign(ask, decision.granted, now)
    const grant = {
      node: ask.request.node,
      chain: [...chainBytes(decision.granted.source), ticket.bytes]
    }
    if (sizeOf(grant) > room) {
      return this.#refuse(ask, { code: 'BUSY', message: 'ask for fewer tickets at a time' })
    }
    issued.push(book.record(ticket))
    return grant
  }

  #sign(
    { request, holder, slice }: Ask,
    { source, ports, notBefore, notAfter }: Extract<Decision, { granted: unknown }>['granted'],
    now: number
  ): Signed<Ticket> {
    const { key } = this.#components
    this.#seq += 1
    const holdMs = Math.min(this.#init.holdMs, LIMITS.holdMsMax)
    // A wholesale ticket is no hold: others are cut from it for as long as it lasts.
    const redeemBefore = slice === undefined ? notAfter : Math.min(now + holdMs, notAfter)
    return ticketObject.sign(
      {
        issuer: key.principal,
        notBefore,
        notAfter,
        seq: this.#seq,
        parent: source.parent.id,
        node: request.node,
        holder,
        ...(slice === undefined ? {} : { slice }),
        resources: request.resources,
        ports,
        rights: request.rights,
        canDelegate: request.canDelegate === true,
        redeemBefore: Math.min(redeemBefore, redeemLimit(source)),
        ...(request.supersedes === undefined ? {} : { supersedes: request.supersedes })
      },
      key
    )
  }

  #policyFault({ request, holder, slice }: Ask): Refused | undefined {
    const { policy } = this.#init
    const { book, isProven } = this.#components
    const denied = this.#partyFault(holder, slice === undefined)
    if (denied !== undefined) return { code: 'DENIED', message: denied }
    if (slice === undefined && request.canDelegate !== true) {
      return { code: 'DENIED', message: 'a ticket without a slice is for cutting others from' }
    }
    if (isProven(request.node)) return { code: 'DENIED', message: 'this node was shown to cheat' }
    if (request.durationMs > policy.durationMsMax) {
      const message = `this agent grants terms of at most ${policy.durationMsMax} ms`
      return { code: 'QUOTA_EXCEEDED', message }
    }
    const outstanding = book.outstanding(holder)
    if (outstanding >= (policy.ticketsPerHolderMax ?? TICKETS_PER_HOLDER)) {
      return { code: 'QUOTA_EXCEEDED', message: `${outstanding} tickets of yours are out already` }
    }
    const right = request.rights.find((name) => !policy.rights.includes(name))
    return right === undefined
      ? undefined
      : { code: 'DENIED', message: `this agent does not grant the right ${right}` }
  }

  /** Why somebody gets no ticket, or no wholesale ticket, whatever it is for. */
  #partyFault(holder: Principal, isWholesale: boolean): string | undefined {
    const { holders, partners = [] } = this.#init.policy
    if (isWholesale) {
      const isPartner = partners.some(({ principal }) => principal === holder)
      return isPartner ? undefined : 'this agent gives tickets without a slice to its partners only'
    }
    return holders === 'anyone' || holders.includes(holder)
      ? undefined
      : `this agent grants nothing to ${holder}`
  }

  #refuse({ request, call }: Asked, { code, message }: Refused): Grant {
    const { clock, book } = this.#components
    const delegation = book.delegation(request.node, clock.now())
    const evidence = delegation === undefined ? [] : [delegation.id]
    const refusal = this.#refusals.sign({ code, message, evidence }, call())
    return { node: request.node, refusal: refusal.bytes }
  }
}

function sizeOf({ chain = [] }: Grant): number {
  return chain.reduce((sum, { length }) => sum + length, 0)
}
