/** The crash-safe store (design §6): commits go to the journal, synced in groups, and from there into the tables. */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { Compaction } from './compaction.ts'
import { asStoreFailure, makeDirectory, systemDisk, type Disk } from './disk.ts'
import { DirectoryLock } from './directory-lock.ts'
import { checkKey, checkTable, copyEntries, decodeEntries, encodeEntries } from './entries.ts'
import { Journal } from './journal.ts'
import { layoutOf } from './layout.ts'
import { GENESIS } from './record.ts'
import type { Entry, Store } from './store.ts'
import { Tables } from './tables.ts'
import { seal } from './tables-seal.ts'

export interface DiskStoreComponents {
  readonly clock: Clock
  readonly logger: Logger
  /** Default: the system's. */
  readonly disk?: Disk
}

export interface DiskStoreInit {
  /** Made if need be, with mode 0700. It must be on a file system that syncs when told to. */
  readonly directory: string
  /** Default 64 MiB. */
  readonly segmentBytesMax?: number
  /** A journal of fewer bytes is not compacted. Default 64 MiB. */
  readonly compactionBytesMin?: number
}

/**
 * A store in a directory. Starting it throws `STORE_LOCKED` with the owner's process id while another process has it
 * open, `STORE_CORRUPT` when something acknowledged is lost or may be, and `STORE_FAILED` when the disk fails.
 */
export function createStore(components: DiskStoreComponents, init: DiskStoreInit): Store & AsyncDisposable {
  return new DiskStore(components, init)
}

interface Pending {
  readonly payload: Uint8Array
  readonly entries: readonly Entry[]
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/** What a started store holds. */
interface Opened {
  readonly lock: DirectoryLock
  readonly journal: Journal
  readonly tables: Tables
  readonly compaction: Compaction
}

class DiskStore implements Store, AsyncDisposable {
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #disk: Disk
  readonly #init: DiskStoreInit
  /** Starts and stops follow each other in the order they were asked for. */
  #transition: Promise<void> = Promise.resolve()
  #opened: Opened | undefined
  #accepting = false
  #failure: SlicenetError | undefined
  #pending: Pending[] = []
  #pendingBytes = 0
  /** Steps that are to run while no group is written. */
  #steps: (() => Promise<void>)[] = []
  #writing: Promise<void> | undefined

  constructor(components: DiskStoreComponents, init: DiskStoreInit) {
    this.#clock = components.clock
    this.#logger = components.logger.child('store')
    this.#disk = components.disk ?? systemDisk
    this.#init = init
  }

  start(): Promise<void> {
    return this.#then(async () => {
      if (this.#opened !== undefined) return
      this.#opened = await this.#open()
      this.#failure = undefined
      this.#accepting = true
      this.#opened.compaction.consider()
    })
  }

