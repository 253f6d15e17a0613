/**
 * What an agent knows of one node: the sources that it may cut tickets from, and the tickets that it issued, each
 * counted for as long as anybody could hold it against the agent. Pure.
 */
import type { Delegation } from '../ticket/delegation.ts'
import { contains } from '../ticket/interval.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { lineOf, type Ticket } from '../ticket/ticket.ts'
import { Ledger } from './ledger.ts'
import { PortTable } from './port-table.ts'
import { counts, DELEGATIONS_GROUP, succeeds, type Source } from './source.ts'

/** A ticket that the agent issued, and what it knows of it. */
export interface Issued {
  readonly ticket: Signed<Ticket>
  /** Of the sources that it counts against. */
  readonly group: string
  /** Whose quota it counts for beside the holder's. */
  readonly organisation?: Principal
  /** The node said that nothing more can come of it. */
  settled: boolean
  revoked: boolean
  /** A receipt of it was taken. */
  rated: boolean
}

/** What need not be kept any longer. */
export interface Dropped {
  readonly tickets: readonly Issued[]
  /** Ids of what was cut from. */
  readonly sources: readonly string[]
}

/** What is to be done about a delegation that a node hands over. */
export interface Verdict {
  /** `old`: a newer one was taken before. */
  readonly verdict: 'good' | 'held' | 'old' | 'unfit'
  /** What it must count as well. */
  readonly lacking: readonly Issued[]
  /** Ids that it must not count. */
  readonly unknown: readonly string[]
}

export class NodeAccount {
  readonly node: Principal
  /** The newest source of each group. */
  readonly #current = new Map<string, Source>()
  /** By the id of what is cut from: the current ones, and those that tickets were cut from. */
  readonly #sources = new Map<string, Source>()
  readonly #ledgers = new Map<string, Ledger>()
  readonly #ports = new PortTable()
  readonly #issued = new Map<string, Issued>()
  readonly #byLine = new Map<string, Map<string, Issued>>()
  /** UTC ms at which the last of the tickets that earlier delegations counted, and later ones do not, ends. */
  #forgottenUntil = 0
  #unsettledCount = 0

  constructor(node: Principal) {
    this.node = node
  }

  get ports(): PortTable {
    return this.#ports
  }

  get forgottenUntil(): number {
    return this.#forgottenUntil
  }

  /** How many tickets are out below delegations, by the node's last word; a delegation must be able to count them. */
  get unsettledCount(): number {
    return this.#unsettledCount
  }

  issued(): IterableIterator<Issued> {
    return this.#issued.values()
  }

  get(id: string): Issued | undefined {
    return this.#issued.get(id)
  }

  source(id: string): Source | undefined {
    return this.#sources.get(id)
  }

