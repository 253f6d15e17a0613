/**
 * One process owns a store's directory at a time. The lock is that of a LevelDB which holds nothing: an fcntl lock on
 * its LOCK file, which the kernel drops when the process dies, however it dies. It is not the tables' own, because those
 * are wiped at times, and the journal must not be touched before somebody owns it.
 */
import { mkdir, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Level } from 'level'
import { SlicenetError } from '../base/errors.ts'
import { asStoreFailure } from './disk.ts'
import { layoutOf } from './layout.ts'

/**
 * Directories that this process owns. LevelDB must not be asked a second time in the same process: it opens and closes
 * the LOCK file on its way to a refusal, and closing any descriptor of a file drops the process's fcntl lock on it.
 */
const owned = new Set<string>()

export class DirectoryLock {
  readonly #name: string
  readonly #level: Level

  private constructor(name: string, level: Level) {
    this.#name = name
    this.#level = level
  }

  /** Makes the directory if need be. Throws `STORE_LOCKED` with the owner's process id, `STORE_FAILED`. */
  static async acquire(directory: string): Promise<DirectoryLock> {
    const { lock, owner } = layoutOf(directory)
    let name: string
    try {
      await mkdir(lock, { recursive: true, mode: 0o700 })
      name = await realpath(directory)
    } catch (error) {
      throw asStoreFailure('making the store', error)
    }
    if (owned.has(name)) throw locked(directory, process.pid)
    owned.add(name)
    try {
      const level = await openLock(lock, async () => locked(directory, await readOwner(owner)))
      try {
        await writeFile(owner, `${process.pid}\n`, { mode: 0o600 })
      } catch (error) {
        await level.close()
        throw error
      }
      return new DirectoryLock(name, level)
    } catch (error) {
      owned.delete(name)
      throw asStoreFailure('locking the store', error)
    }
  }

  async release(): Promise<void> {
    await this.#level.close()
    owned.delete(this.#name)
  }
}

async function openLock(path: string, refusal: () => Promise<SlicenetError>): Promise<Level> {
  for (let attempt = 0; ; attempt++) {
    const level = new Level(path)
    try {
      await level.open()
      return level
    } catch (error) {
      if (isLevelLocked(error)) throw await refusal()
      if (attempt > 0) throw error
      // A power cut has damaged it. All but the LOCK file may go, even if another process does the same meanwhile: what
      // is locked is that file, and nothing is read from the others.
      const names = await readdir(path)
      await Promise.all(names.filter((name) => name !== 'LOCK').map((name) => rm(join(path, name))))
    }
  }
}

/** Whether an error of `Level.open` says that somebody else has it open. */
export function isLevelLocked(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined
  return cause instanceof Error && 'code' in cause && cause.code === 'LEVEL_LOCKED'
}

/** The process named in the owner file, if it is alive: the file may lag behind the lock. */
async function readOwner(path: string): Promise<number | undefined> {
  try {
    const pid = Number.parseInt(await readFile(path, 'utf8'), 10)
    if (!(pid > 0)) return undefined
    process.kill(pid, 0)
    return pid
  } catch (error) {
    // The process of another account is alive too.
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return undefined
    return Number.parseInt(await readFile(path, 'utf8'), 10)
  }
}

function locked(directory: string, pid: number | undefined): SlicenetError {
  return new SlicenetError('STORE_LOCKED', `the store in ${directory} is in use`, {
    hint:
      pid === undefined
        ? 'another process has it open: stop that one'
        : `process ${pid} has it open: stop it`,
    ...(pid === undefined ? {} : { details: { pid } })
  })
}
