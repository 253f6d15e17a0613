/**
 * Measures vservers on a node in a network namespace of its own: from a demand for a lease to a program running, against the
 * bare OCI runtime and podman with the same limits; and what 300 idle ones take. What is compared takes turns, so that a
 * busy machine slows all alike.
 */
import { chmod, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { systemClock } from '../../src/base/clock.ts'
import { createDevnetNetwork } from '../../src/daemon/devnet-network.ts'
import { readEnvironment } from '../../src/daemon/environment.ts'
import { ImageStore } from '../../src/enforce/image-store.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import { LineProgram } from '../linux/net/lab.ts'
import { imageNamed } from './devnet.ts'
import { figure, median, type BenchContext, type Figure } from './figure.ts'
import type { Made, NodeMachineInit, Taken } from './node-machine.ts'
import { withPodman, type PodmanRun } from './podman.ts'
import { ownDirectory, ownName } from '../linux/own-names.ts'

const IMAGE = 'debian'
const PAIRS = 21
const WARM_UPS = 3
const VSERVERS = 300
/**
 * Memory and disk are looked at every so many. What one vserver takes is the median slope between looks that are half the
 * way apart or more, so that what else the machine does meanwhile spoils one look of many.
 */
const STRIDE = 30
const ENDS = 10
/** What was removed is cleared away by the kernel a little later; the next run is not to pay for it. */
const PAUSE_MS = 250
/** Counters of memory are up to date when all is quiet. */
const SETTLE_MS = 2000
const MIB = 1024 ** 2

const RESOURCES: Resources = {
  cpuMillis: 200,
  cpuMillisMax: 1000,
  memoryBytes: 64 * MIB,
  diskBytes: 64 * MIB,
  egressBps: 1_000_000,
  egressBpsMax: 50_000_000,
  egressBytesPerDay: 1024 ** 3,
  pids: 64
}
const ARGV = ['/bin/sleep', 'infinity']

interface Machine {
  readonly create: () => Promise<Made>
  readonly destroy: (lease: string) => Promise<number>
  readonly bare: () => Promise<number>
  readonly taken: () => Promise<Taken>
  readonly programBytes: (vserver: string) => Promise<number>
}

export async function vserver(context: BenchContext): Promise<readonly Figure[]> {
  const image = await imageNamed(IMAGE, context)
  const images = new ImageStore({ clock: systemClock }, { directory: readEnvironment().imagesDirectory })
  const [imageRoot, { bytes: imageBytes }] = await Promise.all([images.open(image), images.find(image)])
  return withMachine(image, context, async (machine, enter) =>
    withPodman({ enter, imageRoot, resources: RESOURCES, argv: ARGV }, async (podman) => [
      ...(await creations(machine, podman, context)),
      ...(await crowd(machine, imageBytes, context))
    ])
  )
}

/** A node's process in a namespace with an uplink that leads nowhere; all of it is removed whatever happens. */
async function withMachine<T>(
  image: string,
  { signal }: BenchContext,
  use: (machine: Machine, enter: readonly string[]) => Promise<T>
): Promise<T> {
  const directory = await ownDirectory('vs')
  // The roots of vservers lie below it.
  await chmod(directory, 0o711)
  const network = createDevnetNetwork({ name: ownName('vs'), hosts: ['node'] })
  const init: NodeMachineInit = {
    directory: join(directory, 'state'),
    runDirectory: join(directory, 'run'),
    nodeShort: `${ownName('vs')}-node`,
    imagesDirectory: readEnvironment().imagesDirectory,
    image,
    resources: RESOURCES,
    argv: ARGV,
    logs: process.env['SLICENET_BENCH_LOG'] !== undefined
  }
  const program = fileURLToPath(new URL('node-machine.ts', import.meta.url))
  // In a session of its own: Ctrl-C reaches it only through the signal, after which it clears up.
  const begin = (): LineProgram =>
    new LineProgram(['setsid', ...network.enter('node'), process.execPath, program, JSON.stringify(init)])
  let node: LineProgram | undefined
  const ask = async <R>(request: object): Promise<R> => {
    signal.throwIfAborted()
    if (node === undefined) throw new TypeError('the node was not started')
    return node.ask<R>(request)
  }
  try {
    await network.up()
    node = begin()
    await ask({ op: 'start' })
    const machine: Machine = {
      create: async () => ask({ op: 'create' }),
      destroy: async (lease) => ask({ op: 'destroy', lease }),
      bare: async () => ask({ op: 'bare' }),
      taken: async () => ask({ op: 'taken' }),
      programBytes: async (vserver) => ask({ op: 'programBytes', vserver })
    }
    return await use(machine, network.enter('node'))
  } finally {
    if (node !== undefined) await stopNode(node, begin)
    await network.down()
    await rm(directory, { recursive: true, force: true })
  }
}

/** A node that cannot clear up any more is followed by one that finds what it left. */
async function stopNode(node: LineProgram, again: () => LineProgram): Promise<void> {
  try {
    await node.ask({ op: 'stop' })
    await node.end()
  } catch {
    await node.end()
    const next = again()
    try {
      await next.ask({ op: 'stop' })
    } finally {
      await next.end()
    }
  }
}

async function creations(
  machine: Machine,
  podman: PodmanRun | undefined,
  { signal, progress }: BenchContext
): Promise<Figure[]> {
  if (podman === undefined) progress('podman is not installed: create_over_podman is left out')
  const times = { redeem: [], launch: [], destroy: [], bare: [], podman: [] } as Record<string, number[]>
  const [own, bare, other]: [number[], number[], number[]] = [[], [], []]
  const steps = [
    async () => {
      const { lease, redeemMs, launchMs } = await machine.create()
      own.push(redeemMs + launchMs)
      times['redeem']!.push(redeemMs)
      times['launch']!.push(launchMs)
      times['destroy']!.push(await machine.destroy(lease))
    },
    async () => void bare.push(await machine.bare()),
    ...(podman === undefined ? [] : [async () => void other.push(await podman())])
  ]
  for (let run = -WARM_UPS; run < PAIRS; run++) {
    // Now the one first and now the other.
    const order = run % 2 === 0 ? steps : [...steps].reverse()
    for (const step of order) {
      await step()
      await systemClock.sleep(PAUSE_MS, { signal })
    }
    if (run < 0) for (const list of [own, bare, other, ...Object.values(times)]) list.length = 0
  }
  progress(
    `redeem ${brief(times['redeem']!)} ms, then launch ${brief(times['launch']!)} ms; the runtime alone ${brief(bare)} ms`
  )
  const over = (others: readonly number[]): number[] => own.map((value, index) => value / others[index]!)
  return [
    figure('create_over_runtime', over(bare), { unit: 'ratio', atMost: 1.5 }),
    ...(podman === undefined
      ? []
      : [figure('create_over_podman', over(other), { unit: 'ratio', atMost: 0.33 })]),
    figure('create_ms', own, { unit: 'ms' }),
    figure('bare_runtime_ms', bare, { unit: 'ms' }),
    figure('destroy_ms', times['destroy']!, { unit: 'ms' })
  ]
}

/** What was there at one look. */
interface Look {
  readonly disk: number
  readonly memory: number
}

/**
 * Memory is what the machine has less available for each vserver: so with the kernel's part (namespaces, groups, links,
 * mounts), keepers and the node's own process, and without page caches, which it can have back. The program's own part is
 * what no other process shares with it; the rest is of the shared image, and counted as available anyway.
 */
async function crowd(
  machine: Machine,
  imageBytes: number,
  { signal, progress }: BenchContext
): Promise<Figure[]> {
  const look = async (): Promise<Look> => {
    await systemClock.sleep(SETTLE_MS, { signal })
    const { volume, records } = await machine.taken()
    return { disk: volume + records, memory: -(await availableBytes()) }
  }
  const made: Made[] = []
  const looks = [await look()]
  while (made.length < VSERVERS) {
    made.push(await machine.create())
    if (made.length % STRIDE !== 0) continue
    looks.push(await look())
    progress(`${made.length} of ${VSERVERS} vservers run`)
  }
  const programs = await Promise.all(made.slice(0, ENDS).map(({ vserver }) => machine.programBytes(vserver)))
  const ms = made.map(({ redeemMs, launchMs }) => redeemMs + launchMs)
  const [first, last] = [median(ms.slice(0, ENDS)), median(ms.slice(-ENDS))]
  progress(`first created in ${first.toFixed(0)} ms, last in ${last.toFixed(0)} ms`)
  const destroyed: number[] = []
  for (const { lease } of made) destroyed.push(await machine.destroy(lease))
  progress(`destroyed in ${brief(destroyed)} ms each`)
  const perVserver = (of: keyof Look): number[] =>
    looks.flatMap((from, index) =>
      looks
        .map((to, later) => ({ to, steps: later - index }))
        .filter(({ steps }) => steps >= looks.length / 2)
        .map(({ to, steps }) => (to[of] - from[of]) / (steps * STRIDE))
    )
  return [
    figure(
      'disk_per_vserver_over_image',
      perVserver('disk').map((bytes) => bytes / imageBytes),
      { unit: 'ratio', atMost: 0.001 }
    ),
    figure(
      'memory_per_vserver_mib',
      perVserver('memory').map((bytes) => (bytes - median(programs)) / MIB),
      { unit: 'MiB', atMost: 2 }
    ),
    figure('create_300th_over_first', [last / first], { unit: 'ratio', atMost: 1.2 }),
    figure('destroy_300_ms', destroyed, { unit: 'ms' })
  ]
}

async function availableBytes(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8')
  return Number(/^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1]) * 1024
}

function brief(samples: readonly number[]): string {
  return `${median(samples).toFixed(0)} (${Math.min(...samples).toFixed(0)} to ${Math.max(...samples).toFixed(0)})`
}
