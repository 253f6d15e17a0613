/**
 * Compacts the journal while the store runs: writes a snapshot of the tables, has the journal name it, and drops what it
 * replaces (`journal-files.ts` gives the order and why). Commits wait only for a segment to be begun. What goes wrong
 * before the naming is logged and leaves the store with the journal as it was.
 */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Disk } from './disk.ts'
import type { Journal } from './journal.ts'
import type { ChainHead } from './record.ts'
import { encodeSnapshotName } from './snapshot.ts'
import { writeSnapshot } from './snapshot-writer.ts'
import type { Capture, Tables } from './tables.ts'

export interface CompactionComponents {
  readonly clock: Clock
  readonly disk: Disk
  readonly logger: Logger
  readonly journal: Journal
  readonly tables: Tables
  /** Runs a step while no group is written, and refuses if the store has failed. */
  readonly between: <T>(step: () => Promise<T>) => Promise<T>
  /** Makes the store take nothing more. */
  readonly fail: (error: unknown) => void
  /** Commits a payload without entries; durable and marked when it resolves. */
  readonly append: (payload: Uint8Array) => Promise<void>
}

export interface CompactionInit {
  /** The journal's directory. */
  readonly directory: string
  /** Default 64 MiB. */
  readonly bytesMin?: number
}

export class Compaction {
  readonly #components: CompactionComponents
  readonly #directory: string
  readonly #bytesMin: number
  readonly #stopping = new AbortController()
  #running: Promise<void> | undefined
  /** After a failure it is tried again only when the journal has grown beyond this. */
  #retryAboveBytes = 0

  constructor(components: CompactionComponents, init: CompactionInit) {
    this.#components = components
    this.#directory = init.directory
    this.#bytesMin = init.bytesMin ?? LIMITS.storeCompactionBytesMin
  }

  /** Begins a compaction if it is worth it and none is under way. */
  consider(): void {
    if (this.#running !== undefined || this.#stopping.signal.aborted || !this.#isWorthIt()) return
    this.#running = this.#run().finally(() => {
      this.#running = undefined
    })
  }

  /** Gives up what is under way unless it is nearly done. Must be called while the store still writes. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the store stops'))
    await this.#running
  }

  #isWorthIt(): boolean {
    const { journal, tables } = this.#components
    if (journal.head.sequence === journal.beginsAfter) return false
    const least = Math.max(this.#bytesMin, this.#retryAboveBytes, LIMITS.storeCompactionFactor * tables.bytes)
    return journal.bytes > least
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { clock, disk, journal, logger } = this.#components
    const { signal } = this.#stopping
    const began = clock.monotonic()
    const bytesBefore = journal.bytes
    try {
      await this.#requireRoom()
      const { head, capture } = await this.#begin()
      await using captured = capture
      const name = await writeSnapshot(disk, {
        directory: this.#directory,
        head,
        entries: captured.entries,
        writtenAt: clock.now(),
        signal
      })
      signal.throwIfAborted()
      await this.#components.append(encodeSnapshotName(name))
      await journal.beginAt(name)
      const elapsedMs = Math.round(clock.monotonic() - began)
      logger.info('compacted the journal', {
        record: head.sequence,
        bytesBefore,
        bytes: journal.bytes,
        elapsedMs
      })
    } catch (error) {
      if (signal.aborted) return
      this.#retryAboveBytes = journal.bytes + this.#bytesMin
      logger.error('compaction failed; the store goes on with the journal as it is', { error })
    }
  }

  /** A snapshot that fills the disk would make the commits of meanwhile fail. */
  async #requireRoom(): Promise<void> {
    const { disk, tables } = this.#components
    const wanted = 2 * tables.bytes + LIMITS.storePendingBytesMax
    const free = await disk.free(this.#directory)
    if (free >= wanted) return
    throw new SlicenetError('STORE_FAILED', `${free} bytes are free on the disk, ${wanted} are wanted`, {
      hint: 'make room: the journal grows until it can be compacted'
    })
  }

  /** The tables, and the head that they are at. */
  #begin(): Promise<{ head: ChainHead; capture: Capture }> {
    const { journal, tables, between, fail } = this.#components
    return between(async () => {
      this.#stopping.signal.throwIfAborted()
      const begun = await journal.beginSegment()
      if ('head' in begun) return { head: begun.head, capture: tables.capture() }
      if (!begun.usable) fail(begun.error)
      throw begun.error
    })
  }
}
