/**
 * A two-way byte stream, whatever carries it (a libp2p stream, a Unix socket), and messages over it: canonical
 * DAG-CBOR, each behind its length as an unsigned varint.
 */
import * as lengthPrefixed from 'it-length-prefixed'
import { pipe } from 'it-pipe'
import type { Uint8ArrayList } from 'uint8arraylist'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { decodeCbor, encodeCbor, type CborLimits } from './cbor.ts'

export interface ByteDuplex {
  /** Ends when the other side closes its writing half; throws when the stream breaks. */
  readonly source: AsyncIterable<Uint8Array | Uint8ArrayList>
  /** Resolves when more may be written. */
  write(bytes: Uint8Array): Promise<void>
  /** Closes the writing half. */
  closeWrite(): Promise<void>
  /** Aborted when the stream is broken or given up by the other side; not by an orderly end. */
  readonly broken: AbortSignal
  /** The largest message that either side takes; default `LIMITS.messageBytesMax`. */
  readonly messageBytesMax?: number
  /** Gives the whole stream up. */
  abort(error: Error): void
}

function limitsOf({ messageBytesMax }: ByteDuplex): CborLimits {
  return { bytesMax: messageBytesMax ?? LIMITS.messageBytesMax, depthMax: LIMITS.objectDepthMax + 8 }
}

export async function writeMessage(duplex: ByteDuplex, message: unknown): Promise<void> {
  const bytes = encodeCbor(message)
  const { bytesMax } = limitsOf(duplex)
  if (bytes.length > bytesMax) {
    throw new SlicenetError('TOO_LARGE', `a message of ${bytes.length} bytes; ${bytesMax} are allowed`)
  }
  await duplex.write(lengthPrefixed.encode.single(bytes).subarray())
}

/** The messages of the other side, undecoded beyond CBOR. Throws `TOO_LARGE` and `ENCODING_INVALID`. */
export function readMessages(duplex: ByteDuplex): AsyncIterable<unknown> {
  const limits = limitsOf(duplex)
  return pipe(
    duplex.source,
    (source) => lengthPrefixed.decode(source, { maxDataLength: limits.bytesMax }),
    async function* (frames) {
      try {
        for await (const frame of frames) yield decodeCbor(frame.subarray(), limits)
      } catch (error) {
        throw named(error)
      }
    }
  )
}

function named(error: unknown): unknown {
  const name = error instanceof Error ? error.name : ''
  if (name === 'InvalidDataLengthError' || name === 'InvalidDataLengthLengthError') {
    return new SlicenetError('TOO_LARGE', 'the other side announced a message beyond the limit', {
      cause: error
    })
  }
  if (name === 'UnexpectedEOFError') {
    return new SlicenetError('ENCODING_INVALID', 'the stream ended in the middle of a message', {
      cause: error
    })
  }
  return error
}
