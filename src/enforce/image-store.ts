/**
 * Reference images by content: the id of an image is the hash of its normalised archive, its files lie unpacked in a
 * directory that is never changed, and names are pointers to ids. Several daemons of one machine share a store.
 */
import { createHash, randomBytes } from 'node:crypto'
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  utimes,
  writeFile
} from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Startable } from '../base/lifecycle.ts'
import { readArchive, unpackArchive, type ArchiveSummary } from './image-archive.ts'
import { archiveOf } from './image-source.ts'
import { shareFiles } from './file-sharing.ts'
import { ImageUsers } from './image-users.ts'
import { removeTree } from './remove-tree.ts'
import { PartialImage, sweepPartialImages } from './partial-image.ts'

const ID_PATTERN = /^sha256:[0-9a-f]{64}$/
const NAME_PATTERN = /^[a-z0-9][a-z0-9._-]{0,62}$/
const PARTIAL = 'partial'
/** An import that was not finished within this was cut off. */
const ABANDONED_MS = 24 * 3_600_000

export interface Image {
  /** `sha256:<64 hex digits>`. */
  readonly id: string
  readonly names: readonly string[]
  /** Bytes of its files. */
  readonly bytes: number
  readonly entries: number
  /** UTC milliseconds. */
  readonly importedAt: number
}

export interface ImageStoreComponents {
  readonly clock: Clock
}

export interface ImageStoreInit {
  /** May be shared by every daemon of the machine; only root reads it. */
  readonly directory: string
}

interface ImageRecord {
  readonly bytes: number
  readonly entries: number
  readonly importedAt: number
  /** Whether it came of another node. */
  readonly isFetched?: true
}

export interface ImportOptions {
  readonly name?: string
  /** Of the machine that the image is for, as Node names it; default this one's. */
  readonly architecture?: string
  /** The id that the content must have. */
  readonly id?: string
  /** Whether it came of another node, so that `evict` may take it away again. */
  readonly isFetched?: boolean
}

export interface EvictOptions {
  /** What images that were fetched and have no name may have in all. */
  readonly bytesMax: number
  /** One that stays in any case. */
  readonly keep?: string
}

export class ImageStore implements Startable {
  /** Who has vservers of its images. */
  readonly users: ImageUsers
  readonly #clock: Clock
  readonly #directory: string

  constructor(components: ImageStoreComponents, init: ImageStoreInit) {
    this.#clock = components.clock
    this.#directory = init.directory
    this.users = new ImageUsers(join(init.directory, 'users'))
  }

