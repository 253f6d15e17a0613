/**
 * What a holder was told by one node, and what must hold of it after each restart: no lease that was acknowledged is lost,
 * none is there twice, and nothing is on the host that no lease speaks for.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { LeaseView } from '../../../src/daemon/control-protocol.ts'
import { differences } from './host-view.ts'
import type { NodeLives } from './lives.ts'
import type { CrashOverlay, HolderReply } from './overlay.ts'

/** How long after its start a node may have something on the host that no lease speaks for. */
const SETTLED_WITHIN_MS = 5_000
const POLL_MS = 25
const TRIES_MAX = 200
/** A lease this near to its end may be gone or not. */
const END_MARGIN_MS = 1_500
const RENEWED_BY_MS = 60_000
/** Said of what is under way, or by a node that is not there: ask again. */
const OPEN_ANSWERS: ReadonlySet<string> = new Set(['BUSY', 'PEER_UNREACHABLE', 'PROTOCOL_ERROR', 'TIMEOUT'])

interface Term {
  readonly ticket: string
  /** UTC ms. */
  readonly notAfter: number
}

export interface Claim {
  /** Of the lease as it was last acknowledged, or is asked for. */
  term: Term
  /** Asked for in a renewal to which no reply came. */
  next?: Term
  /** The first ticket, which names the line of those that renew it. */
  readonly line: string
  /** The ticket before the last renewal. */
  past?: string
  /** As acknowledged. */
  lease?: { readonly id: string; readonly vserver: string }
  /** `asked` and `deleting`: no reply came. */
  state: 'asked' | 'held' | 'deleting' | 'deleted'
  /** Its process when it was first seen. */
  init?: string
}

export class Ledger {
  readonly #overlay: CrashOverlay
  readonly #node: NodeLives
  #claims: Claim[] = []

  constructor(overlay: CrashOverlay, node: NodeLives) {
    this.#overlay = overlay
    this.#node = node
  }

  /** Leases that are acknowledged and last longer than a test. */
  standing(): Claim[] {
    return this.#claims.filter(({ state, term }) => state === 'held' && term.notAfter > Date.now() + 120_000)
  }

  /** Gets a ticket and redeems it. Gives whether a lease was acknowledged; a refusal of the ticket throws. */
  async acquire(durationMs: number): Promise<boolean> {
    const term = await this.#ticket({ durationMs })
    const claim: Claim = { term, line: term.ticket, state: 'asked' }
    this.#claims.push(claim)
    const { fault, held } = this.#taken(claim, await this.#redeem(term))
    if (fault !== undefined) throw new Error(fault)
    return held
  }

  /** Gives whether the renewal was acknowledged; a refusal of it throws. */
  async renew(claim: Claim): Promise<boolean> {
    const durationMs = claim.term.notAfter - Date.now() + RENEWED_BY_MS
    const order = { durationMs, supersedes: claim.line, renews: claim.lease?.id }
    claim.next = await this.#ticket(order)
    const { fault, held } = this.#renewed(claim, claim.next, await this.#redeem(claim.next))
    if (fault !== undefined) throw new Error(fault)
    return held
  }

