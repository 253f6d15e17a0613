/**
 * The bytes of the journal, format version 2: how a segment begins and what a record is. All numbers are big-endian.
 *
 * A segment, `journal/<first sequence, 16 decimal digits>.segment`, is a header and then records without gaps:
 *
 *     header, 84 bytes                      record, 56 bytes and the payload
 *      0  8  "slicejnl"                      0   4  CRC-32 of bytes 4 to 56 of the record
 *      8  4  format version                  4  32  link
 *     12  8  sequence of its first record   36   4  length of the payload
 *     20 32  link of the record before      40   8  sequence, 1 for the journal's first record
 *     52 32  SHA-256 of bytes 0 to 52       48   8  written at, UTC milliseconds
 *                                           56      payload: the entries of one commit (`entries.ts`),
 *                                                   or the name of a snapshot (`snapshot.ts`)
 *
 * link = SHA-256(link of the record before ‖ bytes 36 to the end of the record), so a link vouches for everything up
 * to it. The CRC is there to tell a flipped bit in a length or a sequence from a record that was cut off or is missing.
 *
 * Version 1 is the same without snapshots, so both are read, and all that is written anew says 2: a program that knows
 * only version 1 would take a journal that begins at a snapshot for one with a gap, and its repair would empty it.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { SlicenetError } from '../base/errors.ts'

export const FORMAT_VERSION = 2
const OLDEST_FORMAT_VERSION = 1
export const SEGMENT_HEADER_BYTES = 84
export const RECORD_HEADER_BYTES = 56
/** A bound of the format, not a limit on commits: a reader must not allocate what a damaged length asks for. */
export const PAYLOAD_BYTES_MAX = 64 * 1024 * 1024

const MAGIC = Buffer.from('slicejnl')

/** A point of the chain: the sequence of a record and the link that vouches for all up to it. */
export interface ChainHead {
  readonly sequence: number
  readonly link: Uint8Array
}

/** Where a journal begins that begins at no snapshot. */
export const GENESIS: ChainHead = {
  sequence: 0,
  link: createHash('sha256').update('slicenet/v1/journal\0').digest()
}

export interface RecordHeader {
  readonly link: Uint8Array
  readonly payloadLength: number
  readonly sequence: number
  /** UTC milliseconds. */
  readonly writtenAt: number
}

/** The record that follows `previous`, with the head that it makes. */
export function encodeRecord(
  previous: ChainHead,
  payload: Uint8Array,
  writtenAt: number
): { bytes: Buffer; head: ChainHead } {
  const bytes = Buffer.allocUnsafe(RECORD_HEADER_BYTES + payload.length)
  const sequence = previous.sequence + 1
  bytes.writeUInt32BE(payload.length, 36)
  bytes.writeBigUInt64BE(BigInt(sequence), 40)
  bytes.writeBigUInt64BE(BigInt(Math.trunc(writtenAt)), 48)
  bytes.set(payload, RECORD_HEADER_BYTES)
  const link = linkOf(previous, bytes)
  bytes.set(link, 4)
  bytes.writeUInt32BE(crc32(bytes.subarray(4, RECORD_HEADER_BYTES)), 0)
  return { bytes, head: { sequence, link } }
}

/** The header of the record at the start of `bytes`, or undefined if it was altered. */
export function decodeRecordHeader(bytes: Buffer): RecordHeader | undefined {
  if (bytes.readUInt32BE(0) !== crc32(bytes.subarray(4, RECORD_HEADER_BYTES))) return undefined
  const payloadLength = bytes.readUInt32BE(36)
  if (payloadLength > PAYLOAD_BYTES_MAX) return undefined
  return {
    link: bytes.subarray(4, 36),
    payloadLength,
    sequence: Number(bytes.readBigUInt64BE(40)),
    writtenAt: Number(bytes.readBigUInt64BE(48))
  }
}

/** The link that the record in `bytes` (all of it) must carry if it follows `previous`. */
export function linkOf(previous: ChainHead, bytes: Buffer): Buffer {
  return createHash('sha256').update(previous.link).update(bytes.subarray(36)).digest()
}

export function encodeSegmentHeader(previous: ChainHead): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES)
  bytes.set(MAGIC, 0)
  bytes.writeUInt32BE(FORMAT_VERSION, 8)
  bytes.writeBigUInt64BE(BigInt(previous.sequence + 1), 12)
  bytes.set(previous.link, 20)
  bytes.set(createHash('sha256').update(bytes.subarray(0, 52)).digest(), 52)
  return bytes
}

/**
 * The head after which the segment begins, or undefined if its header was altered.
 * Throws `STORE_FAILED` for an intact header of another format version: no damage, and never to be repaired.
 */
export function decodeSegmentHeader(bytes: Buffer): ChainHead | undefined {
  const sum = createHash('sha256').update(bytes.subarray(0, 52)).digest()
  if (!sum.equals(bytes.subarray(52, SEGMENT_HEADER_BYTES))) return undefined
  if (!MAGIC.equals(bytes.subarray(0, MAGIC.length))) return undefined
  checkVersion(bytes.readUInt32BE(8))
  return {
    sequence: Number(bytes.readBigUInt64BE(12)) - 1,
    link: Uint8Array.from(bytes.subarray(20, 52))
  }
}

/** Throws `STORE_FAILED` unless this program reads the version. */
export function checkVersion(version: number): void {
  if (version >= OLDEST_FORMAT_VERSION && version <= FORMAT_VERSION) return
  const known = `${OLDEST_FORMAT_VERSION} to ${FORMAT_VERSION}`
  throw new SlicenetError('STORE_FAILED', `the store has format version ${version}, not ${known}`, {
    hint: 'it was written by another release of slicenet: run that one'
  })
}

export function segmentName(firstSequence: number): string {
  return `${String(firstSequence).padStart(16, '0')}.segment`
}

/** The first sequence that a file's name promises, or undefined if it names no segment. */
export function parseSegmentName(name: string): number | undefined {
  const match = /^(\d{16})\.segment$/.exec(name)
  return match === null ? undefined : Number(match[1])
}

export function sameHead(a: ChainHead, b: ChainHead): boolean {
  return a.sequence === b.sequence && Buffer.compare(a.link, b.link) === 0
}
