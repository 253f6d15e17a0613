/**
 * The node manager (paper §2.2, §4.2.3): turns tickets into leases under admission control, has the virtual machines
 * made and ended, and after a restart brings what runs in line with what is leased.
 */
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Enforcer } from '../enforce/enforcer.ts'
import type { TicketState } from '../protocol/node-protocol.ts'
import type { Store } from '../store/store.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { subtractResources, type Resources } from '../ticket/resources.ts'
import { revocationObject, type Revocation } from '../ticket/revocation.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { surrenderObject, type Surrender } from '../ticket/surrender.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import { subjectOf } from './audit-trail.ts'
import { LeaseTable, specOf, type LeaseRecord } from './lease-table.ts'
import { openLinks, type ChainBytes } from './demand.ts'
import {
  Redemption,
  type DelegationRules,
  type RedemptionComponents,
  type RedemptionInit
} from './redemption.ts'
import { RevocationList } from './revocation-list.ts'
import { settleTicket } from './settlement.ts'
import { SteadyClock } from './steady-clock.ts'

export interface NodeManagerComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly enforcer: Enforcer
  readonly clock: Clock
  readonly logger: Logger
  readonly delegations: DelegationRules
  readonly observe: RedemptionComponents['observe']
  readonly obtainImage?: NonNullable<RedemptionComponents['obtainImage']>
  readonly audit?: NonNullable<RedemptionComponents['audit']>
}

/** What there is while the manager runs. */
interface Open {
  readonly table: LeaseTable
  readonly clock: SteadyClock
  readonly revocations: RevocationList
  readonly redemption: Redemption
}

const EXPIRY_INTERVAL_MS = 500
const TIDY_INTERVAL_MS = 60_000

export class NodeManager implements Startable {
  readonly #components: NodeManagerComponents
  readonly #init: RedemptionInit
  readonly #loops: { stop(): Promise<void> }[] = []
  readonly #listeners = new Set<() => void>()
  /** What is being ended, by lease or virtual machine, so that nothing is ended twice at a time or makes others wait. */
  readonly #endings = new Map<string, Promise<void>>()
  /** Virtual machines without a lease that could not be destroyed yet. */
  readonly #strays = new Set<string>()
  #open: Open | undefined

  constructor(components: NodeManagerComponents, init: RedemptionInit) {
    this.#components = components
    this.#init = init
  }

