/**
 * The leases of a node and the tickets redeemed for them, in memory and in the store. A redemption is written before
 * its virtual machine is made, so that a crash at any point leaves either nothing acknowledged or a lease that is
 * found again.
 */
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { VserverSpec } from '../enforce/enforcer.ts'
import { leaseObject, type Lease } from '../ticket/lease.ts'
import { principalSchema, type Principal } from '../ticket/principal.ts'
import { portsOverlap, type PortRange } from '../ticket/ports.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { amountSchema, idSchema, timeSchema } from '../ticket/signed-object.ts'
import { lineOf, ticketObject } from '../ticket/ticket.ts'
import { sshKeysSchema } from '../ticket/redeem.ts'
import { byteString, cborCodec } from '../wire/codec.ts'
import type { Entry, Store } from '../store/store.ts'
import { Leased } from './leased.ts'
import type { SteadyClock } from './steady-clock.ts'

/**
 * `making`: written, not acknowledged; its virtual machine may be there. `active`: acknowledged. `renewed`: another lease
 * has its virtual machine. `ending`: its end is decided, its virtual machine may still run and its resources still
 * count. `ended`: gone.
 */
const STATES = ['making', 'active', 'renewed', 'ending', 'ended'] as const
export type LeaseState = (typeof STATES)[number]

export interface LeaseRecord {
  readonly lease: Signed<Lease>
  readonly state: LeaseState
  /** The nonce of the redemption, in hex: the same one asks for the same lease. */
  readonly nonce: string
  readonly keys: readonly string[]
  /** UTC ms until which the ticket could be presented again; the record outlives it. */
  readonly redeemBefore: number
  /** Holder of the delegation that its chain began with. */
  readonly agent: Principal
  /** Ids of the tickets of its chain, the redeemed one last. */
  readonly tickets: readonly string[]
  /** Envelopes of its chain, the delegation first. */
  readonly chain: readonly Uint8Array[]
  /** The line of the redeemed ticket: no other of it is good for a lease of its own. */
  readonly line: string
  /** Envelope by which its holder gave it up before its end. */
  readonly surrender?: Uint8Array
}

const objectBytes = byteString(1, LIMITS.objectBytesMax)
const recordCodec = cborCodec(
  v.strictObject({
    lease: objectBytes,
    state: v.picklist(STATES),
    nonce: v.pipe(v.string(), v.length(32)),
    keys: sshKeysSchema,
    redeemBefore: timeSchema,
    agent: principalSchema,
    tickets: v.pipe(v.array(idSchema), v.minLength(1), v.maxLength(LIMITS.chainLinksMax)),
    chain: v.pipe(v.array(objectBytes), v.minLength(2), v.maxLength(LIMITS.chainLinksMax + 1)),
    line: v.pipe(v.string(), v.maxLength(512)),
    surrender: v.exactOptional(objectBytes)
  }),
  { bytesMax: (LIMITS.chainLinksMax + 8) * LIMITS.objectBytesMax, depthMax: 4 }
)
const cancelledCodec = cborCodec(v.strictObject({ redeemBefore: timeSchema, isForeign: v.boolean() }))
const highWaterCodec = cborCodec(amountSchema)

/** Keyed by ticket: a ticket is redeemed at most once, so it names the lease as well as the lease's own id does. */
const LEASES = 'node-leases'
const CANCELLED = 'node-cancelled-tickets'
const STATE = 'node-state'
const HIGH_WATER = 'high-water'
const LEASE_SEQ = 'lease-seq'

interface Cancelled {
  /** UTC ms after which nobody would ask. */
  readonly redeemBefore: number
  /** Whether this node delegated nothing to its issuer. */
  readonly isForeign: boolean
}

export class LeaseTable {
  /** What the leases that hold resources take. */
  readonly leased = new Leased()
  readonly #store: Store
  readonly #byTicket = new Map<string, LeaseRecord>()
  readonly #ticketOfLease = new Map<string, string>()
  /** Ids of tickets by line. */
  readonly #byLine = new Map<string, Set<string>>()
  readonly #surrendered = new Set<LeaseRecord>()
  #leaseSeq = 0
  /** Ticket ids that may never be redeemed, with the time after which nobody would ask. */
  readonly #cancelled = new Map<string, Cancelled>()
  #foreignCancelled = 0
  /** Those that are about to be, until that is durable. */
  readonly #cancelling = new Map<string, Promise<void>>()

  private constructor(store: Store) {
    this.#store = store
  }

  /** Reads the table, and the high-water time that an earlier run wrote down. */
  static async open(store: Store): Promise<{ table: LeaseTable; highWater: number }> {
    const table = new LeaseTable(store)
    for await (const [, bytes] of store.iterate(LEASES)) {
      const { lease, ...rest } = recordCodec.decode(bytes)
      table.#keep({ lease: leaseObject.open(lease), ...rest })
    }
    for await (const [ticket, bytes] of store.iterate(CANCELLED)) {
      table.#bar(ticket, cancelledCodec.decode(bytes))
    }
    const seq = await store.get(STATE, LEASE_SEQ)
    table.#leaseSeq = seq === undefined ? 0 : highWaterCodec.decode(seq)
    const mark = await store.get(STATE, HIGH_WATER)
    return { table, highWater: mark === undefined ? 0 : highWaterCodec.decode(mark) }
  }