  sources(): readonly Source[] {
    return [...this.#sources.values()]
  }

  current(): readonly Source[] {
    return [...this.#current.values()]
  }

  delegation(): Signed<Delegation> | undefined {
    return this.#current.get(DELEGATIONS_GROUP)?.delegation
  }

  inForce(now: number): readonly Source[] {
    return this.current().filter(
      ({ parent, delegation }) => contains(parent.body, now) && contains(delegation.body, now)
    )
  }

  ledger(source: Source): Ledger {
    return this.#ledgerOf(source.group)
  }

  /** Of a line the ticket issued last. */
  newestOf(line: string): Issued | undefined {
    const tickets = [...(this.#byLine.get(line)?.values() ?? [])]
    return tickets.reduce<Issued | undefined>(
      (newest, one) => (newest === undefined || newest.ticket.body.seq < one.ticket.body.seq ? one : newest),
      undefined
    )
  }

  /** Whether a delegation of this node may be taken. `now` is UTC ms. */
  judge({ id, body }: Signed<Delegation>, now: number): Verdict {
    const held = this.delegation()
    const none = { lacking: [], unknown: [] }
    if (held?.id === id) return { verdict: 'held', ...none }
    if (held !== undefined && held.body.seq >= body.seq) return { verdict: 'old', ...none }
    const counted = new Set(body.counts)
    const unknown = body.counts.filter((ticket) => {
      const issued = this.#issued.get(ticket)
      return issued?.group !== DELEGATIONS_GROUP
    })
    const begins = Math.max(now, body.notBefore)
    const lacking = this.#unsettled().filter(
      ({ ticket }) => ticket.body.notAfter > begins && !counted.has(ticket.id)
    )
    const isFit = unknown.length === 0 && lacking.length === 0
    return { verdict: isFit ? 'good' : 'unfit', lacking, unknown }
  }

  /** Takes a source in the place of the one before it in its group; gives what counts no more. */
  take(source: Source): Dropped {
    this.restore(source)
    const isNewest = this.#current.get(source.group) === source
    const freed = isNewest
      ? this.#ofGroup(source.group).filter(({ ticket, settled }) => settled && !counts(source, ticket))
      : []
    for (const one of freed) {
      this.unrecord(one)
      if (one.group !== DELEGATIONS_GROUP) continue
      this.#forgottenUntil = Math.max(this.#forgottenUntil, one.ticket.body.notAfter)
    }
    return { tickets: freed, sources: this.#dropSources() }
  }

  /** Takes a source back that was taken before. */
  restore(source: Source, forgottenUntil = 0): void {
    this.#sources.set(source.parent.id, source)
    this.#forgottenUntil = Math.max(this.#forgottenUntil, forgottenUntil)
    const before = this.#current.get(source.group)
    if (before === undefined || succeeds(source, before)) this.#current.set(source.group, source)
  }

  record(ticket: Signed<Ticket>, state: Partial<Issued> = {}): Issued {
    // What a ticket whose source is not known was cut from can only have been a delegation.
    const group = this.#sources.get(ticket.body.parent)?.group ?? DELEGATIONS_GROUP
    const issued = { settled: false, revoked: false, rated: false, ...state, ticket, group }
    this.#issued.set(ticket.id, issued)
    this.#ports.add(ticket)
    this.#ledgerOf(group).add(ticket)
    const line = lineOf(ticket)
    const known = this.#byLine.get(line) ?? new Map<string, Issued>()
    this.#byLine.set(line, known.set(ticket.id, issued))
    if (isOut(issued)) this.#unsettledCount += 1
    return issued
  }

  /** Marks a ticket settled; gives whether it counts no more at all. */
  settle(issued: Issued): boolean {
    if (isOut(issued)) this.#unsettledCount -= 1
    issued.settled = true
    const source = this.#current.get(issued.group)
    // What counts against no delegation any more is forgotten with the next one, which writes down that it was.
    if (issued.group === DELEGATIONS_GROUP || (source !== undefined && counts(source, issued.ticket)))
      return false
    this.unrecord(issued)
    return true
  }

  /** Takes a ticket out of the account, as if it had never been issued. */
  unrecord(issued: Issued): void {
    const { ticket, group } = issued
    if (!this.#issued.delete(ticket.id)) return
    this.#ports.remove(ticket)
    this.#ledgerOf(group).remove(ticket)
    const line = this.#byLine.get(lineOf(ticket))
    line?.delete(ticket.id)
    if (line?.size === 0) this.#byLine.delete(lineOf(ticket))
    if (isOut(issued)) this.#unsettledCount -= 1
  }

  /** Drops sources that ended before `horizon` and that no ticket was cut from; gives their ids. */
  dropEnded(horizon: number): string[] {
    for (const [group, { parent }] of this.#current) {
      const isOver = parent.body.notAfter <= horizon && this.#forgottenUntil <= horizon
      if (isOver && this.#ofGroup(group).length === 0) {
        this.#current.delete(group)
        this.#ledgers.delete(group)
      }
    }
    return this.#dropSources()
  }

  /** Drops sources that nothing is cut from any more and that no ticket needs to be shown with. */
  #dropSources(): string[] {
    const needed = new Set(this.current().map(({ parent }) => parent.id))
    for (const { ticket } of this.#issued.values()) needed.add(ticket.body.parent)
    const dropped = [...this.#sources.keys()].filter((id) => !needed.has(id))
    for (const id of dropped) this.#sources.delete(id)
    return dropped
  }

  /** Whether nothing of this node need be remembered. */
  get isEmpty(): boolean {
    return this.#sources.size === 0 && this.#issued.size === 0
  }

  /** Whether nothing was cut from its delegation that anybody could still hold against the agent at `horizon`. */
  isUnused(horizon: number): boolean {
    const hasOthers = this.current().some(({ group }) => group !== DELEGATIONS_GROUP)
    return this.#issued.size === 0 && this.#forgottenUntil <= horizon && !hasOthers
  }

  #unsettled(): Issued[] {
    return [...this.#issued.values()].filter(isOut)
  }

  #ofGroup(group: string): Issued[] {
    return [...this.#issued.values()].filter((issued) => issued.group === group)
  }

  #ledgerOf(group: string): Ledger {
    const ledger = this.#ledgers.get(group) ?? new Ledger()
    this.#ledgers.set(group, ledger)
    return ledger
  }
}

function isOut({ settled, group }: Issued): boolean {
  return !settled && group === DELEGATIONS_GROUP
}
