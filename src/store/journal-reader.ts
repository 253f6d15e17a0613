/**
 * Walks the whole journal from where it begins, checks every link of its chain, and stops at the first thing that is not
 * right.
 */
import { systemDisk, type Disk } from './disk.ts'
import {
  beginningsOf,
  listJournal,
  type Beginning,
  type JournalFiles,
  type Segment
} from './journal-files.ts'
import {
  decodeRecordHeader,
  decodeSegmentHeader,
  GENESIS,
  linkOf,
  RECORD_HEADER_BYTES,
  sameHead,
  SEGMENT_HEADER_BYTES,
  type ChainHead
} from './record.ts'
import { SegmentBytes } from './segment-bytes.ts'
import { decodeSnapshotName } from './snapshot.ts'
import { scanSnapshot, type SnapshotScan } from './snapshot-reader.ts'

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

/** The snapshot that a journal begins at. */
export interface Base extends SnapshotScan {
  /** Whether a record of the journal names it, and another record names another one in its place. */
  readonly named: 'yes' | 'no' | 'otherwise'
}

export interface JournalScan {
  /** Absent if the journal begins at the genesis. */
  readonly base?: Base
  /** Those after the beginning. */
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
  /** Those of the directory, if the caller has listed them already. */
  readonly files?: JournalFiles
  /** Where to begin. Default: the first place there is. */
  readonly beginning?: Beginning
  /** Default: the system's. */
  readonly disk?: Disk
  /** Gets the payloads of the snapshot's sound chunks, before the records. */
  readonly visitChunk?: (payload: Uint8Array) => Promise<void>
  /** Gets the sound records in order, some at a time. */
  readonly visit?: (records: readonly JournalRecord[]) => Promise<void>
}

const VISIT_RECORDS = 512
const VISIT_BYTES = 4 * 1024 * 1024

/** Reads only. Throws `STORE_FAILED` for another format version; I/O errors as they are. */
export async function scanJournal(directory: string, init: ScanInit = {}): Promise<JournalScan> {
  const files = init.files ?? (await listJournal(directory))
  const beginning = init.beginning ?? beginningsOf(directory, files)[0]
  const segments = files.segments.filter(({ firstSequence }) => firstSequence > beginning.sequence)
  return new Walk(segments, beginning, init).run()
}

class Walk {
  readonly #segments: readonly Segment[]
  readonly #beginning: Beginning
  readonly #init: ScanInit
  readonly #disk: Disk
  #base: Base | undefined
  #head = GENESIS
  #end: Position = { segment: 0, offset: 0 }
  #writtenAt: number | undefined
  #watched: JournalScan['watched']
  #batch: JournalRecord[] = []
  #batchBytes = 0

  constructor(segments: readonly Segment[], beginning: Beginning, init: ScanInit) {
    this.#segments = segments
    this.#beginning = beginning
    this.#init = init
    this.#disk = init.disk ?? systemDisk
  }

  async run(): Promise<JournalScan> {
    await this.#begin()
    this.#watch()
    let stop: Stop | undefined
    for (const [index, segment] of this.#segments.entries()) {
      await using bytes = await SegmentBytes.open(this.#disk, segment.path)
      stop = (await this.#openSegment(index, bytes)) ?? (await this.#walkSegment(index, bytes))
      if (stop !== undefined) break
    }
    await this.#flush()
    return {
      ...(this.#base === undefined ? {} : { base: this.#base }),
      segments: this.#segments,
      head: this.#head,
      end: this.#end,
      writtenAt: this.#writtenAt,
      stop,
      watched: this.#watched
    }
  }

  async #begin(): Promise<void> {
    const { path, sequence, link } = this.#beginning
    if (link !== undefined) this.#head = { sequence, link }
    if (path === undefined) return
    const following = await this.#followingHead(sequence)
    const { visitChunk } = this.#init
    const scan = await scanSnapshot(
      this.#disk,
      { path, sequence },
      {
        ...(following === undefined ? {} : { head: following }),
        ...(visitChunk === undefined ? {} : { visit: visitChunk })
      }
    )
    this.#base = { ...scan, named: 'no' }
    this.#writtenAt = scan.writtenAt
    // Without a snapshot that can be read, the segment after it says where it was, and what follows can be judged.
    this.#head = scan.header?.head ?? following ?? GENESIS
  }

  /** What the first segment says about the snapshot's place in the chain. */
  async #followingHead(sequence: number): Promise<ChainHead | undefined> {
    const [first] = this.#segments
    if (first === undefined) return undefined
    await using bytes = await SegmentBytes.open(this.#disk, first.path)
    const header = await bytes.read(SEGMENT_HEADER_BYTES)
    const head = header && decodeSegmentHeader(header)
    return head?.sequence === sequence ? head : undefined
  }

  #noteName(payload: Uint8Array): void {
    const name = this.#base && decodeSnapshotName(payload)
    if (this.#base === undefined || name?.sequence !== this.#base.sequence) return
    const { header } = this.#base
    const same = header !== undefined && Buffer.compare(header.hash, name.hash) === 0
    this.#base = { ...this.#base, named: same ? 'yes' : 'otherwise' }
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
      const payload = record.subarray(RECORD_HEADER_BYTES)
      this.#noteName(payload)
      await this.#collect({ ...header, link, payload })
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
