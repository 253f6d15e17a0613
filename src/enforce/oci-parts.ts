/** What works on vservers once it is known which OCI runtime there is, put together, and what the administrator should know of it. */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { openFilesPerProcess } from './capacity.ts'
import { coreHandlerWarning, readCoreHandler } from './core-handler.ts'
import { OciRuntime, type OciRuntimeName } from './oci-runtime.ts'
import { ProgramRunner } from './program-runner.ts'
import {
  chooseRuntime,
  inspectRuntime,
  vulnerabilityWarning,
  type InstalledRuntime
} from './runtime-choice.ts'
import type { ContainersSeccomp } from './seccomp.ts'
import { Spares } from './spares.ts'
import type { Turns } from './turns.ts'
import { VserverMaker, type VserverMakerComponents } from './vserver-maker.ts'
import { VserverPrograms } from './vserver-programs.ts'
import { NO_DISK_LIMITS } from './volume.ts'

const SECCOMP_PROFILE = '/usr/share/containers/seccomp.json'

/** What vservers are made with whatever the runtime is. */
export interface OciPartsComponents extends Omit<
  VserverMakerComponents,
  'runtime' | 'programs' | 'seccompProfile'
> {
  readonly turns: Turns
}

export interface OciPartsInit {
  readonly stateDirectory: string
  readonly runDirectory: string
  readonly runtime?: OciRuntimeName
  readonly spares?: number
}

export interface OciParts {
  readonly runtime: OciRuntime
  /** What is worse on this machine than an administrator may think, for people. */
  readonly warnings: readonly string[]
  readonly maker: VserverMaker
  readonly programs: VserverPrograms
  readonly spares: Spares
}

/** Starts nothing. Throws `HOST_PROGRAM_MISSING`. */
export async function assembleParts(components: OciPartsComponents, init: OciPartsInit): Promise<OciParts> {
  const { clock, logger, turns, volume } = components
  const stateDirectory = join(init.runDirectory, 'runtime')
  await mkdir(stateDirectory, { recursive: true, mode: 0o700 })
  const profile = await readFile(SECCOMP_PROFILE, 'utf8').catch(() => undefined)
  if (profile === undefined) {
    throw new SlicenetError('HOST_PROGRAM_MISSING', `${SECCOMP_PROFILE} is not installed`, {
      hint: 'run `slicenet doctor --install`'
    })
  }
  const chosen = await installedRuntime(components, init)
  const vulnerable = vulnerabilityWarning(chosen)
  if (vulnerable !== undefined) logger.warn('the OCI runtime is vulnerable', { ...chosen })
  const handler = await readCoreHandler()
  if (handler !== undefined) logger.warn('crashes in vservers reach a program of the host', { handler })
  const disks = volume.quotas ? undefined : NO_DISK_LIMITS
  const warnings = [vulnerable, disks, coreHandlerWarning(handler)].filter((each) => each !== undefined)
  const runtime = new OciRuntime({ name: chosen.name, stateDirectory })
  const openFilesMax = await openFilesPerProcess()
  const runner = new ProgramRunner({ clock, runtime })
  const seccompProfile = JSON.parse(profile) as ContainersSeccomp
  const maker = new VserverMaker(
    { ...components, runtime, programs: runner, seccompProfile },
    { programsDir: join(init.stateDirectory, 'programs'), openFilesMax }
  )
  const programs = new VserverPrograms({ ...components, maker, runner }, { openFilesMax })
  const spares = new Spares({ clock, logger, maker, programs, turns }, { kept: init.spares ?? 0 })
  return { runtime, warnings, maker, programs, spares }
}

async function installedRuntime(
  { cgroups, roots }: OciPartsComponents,
  { runDirectory, runtime: name }: OciPartsInit
): Promise<InstalledRuntime> {
  if (name !== undefined) return (await inspectRuntime(name)) ?? { name, vulnerabilities: [] }
  return chooseRuntime({
    scratchDirectory: runDirectory,
    rootDirectory: roots.initLayer,
    cgroupPath: cgroups.path('probe'),
    unifiedCgroups: cgroups.unified
  })
}