  /** Reads the leases, sweeps what is not leased and makes again what is leased and gone. */
  async start(): Promise<void> {
    if (this.#open !== undefined) return
    const { store, clock, logger, key } = this.#components
    const { table, highWater } = await LeaseTable.open(store)
    const steady = new SteadyClock(clock, highWater)
    const revocations = await RevocationList.open(store, key.principal)
    const parts = { ...this.#components, table, clock: steady, revocations }
    this.#open = { ...parts, redemption: new Redemption(parts, this.#init) }
    this.#rememberPresented()
    await this.#reconcile()
    const onError = (error: unknown): void => logger.error('lease keeping failed', { error })
    this.#loops.push(
      repeat(() => this.#expire(), { clock, onError }, { intervalMs: EXPIRY_INTERVAL_MS }),
      repeat(
        () => this.#tidy(),
        { clock, onError },
        { intervalMs: TIDY_INTERVAL_MS, initialDelayMs: TIDY_INTERVAL_MS }
      )
    )
  }

  /** Stops keeping leases; the virtual machines run on. */
  async stop(): Promise<void> {
    await Promise.all(this.#loops.splice(0).map((loop) => loop.stop()))
    await Promise.allSettled(this.#endings.values())
    this.#open = undefined
  }

  get #state(): Open {
    if (this.#open === undefined) throw new SlicenetError('BUSY', 'the node manager is not running')
    return this.#open
  }

  get redemption(): Redemption {
    return this.#state.redemption
  }

  get table(): LeaseTable {
    return this.#state.table
  }

  /** UTC ms by the node's own time. */
  now(): number {
    return this.#state.clock.now()
  }

  /** What no lease holds now. */
  free(): Resources {
    const now = this.now()
    const held = this.table.leased.all.peak({ notBefore: now, notAfter: now + 1 })
    return subtractResources(this.#init.capacity, held)
  }

  /** Calls back whenever a lease was made or ended. Gives the function that ends it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  changed(): void {
    for (const listener of this.#listeners) listener()
  }

  /**
   * The record of a lease in force that `principal` holds. Throws `LEASE_NOT_HELD` for anybody else's and for unknown
   * ones alike, and `LEASE_EXPIRED`.
   */
  held(lease: string, principal: Principal | undefined): LeaseRecord {
    const record = this.table.current(lease)
    if (record === undefined || record.lease.body.holder !== principal || record.state === 'making') {
      throw new SlicenetError('LEASE_NOT_HELD', `no lease ${lease} of yours is on this node`)
    }
    if (record.state !== 'active' || record.lease.body.notAfter <= this.now()) {
      throw new SlicenetError('LEASE_EXPIRED', 'this lease has ended')
    }
    return record
  }

  /** Remembers the lines of `authorized_keys`, for when the virtual machine is made again. */
  async setKeys(record: LeaseRecord, keys: readonly string[]): Promise<void> {
    await this.table.put({ ...record, keys }, this.#state.clock)
  }

  /** Ends a lease: durable first, then the virtual machine goes, then its resources are free. Idempotent. */
  async end(record: LeaseRecord, why: string, surrender?: Signed<Surrender>): Promise<void> {
    const { id } = record.lease
    await this.#once(id, () => this.#end(id, why, surrender))
  }

  /**
   * Ends a lease by the word of its holder. Throws `LEASE_NOT_HELD` for anybody else's, `DENIED` when the surrender is of
   * something else.
   */
  async surrender(lease: string, bytes: Uint8Array, principal: Principal): Promise<void> {
    const record = this.table.current(lease)
    if (record === undefined || record.lease.body.holder !== principal) {
      throw new SlicenetError('LEASE_NOT_HELD', `no lease ${lease} of yours is on this node`)
    }
    const surrender = surrenderObject.open(bytes)
    const { issuer, node, vserver } = surrender.body
    const { body } = record.lease
    if (issuer !== principal || node !== body.issuer || vserver !== body.vserver) {
      throw new SlicenetError('DENIED', 'this surrender is not of the lease that is to be deleted')
    }
    await this.end(record, 'its holder gave it up', surrender)
  }

  /** What became of a ticket; see `settleTicket`. */
  async settle(bytes: Uint8Array, caller: Principal, cancel: boolean): Promise<TicketState> {
    const { table, clock } = this.#state
    const { key, delegations } = this.#components
    const components = {
      table,
      clock,
      node: key.principal,
      isAgent: (issuer: Principal) => delegations.isAgent(issuer),
      onFreed: (ticket: Signed<Ticket>) => delegations.freed(ticket)
    }
    return settleTicket(components, bytes, { caller, cancel })
  }

  /** Whether no lease can come of a ticket any more, and none of it is in force. */
  isOver({ id, body }: Signed<Ticket>): boolean {
    const leases = this.table.under(id)
    if (leases.some(({ state }) => state !== 'ended' && state !== 'renewed')) return false
    return (
      this.table.ofTicket(id) !== undefined || this.table.isCancelled(id) || body.redeemBefore <= this.now()
    )
  }

  /** Takes a revocation with the chain that its signer has a say in. Throws as `RevocationList.add`. */
  async revoke(revocation: Uint8Array, chain: ChainBytes): Promise<void> {
    const { revocations, clock } = this.#state
    await revocations.add(revocationObject.open(revocation), openLinks(chain), clock.now())
  }

  /**
   * Takes what is named no more, nor anything cut from it, whoever issued it: a node stands at the top of every chain.
   * Throws `QUOTA_EXCEEDED`.
   */
  async revokeHere(target: Revocation['target']): Promise<Signed<Revocation>> {
    const { revocations, clock } = this.#state
    const { key } = this.#components
    const now = clock.now()
    const interval = { notBefore: now, notAfter: now + LIMITS.leaseMsMax }
    const body = { issuer: key.principal, ...interval, seq: now, node: key.principal, target }
    const revocation = revocationObject.sign(body, key)
    await revocations.add(revocation, undefined, now)
    return revocation
  }

  async #once(key: string, work: () => Promise<void>): Promise<void> {
    const running = this.#endings.get(key) ?? work().finally(() => this.#endings.delete(key))
    this.#endings.set(key, running)
    await running
  }

  async #end(lease: string, why: string, surrender?: Signed<Surrender>): Promise<void> {
    const { table, clock } = this.#state
    const { enforcer, logger, audit } = this.#components
    const current = table.ofLease(lease)
    if (current === undefined || current.state === 'ended' || current.state === 'renewed') return
    const ending = surrender === undefined ? current : { ...current, surrender: surrender.bytes }
    if (current.state !== 'ending') await table.put({ ...ending, state: 'ending' }, clock)
    // Whatever becomes of the note, a lease that is over ends.
    await audit?.note(subjectOf(current), 'end', 'begins', { why }).catch(() => {})
    await enforcer.destroy(current.lease.body.vserver)
    await table.put({ ...ending, state: 'ended' }, clock)
    await audit?.note(subjectOf(current), 'end', 'done', { why }).catch(() => {})
    logger.info('lease ended', { lease: current.lease.id, why })
    this.#freed(current)
    this.changed()
  }

  /** Tells the delegations of an end before its time: the agent may issue again what the ticket had. */
  #freed({ lease, chain }: LeaseRecord): void {
    const [, first] = chain
    if (first === undefined || lease.body.notAfter <= this.now()) return
    this.#components.delegations.freed(ticketObject.open(first))
  }

  /** What was presented before a restart counts together with what is presented after it. */
  #rememberPresented(): void {
    const { observe } = this.#components
    for (const { chain } of this.table.all()) {
      const { delegation, tickets } = openLinks({
        delegation: chain[0] ?? new Uint8Array(),
        tickets: chain.slice(1)
      })
      observe({ type: 'delegation', object: delegation })
      for (const ticket of tickets) observe({ type: 'ticket', object: ticket })
    }
  }

  async #tidy(): Promise<void> {
    const { table, clock, revocations } = this.#state
    await table.tidy(clock)
    await revocations.tidy(clock.now())
  }

  /** Begins to end what is over, and what could not be ended or taken back before. */
  async #expire(): Promise<void> {
    const now = this.now()
    const { table, redemption } = this.#state
    for (const record of table.holding()) {
      const { lease, state } = record
      if (state === 'ending' || (state === 'active' && lease.body.notAfter <= now)) {
        this.end(record, 'its term is over').catch((error: unknown) =>
          this.#components.logger.error('a lease could not be ended', { lease: lease.id, error })
        )
      } else if (state === 'making' && !redemption.isUnderWay(record.line)) {
        void this.#once(lease.id, async () => void (await redemption.takeBack(record)))
      }
    }
    for (const vserver of this.#strays) void this.#once(vserver, () => this.#sweep(vserver))
  }

  async #sweep(vserver: string): Promise<void> {
    const { enforcer, logger } = this.#components
    try {
      await enforcer.destroy(vserver)
      this.#strays.delete(vserver)
    } catch (error) {
      logger.error('a virtual machine without a lease could not be destroyed yet', { vserver, error })
    }
  }

