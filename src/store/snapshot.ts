/**
 * The bytes of a snapshot: all entries of all tables at one point of the chain, for the journal to begin at, so that the
 * segments before that point can go. All numbers are big-endian.
 *
 * A snapshot, `journal/<sequence, 16 decimal digits>.snapshot`, is a header and then chunks without gaps. A chunk has
 * the form of a record (`record.ts`): its sequence counts from 1, its payload holds entries, and its link is that of
 * the chunk before hashed with it; the link before the first chunk is SHA-256("slicenet/v1/snapshot\0" ‖ bytes 12 to 52
 * of the header). The header is written last, and the file gets its name when all of it is synced.
 *
 *      0  8  "slicesnp"                            60  8  number of entries
 *      8  4  format version                        68 32  link of the last chunk
 *     12  8  sequence of the last record in it    100 32  SHA-256 of bytes 0 to 100: the snapshot's hash
 *     20 32  that record's link
 *     52  8  number of chunks
 *
 * The hash vouches for every byte. A later record of the journal, its name record, carries it: the DAG-CBOR map
 * `{"snapshot": {"sequence": ..., "hash": ...}}` in the place of entries. So the link of that record and of every later
 * one vouches for the snapshot as it did for the records that the snapshot replaces. A journal begins either at the
 * genesis or at a snapshot that it names.
 */
import { createHash } from 'node:crypto'
import { decode, encode } from '@ipld/dag-cbor'
import { checkVersion, FORMAT_VERSION, type ChainHead } from './record.ts'

export const SNAPSHOT_HEADER_BYTES = 132
const HASHED_BYTES = 100
const MAGIC = Buffer.from('slicesnp')

export interface SnapshotHeader {
  /** The last record whose entries are in it. */
  readonly head: ChainHead
  readonly chunks: number
  readonly entries: number
  /** Link of the last chunk, or the one before the first if there are none. */
  readonly seal: Uint8Array
  readonly hash: Uint8Array
}

/** What a name record says. */
export interface SnapshotName {
  readonly sequence: number
  readonly hash: Uint8Array
}

export function encodeSnapshotHeader(header: Omit<SnapshotHeader, 'hash'>): { bytes: Buffer; hash: Buffer } {
  const bytes = Buffer.alloc(SNAPSHOT_HEADER_BYTES)
  bytes.set(MAGIC, 0)
  bytes.writeUInt32BE(FORMAT_VERSION, 8)
  bytes.writeBigUInt64BE(BigInt(header.head.sequence), 12)
  bytes.set(header.head.link, 20)
  bytes.writeBigUInt64BE(BigInt(header.chunks), 52)
  bytes.writeBigUInt64BE(BigInt(header.entries), 60)
  bytes.set(header.seal, 68)
  const hash = createHash('sha256').update(bytes.subarray(0, HASHED_BYTES)).digest()
  bytes.set(hash, HASHED_BYTES)
  return { bytes, hash }
}

/** Undefined if it was altered. Throws `STORE_FAILED` for an intact header of another format version. */
export function decodeSnapshotHeader(bytes: Buffer): SnapshotHeader | undefined {
  const hash = createHash('sha256').update(bytes.subarray(0, HASHED_BYTES)).digest()
  if (!hash.equals(bytes.subarray(HASHED_BYTES, SNAPSHOT_HEADER_BYTES))) return undefined
  if (!MAGIC.equals(bytes.subarray(0, MAGIC.length))) return undefined
  checkVersion(bytes.readUInt32BE(8))
  return {
    head: {
      sequence: Number(bytes.readBigUInt64BE(12)),
      link: Uint8Array.from(bytes.subarray(20, 52))
    },
    chunks: Number(bytes.readBigUInt64BE(52)),
    entries: Number(bytes.readBigUInt64BE(60)),
    seal: Uint8Array.from(bytes.subarray(68, HASHED_BYTES)),
    hash
  }
}

/** What the first chunk of a snapshot at `head` follows. */
export function chunkBeginning(head: ChainHead): ChainHead {
  const sequence = Buffer.alloc(8)
  sequence.writeBigUInt64BE(BigInt(head.sequence))
  const link = createHash('sha256')
    .update('slicenet/v1/snapshot\0')
    .update(sequence)
    .update(head.link)
    .digest()
  return { sequence: 0, link }
}

/** The payload of a name record. */
export function encodeSnapshotName({ sequence, hash }: SnapshotName): Uint8Array {
  return encode({ snapshot: { sequence, hash } })
}

/** A CBOR map of one pair. Entries are a list, so that their first byte is another. */
const NAME_FIRST_BYTE = 0xa1

/** What a record's payload names, or undefined if it holds entries instead. */
export function decodeSnapshotName(payload: Uint8Array): SnapshotName | undefined {
  if (payload[0] !== NAME_FIRST_BYTE) return undefined
  try {
    const { snapshot } = decode(payload) as { snapshot?: Partial<SnapshotName> }
    const { sequence, hash } = snapshot ?? {}
    if (!Number.isSafeInteger(sequence) || !(hash instanceof Uint8Array)) return undefined
    return { sequence: sequence as number, hash }
  } catch {
    return undefined
  }
}

export function snapshotFileName(sequence: number): string {
  return `${String(sequence).padStart(16, '0')}.snapshot`
}

/** The sequence that a file's name promises, or undefined if it names no snapshot. */
export function parseSnapshotFileName(name: string): number | undefined {
  const match = /^(\d{16})\.snapshot$/.exec(name)
  return match === null ? undefined : Number(match[1])
}
