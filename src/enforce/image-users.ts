/**
 * Which images of a store vservers have. Several nodes of a machine share a store, and vservers outlive the daemons that made
 * them: so each node leaves a link to its records, which tell by themselves, and nothing any more once they are gone.
 */
import { createHash } from 'node:crypto'
import { mkdir, readdir, readlink, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { readRecords, whereGone } from './vserver-records.ts'

export class ImageUsers {
  readonly #directory: string

  /** `directory` is of the links alone. */
  constructor(directory: string) {
    this.#directory = directory
  }

  /** Counts the vservers of the records in `recordsDirectory`, which is there, from now on. Idempotent. */
  async register(recordsDirectory: string): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    const name = createHash('sha256').update(recordsDirectory).digest('hex').slice(0, 32)
    await symlink(recordsDirectory, join(this.#directory, name)).catch((error: NodeJS.ErrnoException) => {
      // Its name is that of where it leads.
      if (error.code !== 'EEXIST') throw error
    })
    // Forgets those that are gone.
    await this.find()
  }

  /** Ids of vservers by the id of their image. */
  async find(): Promise<ReadonlyMap<string, readonly string[]>> {
    const found = new Map<string, string[]>()
    for (const name of await readdir(this.#directory).catch(whereGone([]))) {
      const path = join(this.#directory, name)
      const target = await readlink(path).catch(whereGone(undefined))
      const records = target === undefined ? undefined : await readRecords(target)
      // The node is gone, with all that it had.
      if (records === undefined) await rm(path, { force: true })
      for (const { spec } of records ?? []) found.set(spec.image, [...(found.get(spec.image) ?? []), spec.id])
    }
    return found
  }
}
