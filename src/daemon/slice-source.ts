/** Reads a slice description and the local files that it names, which lie relative to it, into one whole. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Want } from '../protocol/broker-protocol.ts'
import { parseSliceFile, type SliceFileSource } from '../service/slice-file.ts'
import { wantOf } from '../service/slice-want.ts'
import type { SliceDescription } from '../service/slice.ts'

/** What a file without a mode of its own may keep of its permission bits. */
const MODE_MASK = 0o755

/**
 * Throws `NOT_FOUND` when there is no description, `SLICE_FILE_INVALID` for what is wrong in it or with a file it
 * names, and `TOO_LARGE` when these files together pass the limit.
 */
export async function loadSliceDescription(
  path: string,
  options: { readonly signal?: AbortSignal } = {}
): Promise<SliceDescription> {
  const text = await readDescription(path)
  const { description, files } = parseSliceFile(text, { fileName: path })
  const loaded: SliceDescription['files'] = []
  let total = 0
  for (const file of files) {
    options.signal?.throwIfAborted()
    const { content, mode } = await readNamed(path, file)
    total += content.length
    if (total > LIMITS.sliceFilesBytesMax) {
      throw new SlicenetError(
        'TOO_LARGE',
        `the files of ${path} have more than ${LIMITS.sliceFilesBytesMax} bytes together`,
        { hint: 'put what is large in an image, or send it with `slicenet slice exec NAME -- tee FILE`' }
      )
    }
    loaded.push({ path: file.path, content, mode: file.mode ?? mode & MODE_MASK })
  }
  return { ...description, files: loaded }
}

/** What the slice that a file describes needs of nodes. Throws as `loadSliceDescription`. */
export async function loadWant(path: string, options: { readonly signal?: AbortSignal } = {}): Promise<Want> {
  return wantOf(await loadSliceDescription(path, options))
}

async function readDescription(path: string): Promise<string> {
  try {
    const { content } = await readBounded(path, LIMITS.sliceFileBytesMax)
    return new TextDecoder('utf-8', { fatal: true }).decode(content)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') {
      throw new SlicenetError('NOT_FOUND', `there is no file ${path}`, { cause: error })
    }
    throw new SlicenetError('SLICE_FILE_INVALID', `${path}: ${reason(error)}`, { cause: error })
  }
}

async function readNamed(
  path: string,
  file: SliceFileSource
): Promise<{ content: Uint8Array; mode: number }> {
  try {
    return await readBounded(resolve(dirname(path), file.source), LIMITS.uploadedFileBytesMax)
  } catch (error) {
    const field = `files.${file.path}`
    const message = `${file.source}: ${reason(error)}`
    throw new SlicenetError('SLICE_FILE_INVALID', `${path} line ${file.line}: ${field}: ${message}`, {
      details: { problems: [{ line: file.line, field, message }] },
      cause: error
    })
  }
}

async function readBounded(
  path: string,
  bytesMax: number
): Promise<{ content: Uint8Array<ArrayBuffer>; mode: number }> {
  // A named pipe or device must not hold the program up.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stats = await file.stat()
    if (!stats.isFile()) throw new Error('not a regular file')
    // One byte more than allowed, whatever the size says: files grow.
    const buffer = new Uint8Array(bytesMax + 1)
    let length = 0
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length, length)
      if (bytesRead === 0) break
      length += bytesRead
    }
    if (length > bytesMax) throw new Error(`larger than the ${bytesMax} bytes allowed`)
    return { content: buffer.slice(0, length), mode: stats.mode & 0o777 }
  } finally {
    await file.close()
  }
}

function reason(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'there is no such file'
  if (code === 'EACCES') return 'this account may not read it'
  if (code === 'EISDIR') return 'a directory'
  if (code === 'ERR_ENCODING_INVALID_ENCODED_DATA') return 'not UTF-8 text'
  return error instanceof Error ? error.message : String(error)
}
