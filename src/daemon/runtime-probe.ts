/**
 * Finds the OCI runtime that a node on this machine would use, by running a container of nothing but an init program as
 * the node does before it starts; what that leaves is removed.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { systemClock } from '../base/clock.ts'
import { Cgroups } from '../enforce/cgroup.ts'
import { IdRanges, nodeUidBase } from '../enforce/id-ranges.ts'
import { chooseRuntime, type RuntimeChoice } from '../enforce/runtime-choice.ts'
import { VserverRoots } from '../enforce/vserver-root.ts'

/** As root. Throws `HOST_PROGRAM_MISSING` when none works, `KERNEL_FEATURE_MISSING` without cgroups. */
export async function findRuntime(): Promise<RuntimeChoice> {
  const runDirectory = await mkdtemp('/run/slicenet-doctor-')
  const cgroups = new Cgroups({ clock: systemClock }, { parent: `/slicenet-doctor-${process.pid}` })
  // Of the roots only the layer with the init program is made, so no id is taken.
  const idRanges = new IdRanges({ uidBase: nodeUidBase(0) })
  const roots = new VserverRoots({ idRanges }, { runDirectory })
  try {
    await cgroups.find()
    await roots.start()
    return await chooseRuntime({
      scratchDirectory: runDirectory,
      rootDirectory: roots.initLayer,
      cgroupPath: cgroups.path('probe'),
      unifiedCgroups: cgroups.unified
    })
  } finally {
    await cgroups.remove('probe')
    await cgroups.stop()
    await rm(runDirectory, { recursive: true, force: true })
  }
}
