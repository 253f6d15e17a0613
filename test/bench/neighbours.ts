/**
 * What one greedy vserver costs its neighbour, as a share of what that is guaranteed (paper §3.3): `npm run bench --
 * neighbours`. The neighbour uses all it gets and is guaranteed half of the machine; it is measured alone and beside the
 * greedy one, which is guaranteed the other half; and once without its weight and whoever looks after guarantees. The machine
 * should be idle.
 */
import { writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { systemClock } from '../../src/base/clock.ts'
import { SMALL, vserverSpec } from '../enforce/enforcer-contract.ts'
import { FORK_BOMB } from '../linux/fork-bomb.ts'
import { OciNode } from '../linux/oci-node.ts'
import { figure, type Bench, type BenchContext, type Figure } from './figure.ts'

const MIB = 1024 * 1024
const RUNS = 3
const MEASURED_MS = 3000
const BEGIN_MS = 1500
const COST_MAX = 0.05

const CORES = availableParallelism()
const HALF = { ...SMALL, cpuMillis: 500 * CORES, cpuMillisMax: 1000 * CORES }
const GREEDY = { ...HALF, memoryBytes: 256 * MIB, pids: 600 }

const SPIN = 'while :; do :; done'
const SPINNERS = `i=0; while [ $i -lt 500 ]; do (${SPIN}) & i=$((i+1)); done; wait`
/** Each goes on for ever, and starts over when a limit stopped it. */
const GREED: Readonly<Record<string, string>> = {
  spinners_500: SPINNERS,
  fork_bomb: FORK_BOMB,
  memory_hog: 'while :; do (x=$(dd if=/dev/zero bs=1M count=400 2>/dev/null | tr "\\0" x)); done',
  disk_filler: 'while :; do dd if=/dev/zero of=/fill bs=1M 2>/dev/null; rm /fill; done',
  inode_eater:
    'while :; do mkdir /eat; i=0; while { true > /eat/$i; } 2>/dev/null; do i=$((i+1)); done; rm -r /eat; done'
}

export const neighbours: Bench = async (context) => {
  const node = await OciNode.start()
  try {
    const figures: Figure[] = []
    for (const [name, script] of Object.entries(GREED)) {
      const costs = await costsOf(node, script, context)
      context.progress(`${name}: ${costs.map((cost) => cost.toFixed(3)).join(', ')}`)
      figures.push(figure(`neighbour_cost_${name}`, costs, { unit: 'share', atMost: COST_MAX }))
    }
    const control = await costsOf(node, SPINNERS, context, { isProtected: false })
    return [...figures, figure('neighbour_cost_unprotected', control, { unit: 'share' })]
  } finally {
    await node.stop()
  }
}

async function costsOf(
  node: OciNode,
  script: string,
  { signal }: BenchContext,
  { isProtected = true } = {}
): Promise<number[]> {
  const costs: number[] = []
  for (let run = 0; run < RUNS; run++) {
    signal.throwIfAborted()
    try {
      const id = await start(node, 'neighbour', HALF, `${`(${SPIN}) & `.repeat(CORES - 1)}${SPIN}`)
      const alone = await cpuOf(node, id, signal)
      await start(node, 'greedy', GREEDY, script)
      if (!isProtected) {
        for (const file of await node.groupFiles(id, 'cpu.shares', 'cpu.weight'))
          await writeFile(file, file.endsWith('weight') ? '1' : '2')
        await node.enforcer.stop()
      }
      await systemClock.sleep(BEGIN_MS, { signal })
      costs.push(Math.max(0, 1 - (await cpuOf(node, id, signal)) / (alone / 2)))
      await node.enforcer.start()
      if ((await node.enforcer.usage('greedy')).pids < 2) throw new Error(`this ended by itself: ${script}`)
    } finally {
      await node.enforcer.start()
      for (const { id } of await node.enforcer.list()) await node.enforcer.destroy(id)
    }
  }
  return costs
}

async function start(
  { enforcer, image }: OciNode,
  id: string,
  resources: typeof HALF,
  script: string
): Promise<string> {
  await enforcer.create(vserverSpec(image, { id, resources }))
  await enforcer.launch(id, { argv: ['sh', '-c', script], env: {} })
  return id
}

/** CPU µs that a vserver gets each ms. */
async function cpuOf(node: OciNode, id: string, signal: AbortSignal): Promise<number> {
  const [before, began] = [await node.cpuMicros(id), performance.now()]
  await systemClock.sleep(MEASURED_MS, { signal })
  return ((await node.cpuMicros(id)) - before) / (performance.now() - began)
}
