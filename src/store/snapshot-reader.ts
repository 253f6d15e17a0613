/** Walks a snapshot, checks every byte of it, and says what is wrong, going on past a chunk that was altered. */
import { isMissing, type Disk } from './disk.ts'
import { decodeRecordHeader, linkOf, RECORD_HEADER_BYTES, sameHead, type ChainHead } from './record.ts'
import { SegmentBytes } from './segment-bytes.ts'
import {
  chunkBeginning,
  decodeSnapshotHeader,
  SNAPSHOT_HEADER_BYTES,
  type SnapshotHeader
} from './snapshot.ts'

export interface SnapshotFile {
  readonly path: string
  /** That its name promises. */
  readonly sequence: number
}

export interface SnapshotScan extends SnapshotFile {
  readonly missing: boolean
  /** Undefined if it was altered or cut off. */
  readonly header: SnapshotHeader | undefined
  /** The first thing that is not right, one sentence without a full stop. */
  readonly fault: string | undefined
  /** When it was written, UTC milliseconds; undefined if no chunk says so. */
  readonly writtenAt: number | undefined
}

export interface SnapshotScanInit {
  /** Where the snapshot must be in the chain, for one whose header cannot tell. */
  readonly head?: ChainHead
  /** Gets the payload of each sound chunk, in order. */
  readonly visit?: (payload: Uint8Array) => Promise<void>
}

/** Reads only. Throws `STORE_FAILED` for another format version; I/O errors as they are. */
export async function scanSnapshot(
  disk: Disk,
  { path, sequence }: SnapshotFile,
  init: SnapshotScanInit = {}
): Promise<SnapshotScan> {
  const scan = { path, sequence, missing: false, header: undefined, writtenAt: undefined }
  let bytes: SegmentBytes
  try {
    bytes = await SegmentBytes.open(disk, path)
  } catch (error) {
    if (isMissing(error))
      return { ...scan, missing: true, fault: `the snapshot at record ${sequence} is missing` }
    throw error
  }
  await using source = bytes
  const start = await source.read(SNAPSHOT_HEADER_BYTES)
  const header = start === undefined ? undefined : decodeSnapshotHeader(start)
  const fault = faultOf(sequence, start, header)
  const head = fault === undefined ? header?.head : init.head
  if (start === undefined || head === undefined) return { ...scan, fault }
  source.skip(SNAPSHOT_HEADER_BYTES)
  const chunks = await walkChunks(source, chunkBeginning(head), sequence, init)
  const sound = fault === undefined ? header : undefined
  return {
    ...scan,
    header: sound,
    writtenAt: chunks.writtenAt,
    fault:
      fault ??
      chunks.fault ??
      (sound !== undefined && sameHead(chunks.head, { sequence: sound.chunks, link: sound.seal })
        ? undefined
        : `the snapshot at record ${sequence} ends after chunk ${chunks.head.sequence}`)
  }
}

function faultOf(
  sequence: number,
  start: Buffer | undefined,
  header: SnapshotHeader | undefined
): string | undefined {
  if (start === undefined) return `the snapshot at record ${sequence} ends in its header`
  if (header === undefined) return `the header of the snapshot at record ${sequence} was altered`
  if (header.head.sequence === sequence) return undefined
  return `the snapshot at record ${sequence} has not the name that it was given`
}

interface ChunkWalk {
  readonly head: ChainHead
  readonly writtenAt: number | undefined
  readonly fault: string | undefined
}

async function walkChunks(
  bytes: SegmentBytes,
  beginning: ChainHead,
  sequence: number,
  init: SnapshotScanInit
): Promise<ChunkWalk> {
  let head = beginning
  let writtenAt: number | undefined
  let fault: string | undefined
  for (;;) {
    const where = `chunk ${head.sequence + 1} of the snapshot at record ${sequence}`
    const start = await bytes.read(RECORD_HEADER_BYTES)
    if (start === undefined && bytes.rest === 0) return { head, writtenAt, fault }
    const header = start === undefined ? undefined : decodeRecordHeader(start)
    if (start !== undefined && header === undefined) {
      return { head, writtenAt, fault: fault ?? `the header of ${where} was altered` }
    }
    const record = header && (await bytes.read(RECORD_HEADER_BYTES + header.payloadLength))
    if (header === undefined || record === undefined) {
      return { head, writtenAt, fault: fault ?? `the file ends in ${where}` }
    }
    const sound = header.sequence === head.sequence + 1 && linkOf(head, record).equals(header.link)
    if (!sound) fault ??= `${where} was altered`
    // The header has a checksum of its own: the next chunk can be held against its link although this one is lost.
    head = { sequence: header.sequence, link: Uint8Array.from(header.link) }
    writtenAt = header.writtenAt
    if (sound) await init.visit?.(record.subarray(RECORD_HEADER_BYTES))
    bytes.skip(record.length)
  }
}
