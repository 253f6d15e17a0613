/**
 * The node manager (paper §2.2, §4.2.3): turns tickets into leases under admission control, has the virtual machines
 * made and ended, and after a restart brings what runs in line with what is leased.
 */
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { Enforcer } from '../enforce/enforcer.ts'
import type { Store } from '../store/store.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { subtractResources, type Resources } from '../ticket/resources.ts'
import { LeaseTable, specOf, type LeaseRecord } from './lease-table.ts'
import { Redemption, type RedemptionInit } from './redemption.ts'
import { SteadyClock } from './steady-clock.ts'

export interface NodeManagerComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly enforcer: Enforcer
  readonly clock: Clock
  readonly logger: Logger
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
  #open: { table: LeaseTable; clock: SteadyClock; redemption: Redemption } | undefined

  constructor(components: NodeManagerComponents, init: RedemptionInit) {
    this.#components = components
    this.#init = init
  }

  /** Reads the leases, sweeps what is not leased and makes again what is leased and gone. */
  async start(): Promise<void> {
    if (this.#open !== undefined) return
    const { store, clock, logger, enforcer, key } = this.#components
    const { table, highWater } = await LeaseTable.open(store)
    const steady = new SteadyClock(clock, highWater)
    const redemption = new Redemption({ key, table, clock: steady, enforcer, logger }, this.#init)
    this.#open = { table, clock: steady, redemption }
    await this.#reconcile()
    const onError = (error: unknown): void => logger.error('lease keeping failed', { error })
    this.#loops.push(
      repeat(() => this.#expire(), { clock, onError }, { intervalMs: EXPIRY_INTERVAL_MS }),
      repeat(
        () => table.tidy(steady),
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

  get #state(): { table: LeaseTable; clock: SteadyClock; redemption: Redemption } {
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
    const record = this.table.ofLease(lease)
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
  async end(record: LeaseRecord, why: string): Promise<void> {
    const { id } = record.lease
    await this.#once(id, () => this.#end(id, why))
  }

  async #once(key: string, work: () => Promise<void>): Promise<void> {
    const running = this.#endings.get(key) ?? work().finally(() => this.#endings.delete(key))
    this.#endings.set(key, running)
    await running
  }

  async #end(lease: string, why: string): Promise<void> {
    const { table, clock } = this.#state
    const { enforcer, logger } = this.#components
    const current = table.ofLease(lease)
    if (current === undefined || current.state === 'ended') return
    if (current.state !== 'ending') await table.put({ ...current, state: 'ending' }, clock)
    await enforcer.destroy(current.lease.body.vserver)
    await table.put({ ...current, state: 'ended' }, clock)
    logger.info('lease ended', { lease: current.lease.id, why })
    this.changed()
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
      } else if (state === 'making' && !redemption.isUnderWay(lease.body.ticket)) {
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