  async #ticket(order: object): Promise<Term> {
    const node = this.#node.init.principal
    const reply = await this.#insist(() => this.#overlay.ask({ do: 'ticket', node, ...order }))
    const { ticket, notAfter } = reply.result ?? {}
    if (ticket === undefined || notAfter === undefined) throw new Error(`no ticket: ${JSON.stringify(reply)}`)
    return { ticket, notAfter }
  }

  /** Gives whether the end was acknowledged. */
  async end(claim: Claim): Promise<boolean> {
    claim.state = 'deleting'
    const { error } = await this.#delete(claim)
    if (error === undefined) claim.state = 'deleted'
    return error === undefined
  }

  /** What is wrong, after a start, in words; empty when all is well. */
  async faults(): Promise<string[]> {
    const ready = performance.now()
    const lost = await this.#lost()
    const strays = await this.#unsettled(ready)
    const retried = await this.#retry()
    const again = performance.now()
    return [...lost, ...strays, ...retried, ...(await this.#unsettled(again))]
  }

  async #lost(): Promise<string[]> {
    const leases = await this.#node.leases()
    const faults: string[] = []
    for (const { term, next, past, lease, state } of this.#claims) {
      if (lease === undefined) continue
      const of = (ticket: string | undefined): LeaseView[] => leases.filter((each) => each.ticket === ticket)
      const inForce = [term.ticket, next?.ticket].flatMap(of).filter((each) => each.state === 'active')
      if (inForce.some((each) => each.ticket === term.ticket && each.lease !== lease.id)) {
        faults.push(`doubled: another lease for ${term.ticket}`)
      }
      if (inForce.length > 1 || of(past).some((each) => each.state === 'active')) {
        faults.push(`doubled: a renewal of ${lease.id} is in force beside what it renews`)
      }
      if (state === 'held' && term.notAfter > Date.now() + END_MARGIN_MS && inForce.length === 0) {
        faults.push(`lost: lease ${lease.id} is ${of(term.ticket)[0]?.state ?? 'not there'}`)
      }
      if (state === 'deleted' && inForce.length > 0) faults.push(`revived: lease ${lease.id} was deleted`)
    }
    const known = new Set(this.#claims.flatMap(({ term, next }) => [term.ticket, next?.ticket]))
    const strangers = leases.filter(({ state, ticket }) => state === 'active' && !known.has(ticket))
    return [...faults, ...strangers.map(({ ticket }) => `a lease for ${ticket}, for which nobody asked`)]
  }

  /** Waits until the host has what the leases say and nothing else; what it has otherwise when the time is over. */
  async #unsettled(since: number): Promise<string[]> {
    for (;;) {
      const faults = await this.#hostFaults()
      if (faults.length === 0 || performance.now() - since > SETTLED_WITHIN_MS) return faults
      await delay(POLL_MS)
    }
  }

  async #hostFaults(): Promise<string[]> {
    const leases = await this.#node.leases()
    const { view, inits } = await this.#node.see()
    const inForce = leases.filter(({ state }) => state === 'active')
    const halfWay = leases.filter(({ state }) => state === 'making' || state === 'ending')
    const over = inForce.filter(({ notAfter }) => notAfter <= Date.now())
    const ids = inForce.map(({ vserver }) => vserver)
    const faults = [
      ...differences(view, ids),
      ...halfWay.map(({ vserver, state }) => `still ${state}: ${vserver}`),
      ...over.map(({ vserver }) => `past its end: ${vserver}`)
    ]
    if (new Set(ids).size < ids.length)
      faults.push(`doubled: one vserver of two leases among ${ids.join(' ')}`)
    for (const claim of this.#claims) {
      const init = inits.get(claim.lease?.vserver ?? '')
      if (claim.state !== 'held' || init === undefined) continue
      claim.init ??= init
      if (claim.init !== init)
        faults.push(`${claim.lease?.vserver} was made again: ${claim.init}, now ${init}`)
    }
    return faults
  }

  /** As a holder would: asks the same again where no reply came, and where one came, to see that it still is the same. */
  async #retry(): Promise<string[]> {
    const faults = await Promise.all(this.#claims.map((claim) => this.#retryOne(claim)))
    const now = Date.now()
    // One that was deleted is looked at in the next life once more.
    this.#claims = this.#claims.filter(
      ({ state, term }, index) => term.notAfter > now && (state !== 'deleted' || !faults[index]?.wasDeleted)
    )
    return faults.flatMap(({ said }) => said)
  }

  async #retryOne(claim: Claim): Promise<{ said: string[]; wasDeleted: boolean }> {
    const wasDeleted = claim.state === 'deleted'
    const said: string[] = []
    if (claim.state === 'deleting') {
      const { error } = await this.#insist(() => this.#delete(claim))
      if (error === undefined) claim.state = 'deleted'
      else said.push(`a deletion again: ${error}`)
    }
    const { next } = claim
    if (next !== undefined) {
      const { fault } = this.#renewed(claim, next, await this.#insist(() => this.#redeem(next)))
      if (fault !== undefined) said.push(fault)
    }
    // Twice, so that what the first call made is the same for the second.
    for (let time = 0; time < 2; time++) {
      const reply = await this.#insist(() => this.#redeem(claim.term))
      const { fault } = this.#taken(claim, reply)
      if (fault !== undefined) said.push(fault)
    }
    if (claim.past !== undefined) {
      const { result, error } = await this.#overlay.ask({ do: 'redeem', ticket: claim.past })
      if (result?.refusal !== 'TICKET_REDEEMED') {
        said.push(`doubled: the ticket before a renewal gets ${result?.lease ?? result?.refusal ?? error}`)
      }
    }
    if (claim.state === 'held' && claim.term.notAfter > Date.now() + END_MARGIN_MS) {
      const { principal: node } = this.#node.init
      const { result, error } = await this.#overlay.ask({ do: 'status', node, lease: claim.lease?.id })
      if (result?.state !== 'created') said.push(`status of a lease held: ${result?.state ?? error}`)
    }
    return { said, wasDeleted }
  }

  /** Takes a reply to a demand down, and says what is wrong with it. */
  #taken(claim: Claim, reply: HolderReply): { fault?: string; held: boolean } {
    const { lease: id, vserver, refusal } = reply.result ?? {}
    if (id !== undefined && vserver !== undefined) {
      if (claim.lease !== undefined && claim.lease.id !== id) {
        const fault = `doubled: ${claim.term.ticket} has leases ${claim.lease.id} and ${id}`
        claim.lease = { id, vserver }
        delete claim.init
        return { fault, held: false }
      }
      if (claim.state === 'deleted') return { fault: `revived: ${id} was deleted`, held: false }
      claim.lease = { id, vserver }
      if (claim.state === 'asked') claim.state = 'held'
      return { held: true }
    }
    if (refusal === undefined) return { held: false }
    if (claim.state === 'deleted' && refusal === 'TICKET_REDEEMED') return { held: false }
    const mayBeOver = claim.term.notAfter <= Date.now() + END_MARGIN_MS
    if (mayBeOver && (refusal === 'TICKET_REDEEMED' || refusal === 'TICKET_EXPIRED')) return { held: false }
    const what = claim.state === 'held' ? `lost: lease ${claim.lease?.id}` : 'a good demand'
    return { fault: `${what} is refused with ${refusal}`, held: false }
  }

  /** The same for a reply to the demand for a renewal. */
  #renewed(claim: Claim, next: Term, reply: HolderReply): { fault?: string; held: boolean } {
    const { lease: id, vserver, refusal } = reply.result ?? {}
    if (refusal !== undefined) return { fault: `a good renewal is refused with ${refusal}`, held: false }
    if (id === undefined || vserver === undefined) return { held: false }
    claim.past = claim.term.ticket
    claim.term = next
    delete claim.next
    const before = claim.lease
    claim.lease = { id, vserver }
    if (before?.vserver === vserver) return { held: true }
    return { fault: `a renewal moved ${before?.vserver} to ${vserver}`, held: true }
  }

  #redeem({ ticket }: Term): Promise<HolderReply> {
    return this.#overlay.ask({ do: 'redeem', ticket })
  }

  #delete({ lease }: Claim): Promise<HolderReply> {
    const { principal: node } = this.#node.init
    return this.#overlay.ask({ do: 'delete', node, lease: lease?.id, vserver: lease?.vserver })
  }

  async #insist(ask: () => Promise<HolderReply>): Promise<HolderReply> {
    for (let tries = 1; ; tries++) {
      const reply = await ask()
      if (tries === TRIES_MAX || !OPEN_ANSWERS.has(reply.error ?? '')) return reply
      await delay(POLL_MS)
    }
  }
}
