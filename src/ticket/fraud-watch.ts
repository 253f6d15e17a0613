/**
 * Watches the signed objects that pass through a peer for any that contradict each other. Remembers a bounded number
 * of them, in memory; pure but for that.
 */
import { LIMITS } from '../base/limits.ts'
import type { NodeAdvertisement } from './advertisement.ts'
import type { AnyObject } from './any-object.ts'
import { linkFault } from './chain.ts'
import type { Delegation } from './delegation.ts'
import {
  countsUnder,
  equivocation,
  issuable,
  overDelegated,
  overIssued,
  portLeasedTwice,
  sequencePlace,
  type Finding,
  type Parent
} from './fraud.ts'
import { overlaps } from './interval.ts'
import { IssueLedger } from './issue-ledger.ts'
import type { Lease } from './lease.ts'
import type { Signed } from './signed-object.ts'
import type { Ticket } from './ticket.ts'

export class FraudWatch {
  readonly #objectsMax: number
  /** By id, in the order in which they came. */
  readonly #objects = new Map<string, AnyObject>()
  readonly #bySequence = new Map<string, AnyObject>()
  /** Ids of what belongs together: delegations that count a ticket, what a node signed. */
  readonly #groups = new Map<string, Set<string>>()
  /** What was issued, by what it was cut from. */
  readonly #ledgers = new Map<string, IssueLedger>()

  constructor(init: { readonly objectsMax?: number } = {}) {
    this.#objectsMax = init.objectsMax ?? LIMITS.watchedObjectsMax
  }

  /**
   * Takes an object whose signature was checked; gives what it proves together with those before it, each time it is
   * asked. Where there is no room the oldest are forgotten.
   */
  observe(one: AnyObject): readonly Finding[] {
    const place = sequencePlace(one)
    const rival = place === undefined ? undefined : this.#bySequence.get(place)
    const findings = [
      rival && equivocation(rival, one),
      this.#isWorthJudging(one) ? this.#judge(one) : undefined
    ]
    return findings.filter((finding) => finding !== undefined)
  }

