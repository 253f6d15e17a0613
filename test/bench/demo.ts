/**
 * Measures what the demo does, on the same devnet of 4 nodes and 2 agents: a redemption against the bare OCI runtime, a
 * slice of three against one lease, and how long the devnet takes to be ready. What is compared alternates, so that a
 * busy machine slows both alike.
 */
import { systemClock } from '../../src/base/clock.ts'
import { findNodes } from '../../src/daemon/control-client.ts'
import { readEnvironment } from '../../src/daemon/environment.ts'
import { OCI_RUNTIMES } from '../../src/enforce/oci-runtime.ts'
import type { SliceDescription } from '../../src/service/slice.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import { withBareRuntime } from './bare-runtime.ts'
import { imageNamed, withDevnet, type BenchDevnet } from './devnet.ts'
import { figure, median, type BenchContext, type Figure } from './figure.ts'

const DEVNET = { name: 'bench', nodes: 4, agents: 2 }
const DEVNETS = 3
const REDEMPTIONS = 21
const SLICES = 15
const IMAGE = 'debian'
/** What was removed is cleared away by the kernel a little later; the next run is not to pay for it. */
const PAUSE_MS = 250

const RESOURCES: Resources = {
  cpuMillis: 200,
  cpuMillisMax: 1000,
  memoryBytes: 64 * 1024 * 1024,
  diskBytes: 64 * 1024 * 1024,
  egressBps: 1_000_000,
  egressBpsMax: 50_000_000,
  egressBytesPerDay: 1024 ** 3,
  pids: 64
}

export async function demo(context: BenchContext): Promise<readonly Figure[]> {
  const image = await imageNamed(IMAGE, context)
  const readySeconds: number[] = []
  const figures: Figure[] = []
  for (let run = 0; run < DEVNETS; run++) {
    await withDevnet(DEVNET, context, async (devnet) => {
      readySeconds.push(devnet.upMs / 1000)
      context.progress(`devnet ${run + 1} of ${DEVNETS} ready after ${(devnet.upMs / 1000).toFixed(1)} s`)
      if (run > 0) return
      // Every node's first vserver reads the image from disk.
      await createSlice(devnet, { name: 'warm-up', count: DEVNET.nodes, image }, context)
      figures.push(await redeemOverRuntime(devnet, image, context))
      figures.push(await slice3OverLease(devnet, image, context))
    })
  }
  return [...figures, figure('devnet4_ready_s', readySeconds, { unit: 's', atMost: 15 })]
}

/** The holder's time from the demand in hand to the lease written down, less the runtime's for an equal bundle. */
async function redeemOverRuntime(devnet: BenchDevnet, image: string, context: BenchContext): Promise<Figure> {
  const [node] = await findNodes(devnet.researcher, undefined, { signal: context.signal })
  const runtime = OCI_RUNTIMES.find((name) => node?.attributes['monitor'] === `oci/${name}`)
  if (node === undefined || runtime === undefined) throw new Error('no node runs an OCI runtime')
  const wish = { name: 'one', count: 1, image, query: `node.name == "${node.name}"` }
  const spec = { id: 'one-bare', slice: 'one', image, resources: RESOURCES, ports: [], rights: [], keys: [] }
  const { imagesDirectory } = readEnvironment()
  return withBareRuntime({ runtime, imagesDirectory, spec }, async (bare) => {
    bare()
    const runs = await alternate(
      REDEMPTIONS,
      async () => (await createSlice(devnet, wish, context)).redeemMs,
      async () => bare()
    )
    const [redeem, alone] = [runs.map(([first]) => first), runs.map(([, second]) => second)]
    context.progress(`redeem ${brief(redeem)} ms, ${runtime} alone ${brief(alone)} ms`)
    return figure(
      'redeem_over_runtime_ms',
      runs.map(([first, second]) => first - second),
      { unit: 'ms', atMost: 150 }
    )
  })
}

async function slice3OverLease(devnet: BenchDevnet, image: string, context: BenchContext): Promise<Figure> {
  const runs = await alternate(
    SLICES,
    async () => (await createSlice(devnet, { name: 'three', count: 3, image }, context)).totalMs,
    async () => (await createSlice(devnet, { name: 'one', count: 1, image }, context)).totalMs
  )
  const [three, one] = [runs.map(([first]) => first), runs.map(([, second]) => second)]
  context.progress(`slice of three ${brief(three)} ms, of one ${brief(one)} ms`)
  return figure(
    'slice3_over_lease',
    runs.map(([first, second]) => first / second),
    { unit: 'ratio', atMost: 2 }
  )
}

/** Runs both of a pair in turn, now the one first and now the other. */
async function alternate(
  pairs: number,
  first: () => Promise<number>,
  second: () => Promise<number>
): Promise<[number, number][]> {
  const runs: [number, number][] = []
  for (let pair = 0; pair < pairs; pair++) {
    if (pair % 2 === 0) {
      const value = await first()
      runs.push([value, await second()])
    } else {
      const value = await second()
      runs.push([await first(), value])
    }
  }
  return runs
}

/** Makes a slice without a program and deletes it again, which is not measured. */
async function createSlice(
  { researcher }: BenchDevnet,
  wish: { readonly name: string; readonly count: number; readonly image: string; readonly query?: string },
  { signal }: BenchContext
): Promise<{ readonly totalMs: number; readonly redeemMs: number }> {
  const description: SliceDescription = {
    ...wish,
    minimum: wish.count,
    resources: RESOURCES,
    ports: [{ protocol: 'tcp' }],
    rights: [],
    leaseMs: 3_600_000,
    files: []
  }
  let redeemMs: number | undefined
  const began = performance.now()
  const { members } = await researcher('sliceCreate', description, {
    signal,
    onItem: ({ step, ms }) => {
      if (step === 'redeem') redeemMs = ms
    }
  })
  const totalMs = performance.now() - began
  await researcher('sliceDelete', { slice: wish.name }, { signal })
  await systemClock.sleep(PAUSE_MS, { signal })
  if (redeemMs === undefined || members.length !== wish.count) throw new Error('not all leases were made')
  return { totalMs, redeemMs }
}

function brief(samples: readonly number[]): string {
  return `${median(samples).toFixed(0)} (${Math.min(...samples).toFixed(0)} to ${Math.max(...samples).toFixed(0)})`
}
