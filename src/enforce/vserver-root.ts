/**
 * The root file system of a vserver (design §5): the shared image, its owners shifted into the vserver's range without
 * a copy, below a writable layer of its own that the disk quota limits. An extra layer brings the init
 * program, and the shell that waits to become another.
 */
import { chmod, chown, copyFile, mkdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import type { Startable } from '../base/lifecycle.ts'
import { findHostProgram, isStatic } from './host-requirements.ts'
import type { IdRanges } from './id-ranges.ts'
import { isMountPoint } from './mount-table.ts'
import { withRoot } from './root-files.ts'
import { INIT_PATH } from './oci-config.ts'
import { mount, MOUNT_FLAGS, mountIdmapped, unmount } from './syscall.ts'
import { SHELL_PATH } from './waiting-start.ts'

export interface VserverRootsComponents {
  readonly idRanges: IdRanges
}

export interface VserverRootsInit {
  /** Lost at a reboot, as mounts are; every directory above it must let accounts of the host pass. */
  readonly runDirectory: string
}

export interface MakeRootInit {
  /** What the container is called. */
  readonly id: string
  /** Host id of the vserver's root. */
  readonly uidBase: number
  /** The unpacked image. */
  readonly imageRoot: string
  /** The vserver's directory on the volume; a promise, so that it can be made meanwhile. */
  readonly disk: Promise<string>
  /** Writes what is to be in it from the beginning. */
  readonly prepare: (rootFd: number) => void
}

export class VserverRoots implements Startable {
  readonly #idRanges: IdRanges
  readonly #runDirectory: string
  #hasShell = false

  constructor(components: VserverRootsComponents, init: VserverRootsInit) {
    this.#idRanges = components.idRanges
    this.#runDirectory = init.runDirectory
  }

  /** The layer with the init program, which also serves as the root of a probe. */
  get initLayer(): string {
    return join(this.#runDirectory, 'init')
  }

  /** What belongs to one vserver while it runs: its OCI bundle and mount points. */
  bundle(id: string): string {
    return join(this.#runDirectory, 'vservers', id)
  }

  rootPath(id: string): string {
    return join(this.bundle(id), 'root')
  }

  async start(): Promise<void> {
    for (const directory of [this.#runDirectory, join(this.#runDirectory, 'vservers')]) {
      await mkdir(directory, { recursive: true })
      // A vserver's root must be able to pass, and nobody needs to look.
      await chmod(directory, 0o711)
    }
    const init = await findHostProgram('catatonit')
    if (init === undefined) {
      throw new SlicenetError('HOST_PROGRAM_MISSING', 'the program catatonit is not installed', {
        hint: 'run `slicenet doctor --install`'
      })
    }
    // /proc is there for the probe.
    for (const directory of ['.slicenet', 'proc', 'dev', 'sys']) {
      await mkdir(join(this.initLayer, directory), { recursive: true, mode: 0o755 })
    }
    await this.#bring(init, INIT_PATH)
    const busybox = await findHostProgram('busybox')
    this.#hasShell = busybox !== undefined && (await isStatic(busybox))
    if (busybox !== undefined && this.#hasShell) await this.#bring(busybox, SHELL_PATH)
  }

  /** Whether programs' starts can be made ahead: there is a shell for it in every root. */
  get hasShell(): boolean {
    return this.#hasShell
  }

  /** Copies a program into the layer: nothing in a vserver refers to a file that the host runs too. */
  async #bring(program: string, to: string): Promise<void> {
    const path = join(this.initLayer, to)
    const [have, want] = await Promise.all([stat(path).catch(() => undefined), stat(program)])
    // Running vservers keep the file they have; a newer one comes beside it under the same name.
    if (have?.size === want.size && have.mtimeMs >= want.mtimeMs) return
    await copyFile(program, `${path}.new`)
    await chmod(`${path}.new`, 0o755)
    await rename(`${path}.new`, path)
  }

  async stop(): Promise<void> {}

  /** Mounts the root and prepares it. Idempotent: one that is mounted stays as it is. */
  async make(init: MakeRootInit): Promise<void> {
    const bundle = this.bundle(init.id)
    const lower = join(bundle, 'lower')
    const root = this.rootPath(init.id)
    if (await isMountPoint(root)) return
    await mkdir(lower, { recursive: true })
    await mkdir(root, { recursive: true })
    // Only the vserver's own root may pass: a set-user-id program in there is nothing for the host's accounts.
    await chown(bundle, 0, init.uidBase)
    await chmod(bundle, 0o710)
    const disk = await init.disk
    const upper = join(disk, 'upper')
    const work = join(disk, 'work')
    await Promise.all([mkdir(upper, { recursive: true }), mkdir(work, { recursive: true })])
    await chown(upper, init.uidBase, init.uidBase)
    await chmod(upper, 0o755)
    await this.#idRanges.withNamespace(init.uidBase, (fd) => mountIdmapped(init.imageRoot, lower, fd))
    try {
      mount({
        source: 'overlay',
        target: root,
        type: 'overlay',
        flags: MOUNT_FLAGS.nodev,
        data: [
          `lowerdir=${escapeLayer(this.initLayer)}:${escapeLayer(lower)}`,
          `upperdir=${escapeLayer(upper)}`,
          `workdir=${escapeLayer(work)}`,
          // Layers carry no instructions to the kernel, whoever made them.
          'redirect_dir=nofollow',
          'metacopy=off',
          'index=off'
        ].join(',')
      })
    } finally {
      // The overlay holds a private copy of this mount.
      unmount(lower)
    }
    withRoot(root, init.prepare)
  }

  /** Unmounts the root and removes the bundle. Idempotent. */
  async remove(id: string): Promise<void> {
    unmount(join(this.bundle(id), 'lower'))
    unmount(this.rootPath(id))
    await rm(this.bundle(id), { recursive: true, force: true })
  }
}

/** Colons part layers and commas part options. */
function escapeLayer(path: string): string {
  return path.replaceAll(/[\\:,]/g, String.raw`\$&`)
}
