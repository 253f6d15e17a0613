/**
 * An agent's book: the nodes that it may issue tickets of, every ticket that counts, and the decision whether one more
 * may be issued. Whatever nodes and holders do, what it lets the agent sign proves no fraud. Pure: no I/O, and time
 * comes in as an argument, so that the simulation can run it.
 */
import { LIMITS } from '../base/limits.ts'
import type { Delegation } from '../ticket/delegation.ts'
import { issuable } from '../ticket/fraud.ts'
import { contains } from '../ticket/interval.ts'
import type { Principal } from '../ticket/principal.ts'
import {
  largerResources,
  NO_RESOURCES,
  RESOURCE_NAMES,
  resourcesExceeding,
  subtractResources,
  type Resources
} from '../ticket/resources.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { Ticket } from '../ticket/ticket.ts'
import type { Quota } from './admission-policy.ts'
import {
  askedLine,
  CLOCK_SKEW_MS,
  decideFrom,
  refuse,
  type Ask,
  type AskedLine,
  type Decision,
  type Refused
} from './decision.ts'
import { NodeAccount, type Dropped, type Issued, type Verdict } from './node-account.ts'
import { QuotaLedger, type Subject } from './quota-ledger.ts'
import type { Source } from './source.ts'

export interface TicketBookInit {
  /** Nodes that the book has room for; default `LIMITS.delegationsPerAgentMax`. */
  readonly nodesMax?: number
}

/** What may be granted of a node in one ticket, and until when. */
export interface Available {
  readonly resources: Resources
  readonly until: number
}

export class TicketBook {
  readonly #nodesMax: number
  readonly #accounts = new Map<Principal, NodeAccount>()
  /** The account of each ticket by its id. */
  readonly #places = new Map<string, NodeAccount>()
  /** Of tickets that no node has settled. */
  readonly #quotas = new QuotaLedger()
  #horizon = 0

  constructor(init: TicketBookInit = {}) {
    this.#nodesMax = init.nodesMax ?? LIMITS.delegationsPerAgentMax
  }

  /** UTC ms: up to here the book has forgotten tickets, so that it lets none be issued for any time before. */
  get horizon(): number {
    return this.#horizon
  }

  /** What an earlier run wrote down. Sources come before the tickets cut from them. */
  restore(kept: {
    readonly horizon: number
    readonly sources: readonly { readonly source: Source; readonly forgottenUntil: number }[]
    readonly tickets: readonly (Pick<Issued, 'ticket'> & Partial<Issued>)[]
  }): void {
    this.#horizon = Math.max(this.#horizon, kept.horizon)
    for (const { source, forgottenUntil } of kept.sources)
      this.#account(source.node).restore(source, forgottenUntil)
    for (const { ticket, ...state } of kept.tickets) this.record(ticket, state)
  }

  /** Whether a delegation may be taken, and if not why. */
  judge(delegation: Signed<Delegation>, now: number): Verdict {
    const account = this.#accounts.get(delegation.body.issuer) ?? new NodeAccount(delegation.body.issuer)
    return account.judge(delegation, this.time(now))
  }

  /** Whether a delegation is over, by a clock that never goes back. */
  isOver(delegation: Signed<Delegation>, now: number): boolean {
    return delegation.body.notAfter <= this.time(now)
  }

