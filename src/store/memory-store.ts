/** A store that keeps its tables in memory, for unit tests: the same contract, but for outliving the process. */
import { SlicenetError } from '../base/errors.ts'
import { checkKey, checkTable, copyEntries } from './entries.ts'
import type { Entry, Store } from './store.ts'

/** What was committed is there again after a stop and a start, as it is with a store on disk. */
export class MemoryStore implements Store {
  readonly #tables = new Map<string, Map<string, Uint8Array>>()
  #running = false

  async start(): Promise<void> {
    this.#running = true
  }

  async stop(): Promise<void> {
    this.#running = false
  }

  async commit(entries: readonly Entry[]): Promise<void> {
    this.#check()
    for (const { table, key, value } of copyEntries(entries)) {
      const rows = this.#tables.get(table) ?? new Map<string, Uint8Array>()
      this.#tables.set(table, rows)
      if (value === null) rows.delete(key)
      else rows.set(key, value)
    }
  }

  async get(table: string, key: string): Promise<Uint8Array | undefined> {
    checkTable(table)
    checkKey(key)
    this.#check()
    const value = this.#tables.get(table)?.get(key)
    return value === undefined ? undefined : Uint8Array.from(value)
  }

  async *iterate(
    table: string,
    options: { readonly signal?: AbortSignal } = {}
  ): AsyncGenerator<readonly [key: string, value: Uint8Array]> {
    checkTable(table)
    this.#check()
    // Strings compare by UTF-16 units, a store on disk by bytes.
    const rows = [...(this.#tables.get(table) ?? [])]
      .map(([key, value]) => [key, Uint8Array.from(value)] as const)
      .sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    for (const row of rows) {
      options.signal?.throwIfAborted()
      this.#check()
      yield row
    }
    options.signal?.throwIfAborted()
  }

  #check(): void {
    if (!this.#running) throw new SlicenetError('STORE_FAILED', 'the store is not running')
  }
}
