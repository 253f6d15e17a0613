/**
 * A simulated disk and the store over it: a commit is kept some time after the call and heard of later still, in the
 * order of the calls; the process may die in between, and what was not kept by then never is.
 */
import { SlicenetError } from '../../src/base/errors.ts'
import { copyEntries } from '../../src/store/entries.ts'
import type { Entry, Store } from '../../src/store/store.ts'
import type { Process } from './host.ts'

/** What outlives processes: rows by table and key. */
export class Disk {
  readonly #tables = new Map<string, Map<string, Uint8Array>>()

  keep(entries: readonly Entry[]): void {
    for (const { table, key, value } of entries) {
      const rows = this.#tables.get(table) ?? new Map<string, Uint8Array>()
      this.#tables.set(table, rows)
      if (value === null) rows.delete(key)
      else rows.set(key, value)
    }
  }

  get(table: string, key: string): Uint8Array | undefined {
    return this.#tables.get(table)?.get(key)
  }

  /** In the order of their keys, which are plain ASCII here. */
  rows(table: string): [key: string, value: Uint8Array][] {
    return [...(this.#tables.get(table) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))
  }
}

/** A store with a mechanism taken out: it says that a commit is kept before it is. */
export type StoreFlaw = 'acknowledges-early'

export class SimulatedStore implements Store {
  readonly #process: Process
  readonly #disk: Disk
  readonly #flaw: StoreFlaw | undefined
  /** When the commit before is kept and heard of. */
  #keptAt = 0
  #heardAt = 0
  #hasFailed = false

  constructor(process: Process, disk: Disk, flaw?: StoreFlaw) {
    this.#process = process
    this.#disk = disk
    this.#flaw = flaw
  }

  get hasFailed(): boolean {
    return this.#hasFailed
  }

  async start(): Promise<void> {}

  async stop(): Promise<void> {}

  async commit(entries: readonly Entry[]): Promise<void> {
    const { host } = this.#process
    const { scheduler, chance, faults } = host.world
    this.#check()
    const copies = copyEntries(entries)
    host.isChanged = true
    const isLate = this.#flaw === 'acknowledges-early'
    this.#keptAt = Math.max(this.#keptAt, scheduler.now + chance.between(1, isLate ? 3000 : 12))
    this.#heardAt = Math.max(this.#heardAt, isLate ? scheduler.now : this.#keptAt + chance.between(0, 4))
    const keptIn = this.#keptAt - scheduler.now
    const heardIn = this.#heardAt - scheduler.now
    if (faults.strikes('store-failure')) return this.#fail(copies, keptIn)
    const diesBefore = faults.strikes('crash-before-durable')
    const diesAfter = !diesBefore && faults.strikes('crash-after-durable')
    this.#process.after(keptIn, () => {
      if (diesBefore) return host.crash('before a commit is kept')
      if (this.#hasFailed) return
      this.#disk.keep(copies)
      host.isChanged = true
      if (diesAfter) host.crash('after a commit was kept')
    })
    await this.#pass(heardIn)
    this.#check()
  }

  async get(table: string, key: string): Promise<Uint8Array | undefined> {
    await this.#read()
    const value = this.#disk.get(table, key)
    return value === undefined ? undefined : Uint8Array.from(value)
  }

  async *iterate(table: string): AsyncGenerator<readonly [key: string, value: Uint8Array]> {
    await this.#read()
    for (const [key, value] of this.#disk.rows(table)) yield [key, Uint8Array.from(value)]
  }

  /** The administrator starts the host anew before long. */
  async #fail(entries: readonly Entry[], keptIn: number): Promise<void> {
    const { host } = this.#process
    const { chance } = host.world
    const isKept = chance.happens(500)
    await this.#pass(keptIn)
    if (isKept && !this.#hasFailed) this.#disk.keep(entries)
    this.#hasFailed = true
    this.#process.after(chance.between(500, 10_000), () => host.crash('its disk failed'))
    throw new SlicenetError('STORE_FAILED', 'the disk failed')
  }

  async #read(): Promise<void> {
    const { host } = this.#process
    this.#check()
    const dies = host.world.faults.strikes('crash-while-reading')
    await this.#pass(host.world.chance.between(0, 5))
    if (dies) {
      host.crash('while it reads a table')
      await new Promise(() => {})
    }
    this.#check()
  }

  async #pass(ms: number): Promise<void> {
    await new Promise<void>((resolve) => this.#process.after(ms, resolve))
  }

  #check(): void {
    if (this.#hasFailed) throw new SlicenetError('STORE_FAILED', 'the disk failed before')
  }
}
