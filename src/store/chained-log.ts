/**
 * A bounded log of opaque pieces: the journal's records and segments (record.ts), in a chain of its own, of which the
 * oldest segments are dropped. Whoever keeps a point of the chain can tell later whether what is there is what was written.
 */
import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { asStoreFailure, isMissing, makeDirectory, systemDisk, type Disk } from './disk.ts'
import { listJournal, type Segment } from './journal-files.ts'
import { scanJournal, type JournalRecord, type JournalScan } from './journal-reader.ts'
import { truncate } from './journal-tail.ts'
import { JournalWriter } from './journal-writer.ts'
import { decodeSegmentHeader, SEGMENT_HEADER_BYTES, type ChainHead } from './record.ts'
import { SegmentBytes } from './segment-bytes.ts'

export type { ChainHead, JournalRecord }

export interface ChainedLogComponents {
  readonly clock: Clock
  readonly logger: Logger
  /** Default: the system's. */
  readonly disk?: Disk
}

export interface ChainedLogInit {
  readonly directory: string
  /** What it is a log of; no two logs begin alike. */
  readonly name: string
  readonly segmentBytesMax: number
  /** Of all segments; the newest two stay whatever this is. */
  readonly bytesMax: number
}

export interface LogExtent {
  /** The place in the chain before the oldest record that is kept, and that of the newest. */
  readonly begin: ChainHead
  readonly head: ChainHead
}

export class ChainedLog {
  readonly #c: ChainedLogComponents
  readonly #init: ChainedLogInit
  readonly #disk: Disk
  readonly #writer: JournalWriter
  readonly #sizes: Map<string, number>
  #segments: readonly Segment[]
  #begin: ChainHead

  private constructor(
    c: ChainedLogComponents,
    init: ChainedLogInit,
    state: Pick<LogExtent, 'begin'> & {
      readonly writer: JournalWriter
      readonly segments: readonly Segment[]
    }
  ) {
    this.#c = c
    this.#init = init
    this.#disk = c.disk ?? systemDisk
    this.#writer = state.writer
    this.#segments = state.segments
    this.#begin = state.begin
    this.#sizes = new Map()
  }

  /**
   * Goes on where it ends; a piece that a crash cut off is dropped. What was altered stays as it is, for `verify` to find,
   * and what follows goes on from the last sound piece before it. Throws `STORE_FAILED`.
   */
  static async open(c: ChainedLogComponents, init: ChainedLogInit): Promise<ChainedLog> {
    const disk = c.disk ?? systemDisk
    const { directory } = init
    try {
      await makeDirectory(disk, directory)
      const { segments } = await listJournal(directory)
      const begin = (await headBefore(disk, segments[0])) ?? genesisOf(init.name)
      const last = segments.at(-1)
      const before = await headBefore(disk, last)
      const isAlone = last !== undefined && before !== undefined
      const scan = isAlone ? await scanFrom(disk, directory, [last], before) : undefined
      const head = scan?.head ?? begin
      if (scan?.stop !== undefined) {
        c.logger.warn('the log ends in what is no piece of it', { reason: scan.stop.message })
        if (scan.stop.reason === 'incomplete' && last !== undefined)
          await truncate(disk, last.path, scan.end.offset)
      }
      const isSound = scan !== undefined && (scan.stop === undefined || scan.stop.reason === 'incomplete')
      if (last !== undefined && !isSound && last.firstSequence === head.sequence + 1) {
        await disk.rename(last.path, `${last.path}.altered-${c.clock.now()}`)
      }
      const segment = isSound && last !== undefined ? { path: last.path, bytes: scan.end.offset } : undefined
      const writer = await JournalWriter.open(
        { disk },
        {
          directory,
          segmentBytesMax: init.segmentBytesMax,
          head,
          ...(segment === undefined ? {} : { segment })
        }
      )
      const opened = { writer, begin, segments: (await listJournal(directory)).segments }
      return new ChainedLog(c, init, opened)
    } catch (error) {
      throw asStoreFailure('opening a log', error)
    }
  }