  async start(): Promise<void> {
    await mkdir(join(this.#directory, 'names'), { recursive: true })
    // Programs in an image may be set-user-id root: no account of the host may reach them here.
    await chmod(this.#directory, 0o700)
    await this.#sweep()
  }

  async stop(): Promise<void> {}

  /**
   * Takes in a root directory or an archive of one (tar, also compressed), or an OCI image layout, as a directory or an
   * archive, of which the image for this machine is taken. Importing the same content again gives the same image. With
   * `name` the name points to it from then on.
   * Throws `IMAGE_INVALID`, `TOO_LARGE`, `NOT_FOUND` when the path does not exist, `STORE_FAILED` when the disk is full.
   */
  async import(path: string, options: ImportOptions = {}): Promise<Image> {
    if (options.name !== undefined) checkName(options.name)
    const source = await stat(path).catch(() => undefined)
    if (source === undefined) throw new SlicenetError('NOT_FOUND', `there is no ${path}`)
    if (!source.isDirectory() && !source.isFile()) {
      throw new SlicenetError('IMAGE_INVALID', `${path} is neither a directory nor an archive`)
    }
    if ((await this.#ids()).length >= LIMITS.imagesMax) {
      throw new SlicenetError('TOO_LARGE', `the store holds ${LIMITS.imagesMax} images already`, {
        hint: 'remove some that no lease uses'
      })
    }
    const work = await mkdtemp(join(this.#directory, 'import-'))
    try {
      const { archive, summary } = await archiveOf(path, source.isDirectory(), work, options)
      const id = await this.#unpack(archive, work, summary, options)
      if (options.name !== undefined) await this.#point(options.name, id)
      return await this.#describe(id)
    } catch (error) {
      throw named(error)
    } finally {
      await removeTree(work)
    }
  }

  async has(id: string): Promise<boolean> {
    return (
      ID_PATTERN.test(id) && (await lstat(join(this.#path(id), 'root')).catch(() => undefined)) !== undefined
    )
  }

  /** What was received of an image's archive, to be gone on with. Throws `IMAGE_MISSING` for what is no id. */
  async partial(id: string): Promise<PartialImage> {
    if (!ID_PATTERN.test(id)) throw missing(id)
    return PartialImage.claim(join(this.#directory, PARTIAL), id)
  }

  /** Has a name point to an image that is there. Throws `IMAGE_MISSING`, `USAGE`. */
  async name(id: string, name: string): Promise<Image> {
    checkName(name)
    await this.open(id)
    await this.#point(name, id)
    return this.#describe(id)
  }

  /** All images, the newest first. */
  async list(): Promise<Image[]> {
    const images = await Promise.all((await this.#ids()).map((id) => this.#describe(id)))
    return images.sort((a, b) => b.importedAt - a.importedAt)
  }

  /**
   * The image of that name or id, or whose id begins with it (at least four hex digits).
   * Throws `IMAGE_MISSING`, `AMBIGUOUS_ID`.
   */
  async find(nameOrIdPrefix: string): Promise<Image> {
    const named = await this.#resolve(nameOrIdPrefix)
    if (named !== undefined) return this.#describe(named)
    const digits = nameOrIdPrefix.replace(/^sha256:/, '')
    if (/^[0-9a-f]{4,64}$/.test(digits)) {
      const matching = (await this.#ids()).filter((id) => id.startsWith(`sha256:${digits}`))
      if (matching.length > 1) {
        throw new SlicenetError('AMBIGUOUS_ID', `${matching.length} images begin with ${nameOrIdPrefix}`)
      }
      if (matching[0] !== undefined) return this.#describe(matching[0])
    }
    throw missing(nameOrIdPrefix)
  }

  /** The root directory of an image, to be read and never changed; that counts as a use. Throws `IMAGE_MISSING`. */
  async open(id: string): Promise<string> {
    if (!ID_PATTERN.test(id)) throw missing(id)
    const root = join(this.#path(id), 'root')
    const there = await lstat(root).catch(() => undefined)
    if (there?.isDirectory() !== true) throw missing(id)
    const now = this.#clock.now() / 1000
    await utimes(this.#recordPath(id), now, now).catch(() => {})
    return root
  }

  /** The normalised archive of an image, whose SHA-256 is its id. Throws `IMAGE_MISSING`. */
  async *read(id: string): AsyncGenerator<Buffer> {
    yield* readArchive(await this.open(id))
  }

  /** Whether the files still give the id. */
  async verify(id: string): Promise<boolean> {
    return (await hashDirectory(await this.open(id))) === id
  }

  /** Removes an image and its names. Idempotent. Throws `IN_USE` while a vserver of any node of the machine has it. */
  async remove(id: string): Promise<void> {
    if (!ID_PATTERN.test(id)) throw missing(id)
    await this.#requireUnused(id)
    // Renamed first, so that nobody opens it half removed.
    const doomed = join(this.#directory, `import-removed-${randomBytes(6).toString('hex')}`)
    await rename(this.#path(id), doomed).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
    try {
      // Somebody may have begun with a vserver before it could not be opened any more.
      await this.#requireUnused(id)
    } catch (error) {
      await rename(doomed, this.#path(id))
      throw error
    }
    for (const [name, target] of await this.#names()) {
      if (target === id) await rm(join(this.#directory, 'names', name), { force: true })
    }
    await removeTree(doomed)
  }

  /**
   * Removes images that were fetched and have no name until the others of them have at most so many bytes: those first that
   * were not used for longest, and none that a vserver has. Gives the ids of what it removed.
   */
  async evict({ bytesMax, keep }: EvictOptions): Promise<string[]> {
    const fetched = (await Promise.all((await this.#ids()).map((id) => this.#fetched(id)))).flat()
    let bytes = fetched.reduce((sum, image) => sum + image.bytes, 0)
    const removed: string[] = []
    for (const image of fetched.sort((a, b) => a.usedAt - b.usedAt)) {
      if (bytes <= bytesMax) break
      if (image.id === keep || !(await this.#removeUnused(image.id))) continue
      bytes -= image.bytes
      removed.push(image.id)
    }
    return removed
  }

  async #requireUnused(id: string): Promise<void> {
    const [user, ...others] = (await this.users.find()).get(id) ?? []
    if (user === undefined) return
    const more = others.length === 0 ? '' : ` and ${others.length} more`
    throw new SlicenetError('IN_USE', `the image ${id} is that of vserver ${user}${more}`, {
      hint: 'try again when their leases are over; `slicenet lease list` shows them'
    })
  }

  async #removeUnused(id: string): Promise<boolean> {
    try {
      await this.remove(id)
      return true
    } catch (error) {
      if (error instanceof SlicenetError && error.code === 'IN_USE') return false
      throw error
    }
  }

  /** Nothing for an image that its operator took in or gave a name. */
  async #fetched(id: string): Promise<{ id: string; bytes: number; usedAt: number }[]> {
    const [record, used] = await Promise.all([
      this.#record(id),
      stat(this.#recordPath(id)).catch(() => undefined)
    ])
    if (record?.isFetched !== true || used === undefined) return []
    const names = (await this.#names()).filter(([, target]) => target === id)
    return names.length > 0 ? [] : [{ id, bytes: record.bytes, usedAt: used.mtimeMs }]
  }

  async #unpack(
    archive: string,
    work: string,
    summary: ArchiveSummary,
    { id: wanted, isFetched }: ImportOptions
  ): Promise<string> {
    const image = join(work, 'image')
    const root = join(image, 'root')
    await mkdir(root, { recursive: true })
    await unpackArchive(archive, root, summary)
    await chmod(root, 0o755)
    // Before it is hashed, so that the id is of what there is in the end.
    await shareFiles(root, await this.#newestRoots())
    const id = await hashDirectory(root)
    if (wanted !== undefined && id !== wanted) {
      throw new SlicenetError('IMAGE_INVALID', `the archive of ${wanted} is not as a node makes it`)
    }
    const fetched = isFetched === true ? { isFetched } : {}
    const { bytes, entries } = summary
    const record: ImageRecord = { bytes, entries, importedAt: this.#clock.now(), ...fetched }
    await writeFile(join(image, 'image.json'), JSON.stringify(record))
    try {
      await rename(image, this.#path(id))
    } catch (error) {
      // Somebody else brought in the same content.
      const code = (error as NodeJS.ErrnoException).code
      if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error
    }
    return id
  }

  /** Of the images that were taken in last: those most likely to have files of a new one. */
  async #newestRoots(): Promise<string[]> {
    const newest = (await this.list()).slice(0, LIMITS.imagesSharedWithMax)
    return newest.map(({ id }) => join(this.#path(id), 'root'))
  }

  async #point(name: string, id: string): Promise<void> {
    const temporary = join(this.#directory, `import-name-${randomBytes(6).toString('hex')}`)
    await writeFile(temporary, id)
    await rename(temporary, join(this.#directory, 'names', name))
  }

  async #resolve(name: string): Promise<string | undefined> {
    if (!NAME_PATTERN.test(name)) return undefined
    const id = await readFile(join(this.#directory, 'names', name), 'utf8').catch(() => undefined)
    return id !== undefined && ID_PATTERN.test(id) ? id : undefined
  }

  async #names(): Promise<[name: string, id: string][]> {
    const names = await readdir(join(this.#directory, 'names'))
    const pairs = await Promise.all(names.map(async (name) => [name, await this.#resolve(name)] as const))
    return pairs.filter((pair): pair is [string, string] => pair[1] !== undefined)
  }

  async #describe(id: string): Promise<Image> {
    const record = await this.#record(id)
    if (record === undefined) throw missing(id)
    const { bytes, entries, importedAt } = record
    const names = (await this.#names()).filter(([, target]) => target === id).map(([name]) => name)
    return { id, names: names.sort(), bytes, entries, importedAt }
  }

  async #record(id: string): Promise<ImageRecord | undefined> {
    const text = await readFile(this.#recordPath(id), 'utf8').catch(() => undefined)
    return text === undefined ? undefined : (JSON.parse(text) as ImageRecord)
  }

  async #ids(): Promise<string[]> {
    const entries = await readdir(this.#directory)
    return entries.map((entry) => entry.replace('sha256-', 'sha256:')).filter((id) => ID_PATTERN.test(id))
  }

  /** Its time is that of the last use. */
  #recordPath(id: string): string {
    return join(this.#path(id), 'image.json')
  }

  #path(id: string): string {
    return join(this.#directory, id.replace(':', '-'))
  }

  async #sweep(): Promise<void> {
    const oldest = this.#clock.now() - ABANDONED_MS
    await sweepPartialImages(join(this.#directory, PARTIAL), oldest)
    for (const entry of await readdir(this.#directory)) {
      if (!entry.startsWith('import-')) continue
      const path = join(this.#directory, entry)
      const made = await stat(path).catch(() => undefined)
      if (made !== undefined && made.mtimeMs < oldest) await removeTree(path)
    }
  }
}

async function hashDirectory(directory: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of readArchive(directory)) hash.update(chunk)
  return `sha256:${hash.digest('hex')}`
}

function named(error: unknown): unknown {
  const { code, message } = error as NodeJS.ErrnoException
  // A host program says so in words.
  const isFull =
    code === 'HOST_PROGRAM_FAILED' &&
    /No space left on device|Disk quota exceeded|Wrote only \d+ of/.test(message)
  return isFull || code === 'ENOSPC'
    ? new SlicenetError('STORE_FAILED', 'there is no room on the disk for the image', { cause: error })
    : error
}

function checkName(name: string): void {
  if (NAME_PATTERN.test(name) && !/^[0-9a-f]{64}$/.test(name)) return
  throw new SlicenetError('USAGE', `${JSON.stringify(name)} is no name for an image`, {
    hint: 'use up to 63 letters, digits, dots, dashes and underscores, in lower case'
  })
}

function missing(what: string): SlicenetError {
  return new SlicenetError('IMAGE_MISSING', `there is no image ${what} on this node`, {
    hint: '`slicenet image list` shows those that are there'
  })
}
