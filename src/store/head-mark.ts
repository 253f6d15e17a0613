/**
 * The head mark: a second note, outside the journal, of how far the journal goes. A journal alone cannot tell that its
 * last records are missing; the mark can.
 *
 * Order. A group of records is written and synced, then the mark is written and synced, then the commits are
 * acknowledged. So the mark is never ahead of the synced journal, and covers every acknowledged record: what the
 * journal lacks of it was lost, and what lies beyond it was never acknowledged.
 *
 * The file has two slots, each in a disk block of its own, written in turn, so that a power cut in the middle of a
 * write leaves the other one, which covers all that was acknowledged before. Such a cut leaves a journal that goes
 * beyond the older slot, because the journal was synced first. One slot unreadable and a journal that ends exactly at
 * the other one is therefore no crash but damage (`damage.ts` says so).
 *
 * Format versions 1 and 2, numbers big-endian; slots at 0 and 4096, the rest zero:
 *
 *      0  8  "slicehed"      12  8  sequence      52 32  SHA-256 of bytes 0 to 52
 *      8  4  format version  20 32  link
 */
import { createHash } from 'node:crypto'
import { isMissing, systemDisk, writeWhole, type Disk, type DiskFile } from './disk.ts'
import { checkVersion, FORMAT_VERSION, type ChainHead } from './record.ts'

const MAGIC = Buffer.from('slicehed')
const SLOT_BYTES = 84
const SLOT_SPACING_BYTES = 4096

export type HeadMarkState =
  | { readonly kind: 'missing' }
  | { readonly kind: 'unreadable' }
  | {
      readonly kind: 'readable'
      readonly head: ChainHead
      /** The slot that holds `head`; the next write goes to the other. */
      readonly slot: 0 | 1
      readonly otherReadable: boolean
    }

/** Throws `STORE_FAILED` for a mark of another format version; I/O errors as they are. */
export async function readHeadMark(path: string, disk: Disk = systemDisk): Promise<HeadMarkState> {
  let bytes: Buffer
  try {
    bytes = await readSlots(disk, path)
  } catch (error) {
    if (isMissing(error)) return { kind: 'missing' }
    throw error
  }
  const first = decodeSlot(bytes, 0)
  const second = decodeSlot(bytes, 1)
  if (first === undefined && second === undefined) return { kind: 'unreadable' }
  if (first !== undefined && (second === undefined || first.sequence >= second.sequence)) {
    return { kind: 'readable', head: first, slot: 0, otherReadable: second !== undefined }
  }
  return { kind: 'readable', head: second as ChainHead, slot: 1, otherReadable: first !== undefined }
}

async function readSlots(disk: Disk, path: string): Promise<Buffer> {
  const file = await disk.read(path)
  try {
    const bytes = Buffer.alloc(2 * SLOT_SPACING_BYTES)
    let length = 0
    for (;;) {
      const bytesRead = await file.read(bytes, length, bytes.length - length, length)
      if (bytesRead === 0) return bytes.subarray(0, length)
      length += bytesRead
    }
  } finally {
    await file.close()
  }
}

/** Puts a whole new mark, both slots alike, in place of whatever is there. */
export async function replaceHeadMark(disk: Disk, path: string, head: ChainHead): Promise<void> {
  const bytes = Buffer.alloc(2 * SLOT_SPACING_BYTES)
  bytes.set(encodeSlot(head), 0)
  bytes.set(encodeSlot(head), SLOT_SPACING_BYTES)
  await writeWhole(disk, path, bytes)
}

/** Moves an existing mark. */
export class HeadMarkWriter {
  readonly #file: DiskFile
  #slot: 0 | 1

  private constructor(file: DiskFile, slot: 0 | 1) {
    this.#file = file
    this.#slot = slot
  }

  static async open(disk: Disk, path: string, current: { readonly slot: 0 | 1 }): Promise<HeadMarkWriter> {
    return new HeadMarkWriter(await disk.open(path), current.slot)
  }

  /** Durable when it resolves. */
  async write(head: ChainHead): Promise<void> {
    const slot = this.#slot === 0 ? 1 : 0
    await this.#file.write(encodeSlot(head), slot * SLOT_SPACING_BYTES)
    await this.#file.sync()
    this.#slot = slot
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

function encodeSlot(head: ChainHead): Buffer {
  const bytes = Buffer.alloc(SLOT_BYTES)
  bytes.set(MAGIC, 0)
  bytes.writeUInt32BE(FORMAT_VERSION, 8)
  bytes.writeBigUInt64BE(BigInt(head.sequence), 12)
  bytes.set(head.link, 20)
  bytes.set(createHash('sha256').update(bytes.subarray(0, 52)).digest(), 52)
  return bytes
}

function decodeSlot(file: Buffer, slot: 0 | 1): ChainHead | undefined {
  const bytes = file.subarray(slot * SLOT_SPACING_BYTES, slot * SLOT_SPACING_BYTES + SLOT_BYTES)
  if (bytes.length < SLOT_BYTES) return undefined
  const sum = createHash('sha256').update(bytes.subarray(0, 52)).digest()
  if (!sum.equals(bytes.subarray(52)) || !MAGIC.equals(bytes.subarray(0, MAGIC.length))) return undefined
  checkVersion(bytes.readUInt32BE(8))
  return { sequence: Number(bytes.readBigUInt64BE(12)), link: Uint8Array.from(bytes.subarray(20, 52)) }
}
