/** Real vservers get what they are guaranteed of the processor, though the kernel's weights would not give it to them. */
import { readFile, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import test from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { SMALL, vserverSpec } from '../enforce/enforcer-contract.ts'
import { OciNode } from './oci-node.ts'

const CORES = availableParallelism()
/** Little, so that it can be had beside whatever else the machine does. */
const RESOURCES = { ...SMALL, cpuMillis: 100, cpuMillisMax: 1000 * CORES }
const SPIN = `${'(while :; do :; done) & '.repeat(CORES)}wait`
const MEASURED_MS = 1500
const LOOKS_MAX = 80
const LOOK_MS = 250

let node: OciNode

test.before(async () => {
  node = await OciNode.start()
})

test.after.always(async () => {
  await node?.stop()
})

test('a vserver that the kernel gives nothing gets its guarantee, and caps are as leased without the keeper', async (t) => {
  for (const id of ['neighbour', 'greedy']) {
    await node.enforcer.create(vserverSpec(node.image, { id, resources: RESOURCES }))
    await node.enforcer.launch(id, { argv: ['sh', '-c', SPIN], env: {} })
  }
  // Stands for a kernel that weighs them wrongly.
  await setWeight('neighbour', { shares: 2, weight: 1 })
  await setWeight('greedy', { shares: 100_000, weight: 10_000 })
  const capped = async (): Promise<boolean> => (await capOf('greedy')) < RESOURCES.cpuMillisMax
  t.true(await eventually(capped), 'the taker is narrowed')
  const getsNearlyAll = async (): Promise<boolean> => (await usedBy('neighbour')) > 0.8 * RESOURCES.cpuMillis
  t.true(await eventually(getsNearlyAll), 'the neighbour gets its guarantee')

  await node.enforcer.stop()
  t.is(await capOf('greedy'), RESOURCES.cpuMillisMax)
  const getsLittle = async (): Promise<boolean> => (await usedBy('neighbour')) < 0.2 * RESOURCES.cpuMillis
  t.true(await eventually(getsLittle), 'without the keeper it does not')

  await node.enforcer.start()
  t.true(await eventually(capped), 'the taker is narrowed again')
  await node.enforcer.destroy('neighbour')
  t.true(await eventually(async () => !(await capped())), 'nobody waits any more')
})

async function eventually(condition: () => Promise<boolean>): Promise<boolean> {
  for (let look = 0; look < LOOKS_MAX; look++) {
    if (await condition()) return true
    await systemClock.sleep(LOOK_MS)
  }
  return false
}

/** For cgroups v1 and v2. */
async function setWeight(id: string, { shares, weight }: { shares: number; weight: number }): Promise<void> {
  const [file] = await node.groupFiles(id, 'cpu.shares', 'cpu.weight')
  await writeFile(file!, String(file!.endsWith('weight') ? weight : shares))
}

/** Thousandths of a core that a vserver may use. */
async function capOf(id: string): Promise<number> {
  const [file] = await node.groupFiles(id, 'cpu.cfs_quota_us', 'cpu.max')
  return Number.parseInt(await readFile(file!, 'utf8'), 10) / 100
}

/** Thousandths of a core that it uses. */
async function usedBy(id: string): Promise<number> {
  const [before, began] = [await node.cpuMicros(id), performance.now()]
  await systemClock.sleep(MEASURED_MS)
  return ((await node.cpuMicros(id)) - before) / (performance.now() - began)
}
