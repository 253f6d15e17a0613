/**
 * Disks that fail, for the tests. `UnreliableDisk` keeps written bytes in memory until they are synced, as the kernel
 * does, and at a power cut lets a random part of the rest reach the disk, sector by sector. The others refuse to write,
 * to sync or to read.
 */
import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import type { Disk, DiskFile } from '../../src/store/disk.ts'
import { systemDisk } from '../../src/store/disk.ts'

/** Less than any disk's, so that marks get torn too. */
const SECTOR_BYTES = 32

interface Write {
  readonly bytes: Uint8Array
  readonly position: number
}

interface Cached {
  path: string
  readonly file: DiskFile
  writes: Write[]
}

/** Renames are not held back: ext4 orders them after the content, and the store syncs the directory at once. */
export class UnreliableDisk implements Disk {
  /** Gives an integer from 0 to below `bound`. */
  readonly #random: (bound: number) => number
  readonly #ignoreSync: (path: string) => boolean
  #open: Cached[] = []
  #off = false
  #operationsLeft: number

  constructor(init: {
    readonly random: (bound: number) => number
    /** The power is cut in the middle of the operation after so many. */
    readonly operations: number
    /** For controls: a disk that says it has synced and has not. */
    readonly ignoreSync?: (path: string) => boolean
  }) {
    this.#random = init.random
    this.#operationsLeft = init.operations
    this.#ignoreSync = init.ignoreSync ?? (() => false)
  }

  /** What survives is on the disk when it resolves; the store that uses this disk gets errors from now on. */
  async cutPower(): Promise<void> {
    this.#off = true
    const files = this.#open
    this.#open = []
    for (const { file, writes } of files) {
      for (const write of writes) await this.#keepSome(file, write)
      await file.close()
    }
  }

  create = async (path: string): Promise<DiskFile> =>
    this.#wrap(path, await this.#do(() => systemDisk.create(path)))
  open = async (path: string): Promise<DiskFile> =>
    this.#wrap(path, await this.#do(() => systemDisk.open(path)))
  read = (path: string): ReturnType<Disk['read']> => {
    if (this.#off) throw new Error('the power is off')
    return systemDisk.read(path)
  }
  free = (path: string): Promise<number> => systemDisk.free(path)
  remove = (path: string): Promise<void> => this.#do(() => systemDisk.remove(path))
  syncDirectory = (path: string): Promise<void> => this.#do(() => systemDisk.syncDirectory(path))
  rename = (from: string, to: string): Promise<void> =>
    this.#do(async () => {
      await systemDisk.rename(from, to)
      for (const cached of this.#open) if (cached.path === from) cached.path = to
    })

