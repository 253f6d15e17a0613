/** Files of signed objects, proofs and the like: bounded, as bytes, base64 or hex. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'

/** Throws as `readFileWithin`. */
export async function readObjectFile(path: string): Promise<Uint8Array> {
  return readFileWithin(path, LIMITS.objectFileBytesMax)
}

/** Throws `NOT_FOUND`, `TOO_LARGE`, and `ENCODING_INVALID` for what cannot be read. */
export async function readFileWithin(path: string, bytesMax: number): Promise<Uint8Array> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const buffer = new Uint8Array(bytesMax + 1)
      const { bytesRead } = await file.read(buffer, 0, buffer.length, 0)
      if (bytesRead <= bytesMax) return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') throw new SlicenetError('NOT_FOUND', `there is no file ${path}`, { cause: error })
    throw new SlicenetError('ENCODING_INVALID', `${path} cannot be read: ${code ?? 'unknown error'}`, {
      cause: error
    })
  }
  throw new SlicenetError('TOO_LARGE', `${path} has more than ${bytesMax} bytes`)
}

/** The file as text, or `undefined` when it is binary. */
export function asText(bytes: Uint8Array): string | undefined {
  return bytes.every((byte) => byte === 9 || byte === 10 || byte === 13 || (byte >= 0x20 && byte < 0x7f))
    ? Buffer.from(bytes).toString('latin1')
    : undefined
}

/** What base64 or hex, wrapped or not, stands for; `undefined` for anything else. */
export function decodeText(text: string): Uint8Array | undefined {
  const packed = text.replaceAll(/\s/g, '')
  if (packed !== '' && /^(?:[0-9a-fA-F]{2})+$/.test(packed)) return new Uint8Array(Buffer.from(packed, 'hex'))
  if (/^[A-Za-z0-9+/_-]+={0,2}$/.test(packed)) return new Uint8Array(Buffer.from(packed, 'base64'))
  return undefined
}
