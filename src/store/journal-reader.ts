/** Walks the whole journal, checks every link of its chain, and stops at the first thing that is not right. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import {
  decodeRecordHeader,
  decodeSegmentHeader,
  GENESIS,
  linkOf,
  parseSegmentName,
  RECORD_HEADER_BYTES,
  sameHead,
  SEGMENT_HEADER_BYTES,
  type ChainHead
} from './record.ts'
import { SegmentBytes } from './segment-bytes.ts'

export interface Segment {
  readonly path: string
  readonly firstSequence: number
}

export interface Position {
  /** Index in the scan's list of segments. */
  readonly segment: number
  /** Bytes from the segment's start. */
  readonly offset: number
}

/** Why a walk ended before the end: the bytes stop in mid-record, they were altered, or something between is missing. */
export interface Stop extends Position {
  readonly reason: 'incomplete' | 'altered' | 'gap'
  readonly message: string
}

export interface JournalRecord {
  readonly sequence: number
  /** UTC milliseconds. */
  readonly writtenAt: number
  readonly link: Uint8Array
  readonly payload: Uint8Array
}

export interface JournalScan {
  readonly segments: readonly Segment[]
  /** The last sound record, and where it ends. */
  readonly head: ChainHead
  readonly end: Position
  /** When the last sound record was written, UTC milliseconds; undefined if there is none. */
  readonly writtenAt: number | undefined
  readonly stop: Stop | undefined
  /** The point of the chain that was asked for, if the walk came past it. */
  readonly watched: { readonly head: ChainHead; readonly end: Position } | undefined
}

export interface ScanInit {
  /** A sequence whose place in the chain the caller wants to know. */
  readonly watch?: number
  /** Gets the sound records in order, some at a time. */
  readonly visit?: (records: readonly JournalRecord[]) => Promise<void>
}

const VISIT_RECORDS = 512
const VISIT_BYTES = 4 * 1024 * 1024

/** The segments in order. A journal directory that is not there has none. */
export async function listSegments(directory: string): Promise<Segment[]> {
  let names: string[]
  try {
    names = await readdir(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
  return names
    .map((name) => ({ path: join(directory, name), firstSequence: parseSegmentName(name) }))
    .filter((segment): segment is Segment => segment.firstSequence !== undefined)
    .sort((a, b) => a.firstSequence - b.firstSequence)
}

/** Reads only. Throws `STORE_FAILED` for another format version; I/O errors as they are. */
export async function scanJournal(directory: string, init: ScanInit = {}): Promise<JournalScan> {
  return new Walk(await listSegments(directory), init).run()
}

class Walk {
  readonly #segments: readonly Segment[]
  readonly #init: ScanInit
  #head = GENESIS
  #end: Position = { segment: 0, offset: 0 }
  #writtenAt: number | undefined
  #watched: JournalScan['watched']
  #batch: JournalRecord[] = []
  #batchBytes = 0

  constructor(segments: readonly Segment[], init: ScanInit) {
    this.#segments = segments
    this.#init = init
    this.#watch()
  }

  async run(): Promise<JournalScan> {
    let stop: Stop | undefined
    for (const [index, segment] of this.#segments.entries()) {
      await using bytes = await SegmentBytes.open(segment.path)
      stop = (await this.#openSegment(index, bytes)) ?? (await this.#walkSegment(index, bytes))
      if (stop !== undefined) break
    }
    await this.#flush()
    return {
      segments: this.#segments,
      head: this.#head,
      end: this.#end,
      writtenAt: this.#writtenAt,
      stop,
      watched: this.#watched
    }
  }

  async #openSegment(index: number, bytes: SegmentBytes): Promise<Stop | undefined> {
    const stop = (reason: Stop['reason'], message: string): Stop => ({
      reason,
      message,
      segment: index,
      offset: 0
    })
    const header = await bytes.read(SEGMENT_HEADER_BYTES)
    if (header === undefined) return stop('incomplete', 'a segment ends in its header')
    const previous = decodeSegmentHeader(header)
    if (previous === undefined) return stop('altered', "a segment's header was altered")
    if (previous.sequence + 1 !== this.#segments[index]?.firstSequence) {
      return stop('altered', "a segment's name is not the one it was given")
    }
    if (!sameHead(previous, this.#head)) {
      return stop(
        'gap',
        `a segment begins at record ${previous.sequence + 1}, the one before ends at ${this.#head.sequence}`
      )
    }
    bytes.skip(SEGMENT_HEADER_BYTES)
    this.#end = { segment: index, offset: SEGMENT_HEADER_BYTES }
    this.#watch()
    return undefined
  }

  async #walkSegment(index: number, bytes: SegmentBytes): Promise<Stop | undefined> {
    const last = index === this.#segments.length - 1
    for (;;) {
      const stop = (reason: Stop['reason'], message: string): Stop => ({
        reason,
        message,
        segment: index,
        offset: bytes.offset
      })
      const start = bytes.peek(RECORD_HEADER_BYTES) ?? (await bytes.read(RECORD_HEADER_BYTES))
      if (start === undefined && bytes.rest === 0) return undefined
      const header = start === undefined ? undefined : decodeRecordHeader(start)
      if (start !== undefined && header === undefined) {
        return stop('altered', `the header of record ${this.#head.sequence + 1} was altered`)
      }
      const length = RECORD_HEADER_BYTES + (header?.payloadLength ?? 0)
      const record = start && (bytes.peek(length) ?? (await bytes.read(length)))
      if (header === undefined || record === undefined) {
        // Only the journal's very end can be cut off by a crash; more journal follows here.
        if (!last) return stop('gap', `a segment ends in record ${this.#head.sequence + 1}`)
        return stop('incomplete', `the journal ends in record ${this.#head.sequence + 1}`)
      }
      if (header.sequence !== this.#head.sequence + 1) {
        return stop('gap', `record ${header.sequence} follows record ${this.#head.sequence}`)
      }
      const link = linkOf(this.#head, record)
      if (!link.equals(header.link)) return stop('altered', `record ${header.sequence} was altered`)
      bytes.skip(length)
      this.#head = { sequence: header.sequence, link }
      this.#end = { segment: index, offset: bytes.offset }
      this.#writtenAt = header.writtenAt
      this.#watch()
      await this.#collect({ ...header, link, payload: record.subarray(RECORD_HEADER_BYTES) })
    }
  }

  #watch(): void {
    // A segment's header moves the end and not the head: what follows the watched record begins after the header.
    if (this.#head.sequence === this.#init.watch) this.#watched = { head: this.#head, end: this.#end }
  }

  async #collect(record: JournalRecord): Promise<void> {
    if (this.#init.visit === undefined) return
    this.#batch.push(record)
    this.#batchBytes += record.payload.length
    if (this.#batch.length >= VISIT_RECORDS || this.#batchBytes >= VISIT_BYTES) await this.#flush()
  }

  async #flush(): Promise<void> {
    const batch = this.#batch
    this.#batch = []
    this.#batchBytes = 0
    if (batch.length > 0) await this.#init.visit?.(batch)
  }
}
