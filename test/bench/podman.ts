/**
 * Another yardstick, where it is installed: `podman run` of the same program over the same image, with a network and the
 * same limits, until it says that the container runs.
 */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { run, runAnyway } from '../../src/base/host-program.ts'
import { findHostProgram } from '../../src/enforce/host-requirements.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import { ownDirectory } from '../linux/own-names.ts'

export interface PodmanInit {
  /** What comes before the command, so that its bridge is not in the machine's own network. */
  readonly enter: readonly string[]
  /** The unpacked image. */
  readonly imageRoot: string
  readonly resources: Resources
  readonly argv: readonly string[]
}

/** Milliseconds from the command's start to its end; the container is removed before it resolves. */
export type PodmanRun = () => Promise<number>

/** Hands out `undefined` where podman is not installed. All that podman keeps is in a directory of its own. */
export async function withPodman<T>(
  { enter, imageRoot, resources, argv }: PodmanInit,
  use: (run: PodmanRun | undefined) => Promise<T>
): Promise<T> {
  if ((await findHostProgram('podman')) === undefined) return use(undefined)
  const directory = await ownDirectory('podman')
  const words = (...more: readonly string[]): [string, string[]] => {
    const [program, ...rest] = [...enter, 'podman']
    const own = ['--root', join(directory, 'root'), '--runroot', join(directory, 'run')]
    return [program, [...rest, ...own, '--cgroup-manager=cgroupfs', ...more]]
  }
  const limits = [
    `--memory=${resources.memoryBytes}`,
    `--memory-swap=${resources.memoryBytes}`,
    `--pids-limit=${resources.pids}`,
    `--cpus=${resources.cpuMillisMax / 1000}`,
    // Its own defaults are more than root may raise to everywhere.
    '--ulimit=nofile=1024:1024',
    '--ulimit=nproc=1024:1024'
  ]
  // Of the image's directory only a layer above is written to.
  const command = ['run', '--detach', '--network=bridge', ...limits, '--rootfs', `${imageRoot}:O`, ...argv]
  try {
    return await use(async () => {
      const began = performance.now()
      const id = (await run(...words(...command))).trim()
      const elapsed = performance.now() - began
      await run(...words('rm', '--force', '--time', '0', id))
      return elapsed
    })
  } finally {
    await runAnyway(...words('rm', '--all', '--force', '--time', '0'))
    await runAnyway(...words('system', 'reset', '--force'))
    await rm(directory, { recursive: true, force: true })
  }
}