  /**
   * Makes room for one more node where there is none: a node that `isKnown` takes the place of one that is not and that
   * nothing was issued of. Gives whether there is room, and the ids of the sources that made it.
   */
  makeRoom(
    node: Principal,
    isKnown: (node: Principal) => boolean,
    now: number
  ): { readonly hasRoom: boolean; readonly dropped: readonly string[] } {
    if (this.#accounts.has(node) || this.#accounts.size < this.#nodesMax)
      return { hasRoom: true, dropped: [] }
    if (!isKnown(node)) return { hasRoom: false, dropped: [] }
    for (const account of this.#accounts.values()) {
      if (isKnown(account.node) || !account.isUnused(this.time(now) - CLOCK_SKEW_MS)) continue
      this.#raise(account.forgottenUntil)
      this.#accounts.delete(account.node)
      return { hasRoom: true, dropped: account.sources().map(({ parent }) => parent.id) }
    }
    return { hasRoom: false, dropped: [] }
  }

  /** Takes what tickets may be cut from, in the place of the one before it; gives what counts no more. */
  take(source: Source): Dropped {
    const dropped = this.#account(source.node).take(source)
    for (const { ticket } of dropped.tickets) this.#places.delete(ticket.id)
    return dropped
  }

  /** UTC ms to write down with the current delegation of a node, see `restore`. */
  forgottenUntil(node: Principal): number {
    return this.#accounts.get(node)?.forgottenUntil ?? 0
  }

  record(ticket: Signed<Ticket>, state: Partial<Issued> = {}): Issued {
    const account = this.#account(ticket.body.node)
    const issued = account.record(ticket, state)
    this.#places.set(ticket.id, account)
    if (!issued.settled) this.#quotas.add(issued)
    return issued
  }

  /** Takes back that a ticket was issued: it never left the house. */
  unrecord(issued: Issued): void {
    this.#remove(issued)
  }

  /** Marks tickets as settled; gives those that count no more. */
  settle(tickets: readonly Issued[]): readonly Issued[] {
    return tickets.filter((issued) => {
      if (issued.settled) return false
      this.#quotas.remove(issued)
      const isGone = this.#places.get(issued.ticket.id)?.settle(issued) ?? false
      if (isGone) this.#places.delete(issued.ticket.id)
      return isGone
    })
  }

  /** Forgets what is over by any clock that is not off by more than the skew allowed for. */
  dropOver(now: number): Dropped {
    const horizon = this.time(now) - CLOCK_SKEW_MS
    const tickets = this.issued().filter(({ ticket }) => ticket.body.notAfter <= horizon)
    for (const issued of tickets) {
      this.#raise(issued.ticket.body.notAfter)
      this.#remove(issued)
    }
    const sources = [...this.#accounts.values()].flatMap((account) => this.#dropEnded(account, horizon))
    return { tickets, sources }
  }

  #dropEnded(account: NodeAccount, horizon: number): readonly string[] {
    const before = account.sources()
    const dropped = account.dropEnded(horizon)
    for (const { parent } of before) {
      if (dropped.includes(parent.id)) this.#raise(Math.min(horizon, parent.body.notAfter))
    }
    if (dropped.length > 0) this.#raise(Math.min(horizon, account.forgottenUntil))
    if (account.isEmpty) this.#accounts.delete(account.node)
    return dropped
  }

  get(id: string): Issued | undefined {
    return this.#places.get(id)?.get(id)
  }

  /** What a ticket was cut from, while that is remembered. */
  sourceOf(ticket: Signed<Ticket>): Source | undefined {
    return this.#accounts.get(ticket.body.node)?.source(ticket.body.parent)
  }

  /** Every ticket that counts. */
  issued(): Issued[] {
    return [...this.#accounts.values()].flatMap((account) => [...account.issued()])
  }

  /** Which quota a ticket would go beyond that `ask` were granted now, in words. */
  quotaFault(ask: Ask, subject: Subject, quota: Quota, now: number): string | undefined {
    const time = this.time(now)
    const term = { notBefore: time - CLOCK_SKEW_MS, notAfter: time + ask.request.durationMs }
    return this.#quotas.fault(subject, quota, { ...ask.request, term, line: askedLine(ask) })
  }

  /** Nodes of which something may be issued. */
  nodes(now: number): Principal[] {
    const time = this.time(now)
    return [...this.#accounts.values()]
      .filter((account) => account.inForce(time).length > 0)
      .map(({ node }) => node)
  }

  /** The newest of each group, whether in force or not. */
  sources(): Source[] {
    return [...this.#accounts.values()].flatMap((account) => account.current())
  }

  /** The delegation of a node that is in force. */
  delegation(node: Principal, now: number): Signed<Delegation> | undefined {
    const held = this.#accounts.get(node)?.delegation()
    return held !== undefined && contains(held.body, this.time(now)) ? held : undefined
  }

  /** The most that may still be granted of a node from one source, for a term that begins now. */
  available(node: Principal, now: number): Available | undefined {
    const account = this.#accounts.get(node)
    const time = this.time(now)
    const window = { notBefore: time - CLOCK_SKEW_MS, notAfter: time + 1 }
    const of = (account?.inForce(time) ?? []).map((source) => ({
      resources: subtractResources(
        issuable(source.parent),
        account?.ledger(source).peak(window) ?? source.parent.body.resources
      ),
      until: Math.min(source.parent.body.notAfter, source.delegation.body.notAfter)
    }))
    // Of a source that has much of one thing and none of another, nothing can be granted.
    const largest = of.map(({ resources }) => resources).reduce(largerResources, NO_RESOURCES)
    const scarcest = ({ resources }: Available): number =>
      Math.min(...RESOURCE_NAMES.map((name) => resources[name] / Math.max(1, largest[name])))
    return of.reduce<Available | undefined>(
      (most, one) => (most === undefined || scarcest(one) > scarcest(most) ? one : most),
      undefined
    )
  }

  /** Decides on a request without changing anything. */
  decide(ask: Ask, now: number): Decision {
    const { request } = ask
    const account = this.#accounts.get(request.node)
    const moment = { now: this.time(now), horizon: this.#horizon }
    const [first, ...others] = account?.inForce(moment.now) ?? []
    if (account === undefined || first === undefined) {
      return refuse('NOT_FOUND', `no delegation of node ${request.node} is held`)
    }
    const line = this.#lineOf(ask, account)
    if (line !== undefined && 'refused' in line) return line
    let decision = decideFrom(first, account, ask, line, moment)
    for (const source of others) {
      if ('granted' in decision) break
      const next = decideFrom(source, account, ask, line, moment)
      if ('granted' in next) decision = next
    }
    return decision
  }

  /** The line that a request goes on with; of one that this agent began, only who has it may ask. */
  #lineOf(
    { request, holder, slice }: Ask,
    account: NodeAccount
  ): AskedLine | { readonly refused: Refused } | undefined {
    const { supersedes, node } = request
    const name = askedLine({ request, holder, slice })
    if (supersedes === undefined || name === undefined) return undefined
    const began = this.get(supersedes)?.ticket.body
    const isOthers =
      began !== undefined &&
      (began.holder !== holder ||
        began.node !== node ||
        began.slice !== slice ||
        began.supersedes !== undefined)
    if (isOthers) return refuse('DENIED', 'the ticket to be renewed is another one')
    const newest = account.newestOf(name)
    if (newest === undefined) return { name, newest }
    if (newest.revoked) return refuse('TICKET_REVOKED', 'the ticket to be renewed was revoked')
    const [larger] = resourcesExceeding(request.resources, newest.ticket.body.resources)
    if (larger !== undefined) return refuse('DENIED', `a ticket is not superseded by one for more ${larger}`)
    return { name, newest }
  }

  /** The time by which the book decides: a clock set back does not bring back what was forgotten. */
  time(now: number): number {
    return Math.max(now, this.#horizon)
  }

  #raise(horizon: number): void {
    this.#horizon = Math.max(this.#horizon, horizon)
  }

  #account(node: Principal): NodeAccount {
    const account = this.#accounts.get(node) ?? new NodeAccount(node)
    this.#accounts.set(node, account)
    return account
  }

  #remove(issued: Issued): void {
    const { ticket } = issued
    this.#places.get(ticket.id)?.unrecord(issued)
    if (this.#places.delete(ticket.id) && !issued.settled) this.#quotas.remove(issued)
  }
}
