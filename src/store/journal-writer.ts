/** Appends groups of records to the journal, each group synced as a whole, and begins new segments. */
import { join } from 'node:path'
import { TEMPORARY_SUFFIX, writeWhole, type Disk, type DiskFile } from './disk.ts'
import {
  encodeRecord,
  encodeSegmentHeader,
  SEGMENT_HEADER_BYTES,
  segmentName,
  type ChainHead
} from './record.ts'

export interface JournalWriterComponents {
  readonly disk: Disk
}

export interface JournalWriterInit {
  /** The journal's directory. */
  readonly directory: string
  readonly segmentBytesMax: number
  /** Where the sound journal ends. */
  readonly head: ChainHead
  /** The segment to go on with; undefined begins one. */
  readonly segment?: { readonly path: string; readonly bytes: number }
}

export class JournalWriter {
  readonly #disk: Disk
  readonly #directory: string
  readonly #segmentBytesMax: number
  #head: ChainHead
  #file: DiskFile
  #bytes: number

  private constructor(components: JournalWriterComponents, init: JournalWriterInit, file: DiskFile) {
    this.#disk = components.disk
    this.#directory = init.directory
    this.#segmentBytesMax = init.segmentBytesMax
    this.#head = init.head
    this.#file = file
    this.#bytes = init.segment?.bytes ?? SEGMENT_HEADER_BYTES
  }

  static async open(components: JournalWriterComponents, init: JournalWriterInit): Promise<JournalWriter> {
    const { disk } = components
    const path = init.segment?.path ?? (await createSegment(disk, init.directory, init.head))
    return new JournalWriter(components, init, await disk.open(path))
  }

  get head(): ChainHead {
    return this.#head
  }

  /**
   * Appends a record for each payload. Durable when it resolves. After an error the end of the journal is unknown:
   * nothing more may be appended. The caller must have marked the head of the group before.
   */
  async append(payloads: readonly Uint8Array[], writtenAt: number): Promise<ChainHead> {
    // Only here, between groups: all of a closed segment is marked, and a torn tail is always in the last one.
    if (this.#bytes >= this.#segmentBytesMax) await this.beginSegment()
    let head = this.#head
    const records: Buffer[] = []
    for (const payload of payloads) {
      const record = encodeRecord(head, payload, writtenAt)
      records.push(record.bytes)
      head = record.head
    }
    const bytes = Buffer.concat(records)
    await this.#file.write(bytes, this.#bytes)
    await this.#file.sync()
    this.#bytes += bytes.length
    this.#head = head
    return head
  }

  close(): Promise<void> {
    return this.#file.close()
  }

  /**
   * What is appended next goes into a new segment. May be called between groups only. After an error the next group
   * goes to the old segment, for which `forgetSegment` must have removed what there may be of the new one.
   */
  async beginSegment(): Promise<void> {
    if (this.#bytes === SEGMENT_HEADER_BYTES) return
    const path = await createSegment(this.#disk, this.#directory, this.#head)
    const file = await this.#disk.open(path)
    await this.#file.close()
    this.#file = file
    this.#bytes = SEGMENT_HEADER_BYTES
  }

  /** Durably removes what a `beginSegment` that failed may have left. */
  async forgetSegment(): Promise<void> {
    const path = segmentPath(this.#directory, this.#head)
    await this.#disk.remove(`${path}${TEMPORARY_SUFFIX}`)
    await this.#disk.remove(path)
    await this.#disk.syncDirectory(this.#directory)
  }
}

function segmentPath(directory: string, head: ChainHead): string {
  return join(directory, segmentName(head.sequence + 1))
}

async function createSegment(disk: Disk, directory: string, head: ChainHead): Promise<string> {
  const path = segmentPath(directory, head)
  await writeWhole(disk, path, encodeSegmentHeader(head))
  return path
}
