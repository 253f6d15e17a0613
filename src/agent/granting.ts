/**
 * Granting tickets: policy, decision, signature. What one message asks for is decided and counted before anything is
 * waited for, and in the store, all of it in one step, before any of it is out of the house.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { durationUnit } from '../base/units.ts'
import type { Grant, TicketRequest } from '../protocol/agent-protocol.ts'
import type { Store } from '../store/store.ts'
import { vouchedBy } from '../ticket/membership.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { callId } from '../ticket/refusal.ts'
import { RefusalSigner } from '../ticket/refusal-signer.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { rightsFault } from '../ticket/rights.ts'
import { shapingExceeding, shapingExcess } from '../ticket/shaping.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import {
  admissionPolicy,
  looksAtMemberships,
  matchedRule,
  type AdmissionPolicy,
  type AgentPolicy,
  type Matched,
  type Terms
} from './admission-policy.ts'
import { stateEntry, ticketEntry } from './agent-tables.ts'
import { wantedShaping, type Ask, type Granted, type Refused } from './decision.ts'
import type { Issued } from './node-account.ts'
import { chainBytes, redeemLimit } from './source.ts'
import type { TicketBook } from './ticket-book.ts'

export interface GrantingComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly book: TicketBook
  readonly isProven: (principal: Principal) => boolean
}

/** What is asked for in one message. */
export interface AskedTickets {
  /** Absent where other tickets are to be cut from those asked for. */
  readonly slice?: string
  readonly requests: readonly TicketRequest[]
  /** Of the holder. */
  readonly memberships?: readonly Uint8Array[]
}

/** A request, the rule that decides on it, and the id of the call that it came in. */
interface Asked extends Ask {
  readonly matched: Matched | undefined
  readonly call: () => string
}

export interface GrantingInit {
  readonly policy: AgentPolicy
  readonly holdMs: number
}

/** What refusals and the frame of the answer take beside the chains. */
const REPLY_BYTES_MAX = LIMITS.messageBytesMax - LIMITS.ticketsPerMessageMax * 1024

export class Granting {
  readonly #components: GrantingComponents
  readonly #init: GrantingInit
  #policy: AdmissionPolicy
  /** The last sequence number used: one series for all nodes, so that none need be remembered for its own. */
  #seq = 0
  readonly #refusals: RefusalSigner
  /** Tickets that are being written down, by id. */
  readonly #pending = new Map<string, Promise<void>>()

  constructor(components: GrantingComponents, init: GrantingInit) {
    this.#components = components
    this.#init = init
    this.#policy = admissionPolicy(init.policy)
    this.#refusals = new RefusalSigner(components.key, () => components.clock.now())
  }

  get seq(): number {
    return this.#seq
  }

  restore(seq: number): void {
    this.#seq = seq
  }

  /** By what is decided from now on; tickets that are out stay as they are. */
  get policy(): AdmissionPolicy {
    return this.#policy
  }

  set policy(policy: AdmissionPolicy) {
    this.#policy = policy
  }

  /** The commit that a ticket waits for, while it may yet turn out never to have been issued. */
  pending(ticket: string): Promise<void> | undefined {
    return this.#pending.get(ticket)
  }

  /** One grant a request, in order. Throws `STORE_FAILED` and the like; nothing was issued then. */
  async grant(asked: AskedTickets, holder: Principal): Promise<Grant[]> {
    const { slice, requests, memberships } = asked
    const { book, store, logger } = this.#components
    const issued: Issued[] = []
    try {
      // Chains may be long: what does not fit the answer any more is to be asked for again.
      let room = REPLY_BYTES_MAX
      const call = (): string => callId('getTickets', asked)
      const matched = this.#match(holder, memberships)
      const shaping = matched?.rule.terms?.shaping
      const grants = requests.map((request) => {
        const grant = this.#decide({ request, holder, slice, shaping, matched, call }, issued, room)
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
    const fault = this.#policyFault(ask, now)
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
    const organisation = ask.matched?.organisation
    issued.push(book.record(ticket, organisation === undefined ? {} : { organisation }))
    return grant
  }

  #sign(
    { request, holder, slice }: Ask,
    { source, ports, shaping, notBefore, notAfter }: Granted,
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
        ...(shaping === undefined ? {} : { shaping }),
        canDelegate: request.canDelegate === true,
        redeemBefore: Math.min(redeemBefore, redeemLimit(source)),
        ...(request.supersedes === undefined ? {} : { supersedes: request.supersedes })
      },
      key
    )
  }

