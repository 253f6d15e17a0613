/**
 * The yardstick for a redemption: the OCI runtime alone, given the bundle that the enforcer would give it for the same
 * description (root file system, limits, namespaces, system call filter), with nothing of slicenet round it.
 */
import { spawnSync } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { HOST_PATH } from '../../src/base/host-program.ts'
import { prepareRoot } from '../../src/enforce/account.ts'
import { openFilesPerProcess } from '../../src/enforce/capacity.ts'
import { Cgroups } from '../../src/enforce/cgroup.ts'
import type { VserverSpec } from '../../src/enforce/enforcer.ts'
import { IdRanges, nodeUidBase } from '../../src/enforce/id-ranges.ts'
import { ImageStore } from '../../src/enforce/image-store.ts'
import { ociConfig } from '../../src/enforce/oci-config.ts'
import type { OciRuntimeName } from '../../src/enforce/oci-runtime.ts'
import type { ContainersSeccomp } from '../../src/enforce/seccomp.ts'
import { VserverRoots } from '../../src/enforce/vserver-root.ts'
import { ownName } from '../linux/own-names.ts'

/** Beyond the indexes that nodes of one machine have. */
const UID_INDEX = 100
const SECCOMP_PROFILE = '/usr/share/containers/seccomp.json'

export interface BareRuntimeInit {
  readonly runtime: OciRuntimeName
  readonly imagesDirectory: string
  readonly spec: VserverSpec
}

/** Milliseconds from nothing to a running container. */
export type BareRun = () => number

/** Prepares the bundle ahead, hands out what makes and removes one container of it, and clears up. */
export async function withBareRuntime<T>(
  init: BareRuntimeInit,
  use: (run: BareRun) => Promise<T>
): Promise<T> {
  const { spec, runtime } = init
  const runDirectory = await mkdtemp(`/run/slicenet-${ownName('bare')}-`)
  await chmod(runDirectory, 0o711)
  const uidBase = nodeUidBase(UID_INDEX)
  const idRanges = new IdRanges({ uidBase })
  const roots = new VserverRoots({ idRanges }, { runDirectory })
  const cgroups = new Cgroups({ clock: systemClock }, { parent: `/slicenet-${ownName('bare')}` })
  const stateDir = join(runDirectory, 'state')
  const bundle = roots.bundle(spec.id)
  const command = (...words: readonly string[]): void => {
    const { status } = spawnSync(runtime, ['--root', stateDir, ...words], {
      stdio: 'ignore',
      env: { PATH: HOST_PATH }
    })
    if (status !== 0) throw new Error(`${runtime} ${words.join(' ')} exited with ${status}`)
  }
  try {
    await mkdir(stateDir)
    const disk = join(runDirectory, 'disk')
    await mkdir(disk)
    await roots.start()
    await cgroups.start()
    const images = new ImageStore({ clock: systemClock }, { directory: init.imagesDirectory })
    const imageRoot = await images.open(spec.image)
    const { id, slice, keys } = spec
    const prepare = (rootFd: number): void => prepareRoot(rootFd, { slice, keys, uidBase })
    await roots.make({ id, uidBase, imageRoot, disk: Promise.resolve(disk), prepare })
    const config = ociConfig({
      spec,
      uidBase,
      rootPath: roots.rootPath(id),
      cgroupPath: cgroups.path(id),
      seccompProfile: JSON.parse(await readFile(SECCOMP_PROFILE, 'utf8')) as ContainersSeccomp,
      openFilesMax: await openFilesPerProcess(),
      arch: process.arch
    })
    await writeFile(join(bundle, 'config.json'), JSON.stringify(config))
    return await use(() => {
      const began = performance.now()
      command('create', '--bundle', bundle, '--pid-file', join(bundle, 'init.pid'), id)
      try {
        command('start', id)
        return performance.now() - began
      } finally {
        command('delete', '--force', id)
      }
    })
  } finally {
    await roots.remove(spec.id)
    await idRanges.stop()
    await cgroups.remove(spec.id)
    await cgroups.stop()
    await rm(runDirectory, { recursive: true, force: true })
  }
}