  async #do<T>(operation: () => Promise<T>): Promise<T> {
    if (!this.#off && this.#operationsLeft-- <= 0) await this.cutPower()
    if (this.#off) throw Object.assign(new Error('the power is off'), { code: 'EIO' })
    return operation()
  }

  #wrap(path: string, file: DiskFile): DiskFile {
    const cached: Cached = { path, file, writes: [] }
    this.#open.push(cached)
    const flush = async (): Promise<void> => {
      const { writes } = cached
      cached.writes = []
      for (const { bytes, position } of writes) await file.write(bytes, position)
      await file.sync()
    }
    return {
      write: async (bytes, position) => {
        // Noted first: the power may go while it is under way.
        if (!this.#off) cached.writes.push({ bytes: Uint8Array.from(bytes), position })
        await this.#do(async () => {})
      },
      truncate: (length) => this.#do(() => file.truncate(length)),
      sync: () => this.#do(async () => (this.#ignoreSync(cached.path) ? undefined : flush())),
      close: async () => {
        if (this.#off) return
        // Closing syncs nothing, but the file need not be held any more: what it still holds back is given up.
        if (cached.writes.length > 0) return
        this.#open = this.#open.filter((other) => other !== cached)
        await file.close()
      }
    }
  }

  async #keepSome(file: DiskFile, write: Write): Promise<void> {
    const { bytes, position } = write
    for (let start = 0; start < bytes.length;) {
      const end = Math.min(bytes.length, start + SECTOR_BYTES - ((position + start) % SECTOR_BYTES))
      if (this.#random(2) === 0) await file.write(bytes.subarray(start, end), position + start)
      start = end
    }
  }
}

/** The system's disk, with a line for each thing done to it: `write head 4096 84`, `sync head`. */
export function recordingDisk(lines: string[]): Disk {
  const wrap = (path: string, file: DiskFile): DiskFile => ({
    ...file,
    async write(bytes, position) {
      lines.push(`write ${basename(path)} ${position} ${bytes.length}`)
      await file.write(bytes, position)
    },
    async sync() {
      lines.push(`sync ${basename(path)}`)
      await file.sync()
    }
  })
  return {
    ...systemDisk,
    create: async (path) => wrap(path, await systemDisk.create(path)),
    open: async (path) => wrap(path, await systemDisk.open(path))
  }
}

/** Takes `bytes` bytes, then fails each write with `code` after writing the part for which there was room. */
export function failingDisk(init: {
  readonly bytes: number
  readonly code: string
  /** Fails syncs instead, once so many bytes were written. */
  readonly onSync?: boolean
}): Disk {
  let left = init.bytes
  const failure = (): Error => Object.assign(new Error(`${init.code}: injected`), { code: init.code })
  const wrap = (file: DiskFile): DiskFile => ({
    ...file,
    async write(bytes, position) {
      const part = init.onSync === true ? bytes : bytes.subarray(0, Math.max(0, left))
      left -= bytes.length
      await file.write(part, position)
      if (part.length < bytes.length) throw failure()
    },
    async sync() {
      if (init.onSync === true && left < 0) throw failure()
      await file.sync()
    }
  })
  return {
    ...systemDisk,
    create: async (path) => wrap(await systemDisk.create(path)),
    open: async (path) => wrap(await systemDisk.open(path))
  }
}

/** A disk of so many bytes for all files that were opened or made. What is removed makes room again. */
export class SmallDisk implements Disk {
  bytesMax: number
  readonly #sizes = new Map<string, number>()
  /** What it says is free; the truth would keep a store from filling it up. */
  readonly #saysFree: number

  constructor(init: { readonly bytes: number; readonly saysFree: number }) {
    this.bytesMax = init.bytes
    this.#saysFree = init.saysFree
  }

  create = async (path: string): Promise<DiskFile> => {
    this.#sizes.set(path, 0)
    return this.#wrap(path, await systemDisk.create(path))
  }
  open = async (path: string): Promise<DiskFile> => {
    if (!this.#sizes.has(path)) this.#sizes.set(path, (await stat(path)).size)
    return this.#wrap(path, await systemDisk.open(path))
  }
  read = (path: string): ReturnType<Disk['read']> => systemDisk.read(path)
  free = async (): Promise<number> => this.#saysFree
  syncDirectory = (path: string): Promise<void> => systemDisk.syncDirectory(path)
  remove = async (path: string): Promise<void> => {
    await systemDisk.remove(path)
    this.#sizes.delete(path)
  }
  rename = async (from: string, to: string): Promise<void> => {
    await systemDisk.rename(from, to)
    this.#sizes.set(to, this.#sizes.get(from) ?? 0)
    this.#sizes.delete(from)
  }

  #wrap(path: string, file: DiskFile): DiskFile {
    return {
      ...file,
      write: async (bytes, position) => {
        const before = this.#sizes.get(path) ?? 0
        const after = Math.max(before, position + bytes.length)
        const others = [...this.#sizes.values()].reduce((sum, size) => sum + size, -before)
        if (others + after > this.bytesMax) {
          throw Object.assign(new Error('ENOSPC: injected'), { code: 'ENOSPC' })
        }
        this.#sizes.set(path, after)
        await file.write(bytes, position)
      }
    }
  }
}

/** The system's disk, but reading fails with EIO after so many reads of files whose path ends so. */
export function unreadableDisk(init: { readonly suffix: string; readonly reads: number }): Disk {
  let left = init.reads
  return {
    ...systemDisk,
    read: async (path) => {
      const file = await systemDisk.read(path)
      return {
        ...file,
        read: async (buffer, offset, length, position) => {
          if (path.endsWith(init.suffix) && left-- <= 0) {
            throw Object.assign(new Error('EIO: injected'), { code: 'EIO' })
          }
          return file.read(buffer, offset, length, position)
        }
      }
    }
  }
}