  /** What was never acknowledged is taken back; what runs without a lease goes; what is leased and gone comes back. */
  async #reconcile(): Promise<void> {
    const { table } = this.#state
    const { enforcer, logger } = this.#components
    const running = await enforcer.list()
    const leased = new Set(table.holding().map(({ lease }) => lease.body.vserver))
    for (const { id } of running) {
      if (leased.has(id)) continue
      logger.warn('a virtual machine without a lease is destroyed', { vserver: id })
      this.#strays.add(id)
    }
    await this.#expire()
    await Promise.allSettled(this.#endings.values())
    const alive = new Set(running.filter(({ state }) => state !== 'failed').map(({ id }) => id))
    const gone = table
      .all()
      .filter(({ state, lease }) => state === 'active' && !alive.has(lease.body.vserver))
    await Promise.all(gone.map((record) => this.#makeAgain(record)))
  }

  async #makeAgain(record: LeaseRecord): Promise<void> {
    const { enforcer, logger } = this.#components
    const { vserver } = record.lease.body
    logger.warn('a leased virtual machine is made again', { vserver, lease: record.lease.id })
    try {
      await enforcer.create(specOf(record))
    } catch (error) {
      // The lease stays: its holder sees `failed` and decides.
      logger.error('a leased virtual machine could not be made again', {
        vserver,
        error: asSlicenetError(error)
      })
    }
  }
}