  /** Waits for the commits that were taken. */
  stop(): Promise<void> {
    return this.#then(async () => {
      const opened = this.#opened
      if (opened === undefined) return
      this.#accepting = false
      await opened.compaction.stop()
      await this.#writing
      this.#opened = undefined
      try {
        await opened.tables.close()
        // Without it the next start looks at the tables as they are.
        await seal(layoutOf(this.#init.directory).tables).catch(() => {})
      } finally {
        try {
          await opened.journal.close()
        } finally {
          await opened.lock.release()
        }
      }
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async commit(entries: readonly Entry[]): Promise<void> {
    const copies = copyEntries(entries)
    this.#check()
    if (copies.length === 0) return
    const payload = encodeEntries(copies)
    if (this.#pendingBytes + payload.length > LIMITS.storePendingBytesMax) {
      throw new SlicenetError('BUSY', `more than ${LIMITS.storePendingBytesMax} bytes wait to be written`)
    }
    await this.#enqueue(payload, copies)
  }

  async get(table: string, key: string): Promise<Uint8Array | undefined> {
    checkTable(table)
    checkKey(key)
    const { tables } = this.#check()
    try {
      return await tables.get(table, key)
    } catch (error) {
      throw this.#readError(error)
    }
  }

  async *iterate(
    table: string,
    options: { readonly signal?: AbortSignal } = {}
  ): AsyncGenerator<readonly [key: string, value: Uint8Array]> {
    checkTable(table)
    const { tables } = this.#check()
    const rows = tables.iterate(table)
    try {
      for (;;) {
        options.signal?.throwIfAborted()
        this.#check()
        const row = await nextRow(rows, (error) => this.#readError(error))
        if (row === undefined) return
        yield row
      }
    } finally {
      await rows.return(undefined)
    }
  }

  async #enqueue(payload: Uint8Array, entries: readonly Entry[]): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    this.#pendingBytes += payload.length
    await new Promise<void>((resolve, reject) => {
      this.#pending.push({ payload, entries, resolve, reject })
      this.#writing ??= this.#write()
    })
  }

  async #between<T>(step: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#steps.push(async () => {
        try {
          if (this.#failure !== undefined) throw this.#failure
          resolve(await step())
        } catch (error) {
          reject(error)
        }
      })
      this.#writing ??= this.#write()
    })
  }

  async #then(step: () => Promise<void>): Promise<void> {
    const before = this.#transition
    const done = before.then(step)
    this.#transition = done.catch(() => {})
    await done
  }

  #check(): Opened {
    if (this.#failure !== undefined) {
      throw new SlicenetError('STORE_FAILED', this.#failure.message, {
        ...(this.#failure.hint === undefined ? {} : { hint: this.#failure.hint }),
        cause: this.#failure
      })
    }
    if (this.#opened === undefined || !this.#accepting) {
      throw new SlicenetError('STORE_FAILED', 'the store is not running')
    }
    return this.#opened
  }

  #readError(error: unknown): unknown {
    if (!this.#accepting) return new SlicenetError('STORE_FAILED', 'the store was stopped', { cause: error })
    return asStoreFailure('reading the tables', error)
  }

  async #open(): Promise<Opened> {
    const { directory } = this.#init
    const began = this.#clock.monotonic()
    let lock: DirectoryLock | undefined
    let journal: Journal | undefined
    try {
      await makeDirectory(this.#disk, directory)
      lock = await DirectoryLock.acquire(directory)
      journal = await Journal.open({ disk: this.#disk, logger: this.#logger }, this.#init)
      const tables = await this.#openTables(journal)
      const compaction = this.#makeCompaction(journal, tables)
      const elapsedMs = Math.round(this.#clock.monotonic() - began)
      this.#logger.info('opened the store', { directory, records: journal.head.sequence, elapsedMs })
      return { lock, journal, tables, compaction }
    } catch (error) {
      await journal?.close()
      await lock?.release()
      throw asStoreFailure('opening the store', error)
    }
  }

  #openTables(journal: Journal): Promise<Tables> {
    const fill = (tables: Tables): Promise<void> =>
      journal.replay({
        // The tables are at no point of the chain before the snapshot is all in them.
        visitChunk: (payload) => tables.apply(decodeEntries(payload), GENESIS),
        visit: async (records) => {
          const last = records.at(-1)
          if (last === undefined) return
          const entries = records.flatMap((record) => decodeEntries(record.payload))
          await tables.apply(entries, { sequence: last.sequence, link: last.link })
        }
      })
    const { tables } = layoutOf(this.#init.directory)
    return Tables.open(tables, journal.head, fill, (reason) => {
      if (journal.head.sequence > 0) this.#logger.info('rebuilding the tables', { reason })
    })
  }

  #makeCompaction(journal: Journal, tables: Tables): Compaction {
    const { directory, compactionBytesMin } = this.#init
    return new Compaction(
      {
        clock: this.#clock,
        disk: this.#disk,
        logger: this.#logger,
        journal,
        tables,
        fail: (error) => this.#fail(error, []),
        between: (step) => this.#between(step),
        append: (payload) => this.#enqueue(payload, [])
      },
      {
        directory: layoutOf(directory).journal,
        ...(compactionBytesMin === undefined ? {} : { bytesMin: compactionBytesMin })
      }
    )
  }

  /** Writes what waits, group by group, until nothing waits any more. Never rejects. */
  async #write(): Promise<void> {
    // Calls made in the same turn as the first one share its group.
    await Promise.resolve()
    while (this.#pending.length > 0 || this.#steps.length > 0) {
      await this.#steps.shift()?.()
      const group = this.#takeGroup()
      if (group.length === 0) continue
      try {
        const { journal, tables, compaction } = this.#opened as Opened
        const payloads = group.map((commit) => commit.payload)
        const head = await journal.append(payloads, this.#clock.now())
        const entries = group.flatMap((commit) => commit.entries)
        await tables.apply(entries, head)
        for (const commit of group) commit.resolve()
        compaction.consider()
      } catch (error) {
        this.#fail(error, group)
      }
    }
    this.#writing = undefined
  }

  #takeGroup(): Pending[] {
    let bytes = 0
    let length = 0
    for (const commit of this.#pending) {
      bytes += commit.payload.length
      if (length > 0 && bytes > LIMITS.storeGroupBytesMax) {
        bytes -= commit.payload.length
        break
      }
      length++
    }
    this.#pendingBytes -= bytes
    return this.#pending.splice(0, length)
  }

  /** The end of the journal is in doubt now, so that nothing may be built on it before a start has looked at it. */
  #fail(error: unknown, group: readonly Pending[]): void {
    const failure = asStoreFailure('writing to the store', error)
    this.#failure = failure
    this.#logger.error('the store takes no more commits until it is started anew', { error: failure })
    const waiting = this.#pending
    this.#pending = []
    this.#pendingBytes = 0
    for (const commit of [...group, ...waiting]) commit.reject(failure)
  }
}

async function nextRow(
  rows: AsyncGenerator<readonly [key: string, value: Uint8Array]>,
  explain: (error: unknown) => unknown
): Promise<readonly [key: string, value: Uint8Array] | undefined> {
  try {
    const { done, value } = await rows.next()
    return done === true ? undefined : value
  } catch (error) {
    throw explain(error)
  }
}
