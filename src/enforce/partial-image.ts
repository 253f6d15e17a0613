/**
 * An image of which only the beginning is here yet: its archive so far, in a file that outlives the process, and the hash
 * of it. One process at a time has the file of an id, which it owns by its name.
 */
import { createHash, randomBytes, type Hash } from 'node:crypto'
import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'

const READ_BYTES = 1024 * 1024

export class PartialImage {
  readonly id: string
  readonly #directory: string
  readonly #path: string
  readonly #file: FileHandle
  #hash: Hash
  #bytes: number

  private constructor(
    id: string,
    place: { readonly directory: string; readonly path: string; readonly file: FileHandle },
    state: { readonly hash: Hash; readonly bytes: number }
  ) {
    this.id = id
    this.#directory = place.directory
    this.#path = place.path
    this.#file = place.file
    this.#hash = state.hash
    this.#bytes = state.bytes
  }

  /** Takes what was kept of an image, else nothing of it, and hashes it. */
  static async claim(directory: string, id: string): Promise<PartialImage> {
    await mkdir(directory, { recursive: true })
    await makeRoom(directory)
    const path = join(directory, `${hexOf(id)}.${process.pid}.${randomBytes(6).toString('hex')}`)
    for (const name of await readdir(directory)) {
      if (!isFree(name, id)) continue
      // Whoever is first has it.
      if (await moved(join(directory, name), path)) break
    }
    const file = await open(path, 'a+', 0o600)
    const hash = createHash('sha256')
    let bytes = 0
    for await (const chunk of file.createReadStream({
      start: 0,
      autoClose: false,
      highWaterMark: READ_BYTES
    })) {
      hash.update(chunk as Buffer)
      bytes += (chunk as Buffer).length
    }
    return new PartialImage(id, { directory, path, file }, { hash, bytes })
  }

  /** How many there are. */
  get bytes(): number {
    return this.#bytes
  }

  /** The archive, for when it is whole. */
  get path(): string {
    return this.#path
  }

  /** Adds to the end. Throws `STORE_FAILED` when the disk is full. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#hash.update(chunk)
    this.#bytes += chunk.length
    try {
      await this.#file.appendFile(chunk)
    } catch (error) {
      throw new SlicenetError('STORE_FAILED', 'what came of the image cannot be written', { cause: error })
    }
  }

  /** Whether what is here is all of it, and nothing else. */
  isWhole(): boolean {
    return `sha256:${this.#hash.copy().digest('hex')}` === this.id
  }

  /** Throws away what is here. */
  async empty(): Promise<void> {
    await this.#file.truncate()
    this.#hash = createHash('sha256')
    this.#bytes = 0
  }

  /** Leaves it to whoever goes on, unless there is more of it already. */
  async keep(): Promise<void> {
    await this.#file.close()
    const kept = join(this.#directory, hexOf(this.id))
    const other = await stat(kept).catch(() => undefined)
    if (this.#bytes > (other?.size ?? 0)) await rename(this.#path, kept)
    else await rm(this.#path, { force: true })
  }

  async remove(): Promise<void> {
    await this.#file.close()
    await rm(this.#path, { force: true })
  }
}

/** Removes what was kept of images and not gone on with since a time, UTC ms. */
export async function sweepPartialImages(directory: string, oldest: number): Promise<void> {
  for (const name of await readdir(directory).catch(() => [])) {
    if (isOwned(name)) continue
    const path = join(directory, name)
    const there = await stat(path).catch(() => undefined)
    if (there !== undefined && there.mtimeMs < oldest) await rm(path, { force: true })
  }
}

/** The oldest go where there are many. */
async function makeRoom(directory: string): Promise<void> {
  const names = (await readdir(directory)).filter((name) => !isOwned(name))
  const kept = await Promise.all(
    names.map(async (name) => ({
      name,
      at: (await stat(join(directory, name)).catch(() => undefined))?.mtimeMs ?? 0
    }))
  )
  kept.sort((a, b) => b.at - a.at)
  for (const { name } of kept.slice(LIMITS.partialImagesMax)) await rm(join(directory, name), { force: true })
}

async function moved(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

function isFree(name: string, id: string): boolean {
  return name.split('.')[0] === hexOf(id) && !isOwned(name)
}

/** Whether the process that it is named after still runs. */
function isOwned(name: string): boolean {
  const pid = Number(name.split('.')[1] ?? 0)
  if (pid === 0) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

function hexOf(id: string): string {
  return id.slice('sha256:'.length)
}
