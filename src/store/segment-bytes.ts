/** Reads one segment or snapshot from its start to its end in large pieces, however large the file is. */
import type { Disk, DiskReader } from './disk.ts'

const PIECE_BYTES = 1024 * 1024

export class SegmentBytes implements AsyncDisposable {
  readonly #file: DiskReader
  #piece = Buffer.alloc(0)
  /** Where the next unread byte is: in the piece, and in the file. */
  #at = 0
  #offset: number
  #ended = false

  private constructor(file: DiskReader, offset: number) {
    this.#file = file
    this.#offset = offset
  }

  static async open(disk: Disk, path: string, offset = 0): Promise<SegmentBytes> {
    return new SegmentBytes(await disk.read(path), offset)
  }

  /** Offset in the file of the next unread byte. */
  get offset(): number {
    return this.#offset
  }

  /** The next `length` bytes if they are in memory already. They stay valid, and unread until `skip`. */
  peek(length: number): Buffer | undefined {
    if (this.#piece.length - this.#at < length) return undefined
    return this.#piece.subarray(this.#at, this.#at + length)
  }

  /** As `peek`, but reads on; undefined if the file ends before. */
  async read(length: number): Promise<Buffer | undefined> {
    while (this.#piece.length - this.#at < length && !this.#ended) await this.#fill(length)
    return this.peek(length)
  }

  skip(length: number): void {
    this.#at += length
    this.#offset += length
  }

  /** How many bytes are left unread, once `read` has given undefined. */
  get rest(): number {
    return this.#piece.length - this.#at
  }

  async #fill(wanted: number): Promise<void> {
    const rest = this.#piece.subarray(this.#at)
    // A fresh piece each time: records that were handed out still look into the old one.
    const piece = Buffer.allocUnsafeSlow(Math.max(PIECE_BYTES, wanted))
    rest.copy(piece)
    const position = this.#offset + rest.length
    const bytesRead = await this.#file.read(piece, rest.length, piece.length - rest.length, position)
    this.#ended = bytesRead === 0
    this.#piece = piece.subarray(0, rest.length + bytesRead)
    this.#at = 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}