  #judge(one: AnyObject): Finding | undefined {
    switch (one.type) {
      case 'ticket':
        return this.#judgeTicket(one.object)
      case 'delegation':
        return this.#judgeParent(one.object) ?? this.#judgeNode(one.object.body.issuer)
      case 'advertisement':
        return this.#judgeNode(one.object.body.issuer)
      case 'lease':
        return this.#judgeLease(one.object)
      default:
        return undefined
    }
  }

  #judgeTicket(ticket: Signed<Ticket>): Finding | undefined {
    for (const id of this.#parentsOf(ticket)) {
      const parent = this.#objects.get(id)
      if (parent?.type !== 'delegation' && parent?.type !== 'ticket') continue
      const ledger = this.#ledgers.get(id)
      const isOwn = ticket.body.parent === id && linkFault(ticket, parent.object) !== undefined
      if (!isOwn && ledger?.isDoubtful(ticket, issuable(parent.object)) !== true) continue
      const near = this.#ticketsUnder(parent.object).filter(({ body }) => overlaps(body, ticket.body))
      const found = overIssued(parent.object, near)
      if (found !== undefined) return found
    }
    return this.#judgeParent(ticket)
  }

  /** What a ticket counts under, as far as it is known. */
  #parentsOf(ticket: Signed<Ticket>): string[] {
    return [ticket.body.parent, ...this.#group(countedKey(ticket.id))]
  }

  #judgeParent(parent: Parent): Finding | undefined {
    const tickets = this.#ticketsUnder(parent)
    return tickets.length === 0 ? undefined : overIssued(parent, tickets)
  }

  #ticketsUnder(parent: Parent): Signed<Ticket>[] {
    return [...(this.#ledgers.get(parent.id)?.ids() ?? [])].flatMap((id) => {
      const one = this.#objects.get(id)
      return one?.type === 'ticket' && countsUnder(one.object, parent) ? [one.object] : []
    })
  }

  #judgeNode(node: string): Finding | undefined {
    const signed = this.#group(nodeKey(node)).flatMap((id) => this.#objects.get(id) ?? [])
    const delegations = signed.flatMap((one): Signed<Delegation>[] =>
      one.type === 'delegation' ? [one.object] : []
    )
    for (const { type, object } of signed) {
      if (type !== 'advertisement' || object.body.role !== 'node') continue
      const advert: Signed<NodeAdvertisement> = { ...object, body: object.body }
      const found = overDelegated(advert, delegations)
      if (found !== undefined) return found
    }
    return undefined
  }

  #judgeLease(lease: Signed<Lease>): Finding | undefined {
    for (const id of this.#group(leaseKey(lease.body.issuer))) {
      const other = this.#objects.get(id)
      const found = other?.type === 'lease' ? portLeasedTwice(other.object, lease) : undefined
      if (found !== undefined) return found
    }
    return undefined
  }

  /** What is known already was judged, and with it whatever came after; a ticket is judged whenever it is presented. */
  #isWorthJudging(one: AnyObject): boolean {
    const isKnown = this.#objects.has(one.object.id)
    return this.#keep(one) && (!isKnown || one.type === 'ticket')
  }

  /** Gives whether it is of a type that anything is found among. */
  #keep(one: AnyObject): boolean {
    const keys = keysOf(one)
    if (keys === undefined) return false
    if (this.#objects.has(one.object.id)) return true
    this.#makeRoom()
    const { id } = one.object
    this.#objects.set(id, one)
    const place = sequencePlace(one)
    if (place !== undefined && !this.#bySequence.has(place)) this.#bySequence.set(place, one)
    for (const key of keys) {
      const group = this.#groups.get(key) ?? new Set<string>()
      this.#groups.set(key, group.add(id))
    }
    if (one.type === 'ticket')
      for (const parent of this.#parentsOf(one.object)) this.#ledger(parent).add(one.object)
    if (one.type === 'delegation') this.#countEarlier(one.object)
    // One advert a node is enough, the newest.
    if (one.type === 'advertisement') this.#dropOlderAdverts(one.object)
    return true
  }

  #ledger(parent: string): IssueLedger {
    const ledger = this.#ledgers.get(parent) ?? new IssueLedger()
    this.#ledgers.set(parent, ledger)
    return ledger
  }

  #countEarlier({ id, body }: Signed<Delegation>): void {
    for (const ticket of body.counts) {
      const one = this.#objects.get(ticket)
      if (one?.type === 'ticket') this.#ledger(id).add(one.object)
    }
  }

  #strike(parent: string, tickets: readonly string[]): void {
    const ledger = this.#ledgers.get(parent)
    for (const ticket of tickets) ledger?.remove(ticket)
    if (ledger?.isEmpty === true) this.#ledgers.delete(parent)
  }

  #dropOlderAdverts(newest: Signed<{ readonly issuer: string; readonly seq: number }>): void {
    for (const id of this.#group(nodeKey(newest.body.issuer))) {
      const other = this.#objects.get(id)
      if (other?.type === 'advertisement' && other.object.body.seq < newest.body.seq) this.#drop(other)
    }
  }

  #makeRoom(): void {
    for (const oldest of this.#objects.values()) {
      if (this.#objects.size < this.#objectsMax) return
      this.#drop(oldest)
    }
  }

  #drop(one: AnyObject): void {
    const { id } = one.object
    this.#objects.delete(id)
    const place = sequencePlace(one)
    if (place !== undefined && this.#bySequence.get(place)?.object.id === id) this.#bySequence.delete(place)
    if (one.type === 'ticket') for (const parent of this.#parentsOf(one.object)) this.#strike(parent, [id])
    if (one.type === 'delegation') this.#strike(id, one.object.body.counts)
    for (const key of keysOf(one) ?? []) {
      const group = this.#groups.get(key)
      group?.delete(id)
      if (group?.size === 0) this.#groups.delete(key)
    }
  }

  #group(key: string): string[] {
    return [...(this.#groups.get(key) ?? [])]
  }
}

const countedKey = (ticket: string): string => `counted ${ticket}`
const nodeKey = (node: string): string => `node ${node}`
const leaseKey = (node: string): string => `lease ${node}`

/** The groups that an object belongs to; `undefined` for what is not watched. */
function keysOf({ type, object }: AnyObject): string[] | undefined {
  switch (type) {
    case 'ticket':
      return []
    case 'delegation':
      return [nodeKey(object.body.issuer), ...object.body.counts.map(countedKey)]
    case 'advertisement':
      return object.body.role === 'node' ? [nodeKey(object.body.issuer)] : undefined
    case 'lease':
      return [leaseKey(object.body.issuer)]
    default:
      return undefined
  }
}