  extent(): LogExtent {
    return { begin: this.#begin, head: this.#writer.head }
  }

  /** Durable when it resolves. Tells whether a new segment begins with these pieces. Throws `STORE_FAILED`. */
  async append(pieces: readonly Uint8Array[]): Promise<{ readonly isNewSegment: boolean }> {
    try {
      await this.#writer.append(pieces, this.#c.clock.now())
      const before = this.#segments.length
      const { segments } = await listJournal(this.#init.directory)
      this.#segments = segments
      return { isNewSegment: segments.length !== before }
    } catch (error) {
      throw asStoreFailure('writing a log', error)
    }
  }

  /** Where the log would begin if what is over its size were dropped; `undefined` when it has room. */
  async excess(): Promise<ChainHead | undefined> {
    let bytes = 0
    for (const { path } of this.#segments) bytes += await this.#size(path)
    let first = 0
    while (bytes > this.#init.bytesMax && first < this.#segments.length - 2) {
      bytes -= await this.#size(this.#segments[first]!.path)
      first += 1
    }
    return first === 0 ? undefined : headBefore(this.#disk, this.#segments[first])
  }

  /** Drops what comes before a place that `excess` gave. */
  async dropBefore(begin: ChainHead): Promise<void> {
    for (const { path, firstSequence } of this.#segments) {
      if (firstSequence <= begin.sequence) await this.#disk.remove(path)
    }
    await this.#disk.syncDirectory(this.#init.directory)
    this.#begin = begin
    this.#segments = (await listJournal(this.#init.directory)).segments
  }

  /**
   * The pieces in order, those of segments that end before `since` (UTC ms) left out, and those of segments that are dropped
   * while it reads.
   */
  async *read(since = 0): AsyncIterable<readonly JournalRecord[]> {
    const segments = this.#segments
    for (const [index, segment] of segments.entries()) {
      yield await this.#readSegment(segment, segments[index + 1], since).catch((error: unknown) => {
        if (isMissing(error)) return []
        throw error
      })
    }
  }

  async #readSegment(segment: Segment, next: Segment | undefined, since: number): Promise<JournalRecord[]> {
    const found: JournalRecord[] = []
    const nextBegins = next === undefined ? undefined : await beginningOf(this.#disk, next)
    if (nextBegins !== undefined && nextBegins < since) return found
    const before = await headBefore(this.#disk, segment)
    if (before === undefined) return found
    const visit = async (records: readonly JournalRecord[]): Promise<void> => void found.push(...records)
    await scanFrom(this.#disk, this.#init.directory, [segment], before, visit)
    return found
  }

  /** Walks all of it, checks every link, and gives the places with these numbers that it came by. */
  async verify(sequences: ReadonlySet<number>): Promise<{
    readonly extent: LogExtent
    readonly places: ReadonlyMap<number, Uint8Array>
    readonly fault?: string
  }> {
    const { segments } = await listJournal(this.#init.directory)
    const begin = (await headBefore(this.#disk, segments[0])) ?? this.#begin
    const places = new Map<number, Uint8Array>([[begin.sequence, begin.link]])
    const visit = async (records: readonly JournalRecord[]): Promise<void> => {
      for (const { sequence, link } of records)
        if (sequences.has(sequence)) places.set(sequence, Uint8Array.from(link))
      return Promise.resolve()
    }
    const scan = await scanFrom(this.#disk, this.#init.directory, segments, begin, visit)
    const { stop, head } = scan
    return { extent: { begin, head }, places, ...(stop === undefined ? {} : { fault: stop.message }) }
  }

  async close(): Promise<void> {
    await this.#writer.close()
  }

  async #size(path: string): Promise<number> {
    const isClosed = path !== this.#segments.at(-1)?.path
    const known = this.#sizes.get(path)
    if (known !== undefined && isClosed) return known
    const { size } = await stat(path)
    this.#sizes.set(path, size)
    return size
  }
}

/** Where a log of this name begins. */
function genesisOf(name: string): ChainHead {
  return { sequence: 0, link: createHash('sha256').update(`slicenet/v1/log/${name}\0`).digest() }
}

/** What a segment's header says of the place before it; `undefined` if it was altered. */
async function headBefore(disk: Disk, segment: Segment | undefined): Promise<ChainHead | undefined> {
  if (segment === undefined) return undefined
  await using bytes = await SegmentBytes.open(disk, segment.path)
  const header = await bytes.read(SEGMENT_HEADER_BYTES)
  return header && decodeSegmentHeader(header)
}

/** When a segment's first record was written, UTC ms. */
async function beginningOf(disk: Disk, segment: Segment): Promise<number | undefined> {
  await using bytes = await SegmentBytes.open(disk, segment.path, SEGMENT_HEADER_BYTES)
  const record = await bytes.read(56)
  return record && Number(record.readBigUInt64BE(48))
}

async function scanFrom(
  disk: Disk,
  directory: string,
  segments: readonly Segment[],
  { sequence, link }: ChainHead,
  visit?: (records: readonly JournalRecord[]) => Promise<void>
): Promise<JournalScan> {
  const files = { segments, snapshots: [] }
  return scanJournal(directory, {
    disk,
    files,
    beginning: { sequence, link },
    ...(visit === undefined ? {} : { visit })
  })
}