  #match(holder: Principal, memberships: readonly Uint8Array[] = []): Matched | undefined {
    const policy = this.#policy
    const { clock } = this.#components
    // Signatures are looked at where something depends on them.
    const shown = looksAtMemberships(policy) ? memberships : []
    return matchedRule(policy, holder, vouchedBy(shown, { member: holder, now: clock.now() }))
  }

  #policyFault(ask: Asked, now: number): Refused | undefined {
    const { request, holder, slice, matched } = ask
    const { isProven } = this.#components
    const terms = matched?.rule.terms
    if (matched === undefined || terms === undefined) {
      const message = `this agent grants nothing to ${holder}`
      return { code: 'DENIED', message: matched === undefined ? message : byRule(matched, message) }
    }
    const isWholesale = slice === undefined
    if (terms.grants === (isWholesale ? 'slices' : 'wholesale')) {
      const message = isWholesale
        ? 'this agent gives tickets without a slice to its partners only'
        : `this agent grants no slices to ${holder}`
      return { code: 'DENIED', message: byRule(matched, message) }
    }
    if (isWholesale && request.canDelegate !== true) {
      return { code: 'DENIED', message: 'a ticket without a slice is for cutting others from' }
    }
    const together = isWholesale ? undefined : rightsFault(request.rights, request.ports)
    if (together !== undefined) return { code: 'DENIED', message: together }
    if (isProven(request.node)) return { code: 'DENIED', message: 'this node was shown to cheat' }
    const right = request.rights.find((name) => !terms.rights.includes(name))
    if (right !== undefined) {
      const message = byRule(matched, `this agent does not grant the right ${right}`)
      return { code: 'DENIED', message }
    }
    const wanted = wantedShaping(ask)
    const [looser] = shapingExceeding(wanted, terms.shaping)
    if (looser !== undefined) {
      const message = `${shapingExcess(looser, wanted, terms.shaping)} by this agent`
      return { code: 'QUOTA_EXCEEDED', message: byRule(matched, message) }
    }
    const beyond = this.#quotaFault(ask, terms, matched.organisation, now)
    return beyond === undefined ? undefined : { code: 'QUOTA_EXCEEDED', message: byRule(matched, beyond) }
  }

  /** Nothing is waited for between this and the ticket being counted, so no two requests get the last of a quota. */
  #quotaFault(
    ask: Asked,
    terms: Terms,
    organisation: Principal | undefined,
    now: number
  ): string | undefined {
    const { book } = this.#components
    const { durationMsMax, perPrincipal, perOrganisation } = terms
    if (ask.request.durationMs > durationMsMax) {
      return `the longest term is ${durationUnit.format(durationMsMax)}`
    }
    const own = book.quotaFault(ask, { principal: ask.holder }, perPrincipal, now)
    if (own !== undefined || organisation === undefined) return own
    return book.quotaFault(ask, { organisation }, perOrganisation, now)
  }

  #refuse({ request, call }: Asked, { code, message }: Refused): Grant {
    const { clock, book } = this.#components
    const delegation = book.delegation(request.node, clock.now())
    const evidence = delegation === undefined ? [] : [delegation.id]
    const refusal = this.#refusals.sign({ code, message, evidence }, call())
    return { node: request.node, refusal: refusal.bytes }
  }
}

function byRule({ rule: { name } }: Matched, message: string): string {
  return `${message} (by the rule ${JSON.stringify(name)})`
}

function sizeOf({ chain = [] }: Grant): number {
  return chain.reduce((sum, { length }) => sum + length, 0)
}
