/**
 * The node's disk for vservers: a btrfs file system in a sparse file, mounted beside it, with one subvolume a vserver
 * and a quota on each (design §5). Where btrfs cannot be had it is a plain directory, which limits nothing.
 */
import { chmod, mkdir, readdir, rename, rm, stat, statfs, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { asSlicenetError, SlicenetError } from '../base/errors.ts'
import { run, runAnyway } from '../base/host-program.ts'
import type { Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import { isMountPoint } from './mount-table.ts'
import { removeTree } from './remove-tree.ts'
import { limitSubvolume, makeSubvolume, unmount } from './syscall.ts'

/** What a machine without btrfs gets, for people. */
export const NO_DISK_LIMITS =
  'there is no btrfs volume: the disk limits of vservers are NOT enforced, and any of them can fill the disk'

const DELETIONS_PER_SWEEP = 32
const BLOCK_BYTES = 512

export interface VolumeComponents {
  readonly logger: Logger
}

export interface VolumeInit {
  /** Of this node alone; `volume.img` and the directory `volume` are made in it. */
  readonly stateDirectory: string
  /** Size of the file system; the file takes only what is used. Existing volumes keep theirs. */
  readonly sizeBytes: number
}

export class Volume implements Startable {
  readonly #logger: Logger
  readonly #file: string
  readonly #directory: string
  readonly #sizeBytes: number
  #quotas = false
  #deletions = 0

  constructor(components: VolumeComponents, init: VolumeInit) {
    this.#logger = components.logger
    this.#file = join(init.stateDirectory, 'volume.img')
    this.#directory = join(init.stateDirectory, 'volume')
    this.#sizeBytes = init.sizeBytes
  }

  /** Whether disk limits hold. */
  get quotas(): boolean {
    return this.#quotas
  }

  path(id: string): string {
    return join(this.#directory, id)
  }

  /** Mounts the volume, making it when there is none; one that an earlier daemon left mounted is taken over. */
  async start(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    if (await isMountPoint(this.#directory)) {
      this.#quotas = true
      return
    }
    try {
      await this.#makeFile()
      // Owners and set-user-id bits inside belong to ranges that no account of the host has.
      await run('mount', ['-t', 'btrfs', '-o', 'loop,noatime,nodev', this.#file, this.#directory])
      await chmod(this.#directory, 0o700)
      this.#quotas = true
    } catch (error) {
      this.#quotas = false
      this.#logger.error(NO_DISK_LIMITS, {
        directory: this.#directory,
        error: asSlicenetError(error)
      })
    }
  }

  /** Leaves the volume mounted, since vservers run on without the daemon; `close` unmounts it. */
  async stop(): Promise<void> {}

  /** Unmounts the volume, which lets go of its loop device. Idempotent. */
  async close(): Promise<void> {
    if (await isMountPoint(this.#directory)) unmount(this.#directory)
    this.#quotas = false
  }

  /**
   * Makes an empty directory for vserver `id` that can hold `limitBytes`. An existing one gets the limit. Throws
   * `VSERVER_FAILED` when the volume is gone.
   */
  async create(id: string, limitBytes: number): Promise<string> {
    const path = this.path(id)
    if (!this.#quotas) {
      await mkdir(path, { recursive: true })
      return path
    }
    const exists = await stat(path).then(
      () => true,
      () => false
    )
    try {
      if (!exists) makeSubvolume(path)
      limitSubvolume(path, limitBytes)
    } catch (error) {
      throw (await isMountPoint(this.#directory)) ? error : this.#gone(error)
    }
    return path
  }

  /** Whoever took the loop device away left the directory that the volume was mounted on. */
  #gone(cause: unknown): SlicenetError {
    return new SlicenetError('VSERVER_FAILED', `the volume ${this.#directory} is not mounted any more`, {
      hint: 'start the daemon of the node again, which mounts it',
      cause
    })
  }

  /** Gives a vserver that has a directory another limit. */
  limit(id: string, limitBytes: number): void {
    if (this.#quotas) limitSubvolume(this.path(id), limitBytes)
  }

  /** Removes a vserver's directory with all that is in it. Idempotent. */
  async destroy(id: string): Promise<void> {
    const path = this.path(id)
    if (this.#quotas) {
      const result = await runAnyway('btrfs', ['--quiet', 'subvolume', 'delete', path])
      if (result.exitCode === 0) {
        if (++this.#deletions % DELETIONS_PER_SWEEP === 0) await this.sweepQuotas()
        return
      }
    }
    await removeTree(path)
  }

  /** Ids that have a directory. */
  async list(): Promise<string[]> {
    const entries = await readdir(this.#directory, { withFileTypes: true }).catch(() => [])
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  }

  /** Bytes that a vserver's files take, up to date to some seconds. */
  async usedBytes(id: string): Promise<number> {
    if (!this.#quotas) {
      const result = await runAnyway('du', ['--summarize', '--block-size=1', this.path(id)])
      return Number.parseInt(result.stdout, 10) || 0
    }
    const table = await run('btrfs', ['qgroup', 'show', '-f', '--raw', this.path(id)])
    const row = table.split('\n').find((line) => /^\d+\/\d+\s/.test(line.trim()))
    return Number(row?.trim().split(/\s+/)[1] ?? 0)
  }

  /** Bytes that vservers can have: the volume's size, or less where the host's disk cannot take it in full. */
  async capacityBytes(): Promise<number> {
    const [volume, host, file] = await Promise.all([
      statfs(this.#directory),
      statfs(dirname(this.#file)),
      stat(this.#file).catch(() => undefined)
    ])
    const taken = (file?.blocks ?? 0) * BLOCK_BYTES
    return Math.min(volume.blocks * volume.bsize, taken + host.bavail * host.bsize)
  }

  /** Forgets the quota groups of subvolumes that are gone; the kernel refuses while it still deletes one. */
  async sweepQuotas(): Promise<void> {
    if (!this.#quotas) return
    const result = await runAnyway('btrfs', ['qgroup', 'show', '--raw', this.#directory])
    for (const line of result.stdout.split('\n')) {
      const group = /^\s*(0\/\d+)\s.*<stale>\s*$/.exec(line)?.[1]
      if (group !== undefined) await runAnyway('btrfs', ['qgroup', 'destroy', group, this.#directory])
    }
  }

  async #makeFile(): Promise<void> {
    if (await stat(this.#file).catch(() => undefined)) return
    const temporary = `${this.#file}.new`
    await rm(temporary, { force: true })
    await writeFile(temporary, '', { mode: 0o600 })
    await truncate(temporary, this.#sizeBytes)
    await run('mkfs.btrfs', ['--quiet', '--metadata', 'single', '-R', 'quota', temporary])
    await rename(temporary, this.#file)
  }
}
