/**
 * The few operations on files by which the journal and the head mark are written and read, as a component: tests put a
 * disk in its place that fills up, fails, or loses at a power cut whatever was not synced.
 */
import { constants, mkdir, open, rename, rm, statfs, type FileHandle } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { SlicenetError } from '../base/errors.ts'

export interface DiskFile {
  /** Writes all of `bytes` at `position`. */
  write(bytes: Uint8Array, position: number): Promise<void>
  truncate(length: number): Promise<void>
  /** When it resolves, what was written before and the file's length outlive a power cut (fdatasync). */
  sync(): Promise<void>
  close(): Promise<void>
}

export interface DiskReader {
  /** Reads up to `length` bytes at `position` into `buffer` at `offset`; gives how many, 0 at the file's end. */
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number>
  close(): Promise<void>
}

export interface Disk {
  /** A new, empty file of mode 0600 in place of whatever bore the name. */
  create(path: string): Promise<DiskFile>
  /** An existing file, for writing. */
  open(path: string): Promise<DiskFile>
  /** An existing file, for reading. */
  read(path: string): Promise<DiskReader>
  rename(from: string, to: string): Promise<void>
  /** Removing what is not there is no error. */
  remove(path: string): Promise<void>
  /** Bytes that this account may still write in a directory. */
  free(path: string): Promise<number>
  /** When it resolves, the names in the directory outlive a power cut. */
  syncDirectory(path: string): Promise<void>
}

export const systemDisk: Disk = {
  create: async (path) => wrap(await open(path, 'w', 0o600)),
  open: async (path) => wrap(await open(path, constants.O_WRONLY)),
  read: async (path) => {
    const handle = await open(path, 'r')
    return {
      read: async (buffer, offset, length, position) =>
        (await handle.read(buffer, offset, length, position)).bytesRead,
      close: () => handle.close()
    }
  },
  rename,
  remove: (path) => rm(path, { force: true }),
  free: async (path) => {
    const { bavail, bsize } = await statfs(path)
    return bavail * bsize
  },
  async syncDirectory(path) {
    const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  }
}

function wrap(handle: FileHandle): DiskFile {
  return {
    async write(bytes, position) {
      let done = 0
      // A disk that fills up first takes a part, and reports the error at the next call.
      while (done < bytes.length) {
        const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done)
        done += bytesWritten
      }
    },
    truncate: (length) => handle.truncate(length),
    sync: () => handle.datasync(),
    close: () => handle.close()
  }
}

/** Makes a directory of mode 0700, with those above it, so that it outlives a power cut. */
export async function makeDirectory(disk: Disk, path: string): Promise<void> {
  const absolute = resolve(path)
  const topmost = await mkdir(absolute, { recursive: true, mode: 0o700 })
  if (topmost === undefined) return
  for (let made = absolute; ; made = dirname(made)) {
    await disk.syncDirectory(dirname(made))
    if (made === topmost || made === dirname(made)) return
  }
}

/** Makes a file that is there whole or not at all, whenever the power is cut. */
export async function writeWhole(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}${TEMPORARY_SUFFIX}`
  const file = await disk.create(temporary)
  try {
    await file.write(bytes, 0)
    await file.sync()
  } finally {
    await file.close()
  }
  await disk.rename(temporary, path)
  await disk.syncDirectory(dirname(path))
}

export function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT'
}

/** Files of this ending are left by a crash and mean nothing. */
export const TEMPORARY_SUFFIX = '.tmp'

/** What a failing file system is to the store's user. Keeps an error that already says what is wrong. */
export function asStoreFailure(doing: string, error: unknown): SlicenetError {
  if (error instanceof SlicenetError) return error
  const reason = error instanceof Error ? error.message : String(error)
  const hint = HINTS[(error as NodeJS.ErrnoException | undefined)?.code ?? ''] ?? hintOf(reason)
  return new SlicenetError('STORE_FAILED', `${doing} failed: ${reason}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: error
  })
}

/** LevelDB hands the system's words on, but not its codes. */
function hintOf(reason: string): string | undefined {
  const found = Object.entries(WORDS).find(([words]) => reason.includes(words))
  return found && HINTS[found[1]]
}

const WORDS: Readonly<Record<string, string>> = {
  'No space left on device': 'ENOSPC',
  'Disk quota exceeded': 'EDQUOT',
  'Read-only file system': 'EROFS',
  'Input/output error': 'EIO'
}

const HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full: free some space, then start again; nothing acknowledged is lost',
  EDQUOT: 'the disk quota is used up: raise it, then start again; nothing acknowledged is lost',
  EROFS: 'the file system is read-only: the kernel does this after disk errors, see its log',
  EIO: 'the disk reports errors: see the kernel log, and keep a copy of the directory before anything else',
  EACCES: 'the directory belongs to another account'
}