  ofTicket(ticket: string): LeaseRecord | undefined {
    return this.#byTicket.get(ticket)
  }

  ofLease(lease: string): LeaseRecord | undefined {
    const ticket = this.#ticketOfLease.get(lease)
    return ticket === undefined ? undefined : this.#byTicket.get(ticket)
  }

  /** The lease that has the virtual machine of `lease` now: itself, or the last that renewed it. */
  current(lease: string): LeaseRecord | undefined {
    const record = this.ofLease(lease)
    return record?.state === 'renewed' ? this.ofLine(record.line).at(-1) : record
  }

  /** Leases of the tickets of one line, the newest last. */
  ofLine(line: string): LeaseRecord[] {
    return [...(this.#byLine.get(line) ?? [])]
      .flatMap((ticket) => this.#byTicket.get(ticket) ?? [])
      .sort((a, b) => a.lease.body.seq - b.lease.body.seq)
  }

  all(): LeaseRecord[] {
    return [...this.#byTicket.values()]
  }

  /** Those that hold resources now. */
  holding(): LeaseRecord[] {
    return this.all().filter(holds)
  }

  /** Envelopes of the surrenders of leases that would still have some of these ports by what was signed. */
  surrendered(ports: readonly PortRange[], now: number): Uint8Array[] {
    return [...this.#surrendered].flatMap(({ lease: { body }, surrender }) =>
      surrender !== undefined && body.notAfter > now && portsOverlap(body.ports, ports) ? [surrender] : []
    )
  }

  /** For the next lease. No two that leave the house have the same: the last is durable with each. */
  nextSeq(now: number): number {
    this.#leaseSeq = Math.max(this.#leaseSeq + 1, now)
    return this.#leaseSeq
  }

  /** Ids of the tickets of an agent's that hold leases now, each the first of its chain. */
  leasedTo(agent: Principal): string[] {
    const ofAgent = this.holding().filter((record) => record.agent === agent)
    return [...new Set(ofAgent.flatMap(({ tickets }) => tickets.slice(0, 1)))]
  }

  /** Leases of a ticket and of those that were cut from it. */
  under(ticket: string): LeaseRecord[] {
    return this.all().filter(({ tickets }) => tickets.includes(ticket))
  }

  isCancelled(ticket: string): boolean {
    return this.#cancelled.has(ticket) || this.#cancelling.has(ticket)
  }

  /** Takes the resources at once; resolves when the record is durable. On failure nothing is taken. */
  async put(record: LeaseRecord, clock: SteadyClock): Promise<void> {
    const before = this.#byTicket.get(record.lease.body.ticket)
    this.#keep(record)
    try {
      await this.#store.commit([this.#entry(record), this.#seqEntry(), highWaterEntry(clock)])
    } catch (error) {
      // Unless somebody wrote after it: what is newest stands.
      if (this.#byTicket.get(record.lease.body.ticket) === record) {
        if (before === undefined) this.#drop(record)
        else this.#keep(before)
      }
      throw error
    }
  }

  /** Puts `next` in the place of `old`, whose virtual machine it takes over: both or neither, and at once. */
  async renew(old: LeaseRecord, next: LeaseRecord, clock: SteadyClock): Promise<void> {
    const renewed: LeaseRecord = { ...old, state: 'renewed' }
    this.#keep(renewed)
    this.#keep(next)
    const entries = [this.#entry(renewed), this.#entry(next), this.#seqEntry(), highWaterEntry(clock)]
    try {
      await this.#store.commit(entries)
    } catch (error) {
      if (this.#byTicket.get(next.lease.body.ticket) === next) this.#drop(next)
      if (this.#byTicket.get(old.lease.body.ticket) === renewed) this.#keep(old)
      throw error
    }
  }

  /** Forgets a redemption that was never acknowledged, so that its ticket may be redeemed again. */
  async withdraw(record: LeaseRecord): Promise<void> {
    await this.#store.commit([{ table: LEASES, key: record.lease.body.ticket, value: null }])
    this.#drop(record)
  }

  /** Bars a ticket at once; resolves when that is durable. On failure it may be redeemed as before. */
  async cancel(ticket: string, until: Cancelled): Promise<void> {
    if (this.#cancelled.has(ticket)) return
    if (until.isForeign && this.#foreignCancelled >= LIMITS.foreignTicketsBarredMax) {
      throw new SlicenetError('QUOTA_EXCEEDED', 'too many tickets of strangers are barred already')
    }
    const running = this.#cancelling.get(ticket) ?? this.#writeCancelled(ticket, until)
    this.#cancelling.set(ticket, running)
    await running
  }

  async #writeCancelled(ticket: string, until: Cancelled): Promise<void> {
    try {
      await this.#store.commit([{ table: CANCELLED, key: ticket, value: cancelledCodec.encode(until) }])
      this.#bar(ticket, until)
    } finally {
      this.#cancelling.delete(ticket)
    }
  }

  #bar(ticket: string, until: Cancelled): void {
    this.#cancelled.set(ticket, until)
    if (until.isForeign) this.#foreignCancelled += 1
  }

  /** Writes the time down, and forgets what ended so long ago that its ticket can no longer be presented. */
  async tidy(clock: SteadyClock): Promise<void> {
    const now = clock.now()
    // Who never heard of a renewal knows the virtual machine by the lease before it alone.
    const named = new Set(this.holding().map(({ lease }) => lease.body.prev))
    const old = this.all().filter(
      ({ state, redeemBefore, lease }) =>
        (state === 'ended' || (state === 'renewed' && !named.has(lease.id))) &&
        redeemBefore <= now &&
        lease.body.notAfter <= now
    )
    const lapsed = [...this.#cancelled].filter(([, { redeemBefore }]) => redeemBefore <= now)
    await this.#store.commit([
      highWaterEntry(clock),
      ...old.map(({ lease }) => ({ table: LEASES, key: lease.body.ticket, value: null })),
      ...lapsed.map(([ticket]) => ({ table: CANCELLED, key: ticket, value: null }))
    ])
    for (const record of old) this.#drop(record)
    for (const [ticket, { isForeign }] of lapsed) {
      if (this.#cancelled.delete(ticket) && isForeign) this.#foreignCancelled -= 1
    }
  }

  #entry({ lease, ...rest }: LeaseRecord): Entry {
    const { keys, tickets, chain } = rest
    const lists = { keys: [...keys], tickets: [...tickets], chain: [...chain] }
    const value = recordCodec.encode({ lease: lease.bytes, ...rest, ...lists })
    return { table: LEASES, key: lease.body.ticket, value }
  }

  #seqEntry(): Entry {
    return { table: STATE, key: LEASE_SEQ, value: highWaterCodec.encode(this.#leaseSeq) }
  }

  #keep(record: LeaseRecord): void {
    const { lease, agent, line } = record
    const { ticket, notBefore, notAfter, resources, ports, vserver } = lease.body
    const before = this.#byTicket.get(ticket)
    if (before !== undefined) this.#surrendered.delete(before)
    this.#byTicket.set(ticket, record)
    this.#ticketOfLease.set(lease.id, ticket)
    const ofLine = this.#byLine.get(line) ?? new Set<string>()
    this.#byLine.set(line, ofLine.add(ticket))
    if (record.surrender !== undefined && ports.length > 0) this.#surrendered.add(record)
    if (!holds(record)) this.leased.delete(ticket)
    else if (before?.lease !== lease || !holds(before)) {
      this.leased.set(ticket, { notBefore, resources, ports, vserver, agent, lines: linesOf(record) })
    }
    if (lingers(record)) this.leased.linger(ticket, { notBefore, notAfter, ports })
  }

  #drop(record: LeaseRecord): void {
    const { lease, line } = record
    this.#surrendered.delete(record)
    this.#byTicket.delete(lease.body.ticket)
    this.#ticketOfLease.delete(lease.id)
    this.leased.delete(lease.body.ticket)
    const ofLine = this.#byLine.get(line)
    ofLine?.delete(lease.body.ticket)
    if (ofLine?.size === 0) this.#byLine.delete(line)
  }
}

/** Those of the tickets that the redeemed one was cut from, and its own last. */
function linesOf({ chain, line }: LeaseRecord): string[] {
  return [...chain.slice(1, -1).map((bytes) => lineOf(ticketObject.decode(bytes))), line]
}

/** Whether a lease takes resources: it does until its virtual machine is gone, also when its term is over. */
function holds({ state }: LeaseRecord): boolean {
  return state !== 'ended' && state !== 'renewed'
}

/**
 * Whether a lease keeps its ports alone: it ended early, but not by its holder's word, and what was signed says that
 * they are its own.
 */
function lingers({ state, lease, surrender }: LeaseRecord): boolean {
  return state === 'ended' && surrender === undefined && lease.body.ports.length > 0
}

function highWaterEntry(clock: SteadyClock): Entry {
  return { table: STATE, key: HIGH_WATER, value: highWaterCodec.encode(clock.now()) }
}

/** What the monitor must know of a lease. */
export function specOf({ lease, keys }: Pick<LeaseRecord, 'lease' | 'keys'>): VserverSpec {
  const { vserver, slice, image, resources, ports, rights, shaping } = lease.body
  const spec = { id: vserver, slice, image, resources, ports, rights, keys }
  return shaping === undefined ? spec : { ...spec, shaping }
}
