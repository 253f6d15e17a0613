/** A store over a memory store that fails, stalls or dies when the test says so. */
import { SlicenetError } from '../../src/base/errors.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import type { Entry, Store } from '../../src/store/store.ts'

export type Fault =
  /** This commit fails and is not kept; later ones work. */
  | 'fail'
  /** The process dies before this commit is kept: nothing works afterwards. */
  | 'die-before'
  /** The process dies after this commit is kept, before anybody hears of it. */
  | 'die-after'

export class FaultyStore implements Store {
  /** What is on the disk: it outlives the process. */
  readonly disk: MemoryStore
  /** Commits so far, those that failed included. */
  commits = 0
  #faults = new Map<number, Fault>()
  #dead = false
  /** Awaited by each commit before it is kept. */
  gate: Promise<void> | undefined

  constructor(disk = new MemoryStore()) {
    this.disk = disk
  }

  static async open(disk?: MemoryStore): Promise<FaultyStore> {
    const store = new FaultyStore(disk)
    await store.start()
    return store
  }

  /** The fault of the `ahead`-th commit from now, 1 being the next. */
  plan(ahead: number, fault: Fault): void {
    this.#faults.set(this.commits + ahead, fault)
  }

  get isDead(): boolean {
    return this.#dead
  }

  start(): Promise<void> {
    return this.disk.start()
  }

  async stop(): Promise<void> {}

  async commit(entries: readonly Entry[]): Promise<void> {
    this.commits += 1
    const fault = this.#faults.get(this.commits)
    this.#check()
    await this.gate
    if (fault === 'die-before') this.#dead = true
    if (fault === 'fail') throw new SlicenetError('STORE_FAILED', 'this commit was to fail')
    this.#check()
    await this.disk.commit(entries)
    if (fault === 'die-after') this.#dead = true
    this.#check()
  }

  get(table: string, key: string): Promise<Uint8Array | undefined> {
    this.#check()
    return this.disk.get(table, key)
  }

  iterate(table: string): AsyncIterable<readonly [key: string, value: Uint8Array]> {
    this.#check()
    return this.disk.iterate(table)
  }

  #check(): void {
    if (this.#dead) throw new SlicenetError('STORE_FAILED', 'the process died')
  }
}
