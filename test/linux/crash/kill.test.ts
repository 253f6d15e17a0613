import { setTimeout as delay } from 'node:timers/promises'
import anyTest, { type ExecutionContext, type TestFn } from 'ava'
import { devnetLeftovers } from '../../../src/daemon/devnet-leftovers.ts'
import { numbersOf } from '../../base/seeded-numbers.ts'
import { Lane, LONG_MS } from './lane.ts'
import { CrashOverlay } from './overlay.ts'
import { OPERATIONS, POINTS, rounds } from './points.ts'

/** Tests of real node daemons that are killed with SIGKILL. They share one overlay, in order; two nodes take turns. */
const test = (anyTest as TestFn<undefined>).serial

const IS_NIGHTLY = process.env.SLICENET_NIGHTLY !== undefined
const KILLS_PER_POINT = IS_NIGHTLY ? 10 : 1
const RANDOM_KILLS = IS_NIGHTLY ? 200 : 10
/** `SLICENET_FUZZ_SEED` kills at the same times again, as far as two runs are alike. */
const SEED = Number(process.env.SLICENET_FUZZ_SEED ?? 1)
const FAULTS_SHOWN = 5
const CYCLE_MS_MAX = 15_000

const overlay = new CrashOverlay()
let lanes: Lane[] = []

/** Has the lanes take the jobs in turn, until they are done or something is wrong, which it gives. */
async function workOff<T>(
  t: ExecutionContext,
  jobs: readonly T[],
  work: (lane: Lane, job: T) => Promise<void>
): Promise<string[]> {
  const left = [...jobs]
  const workOffIn = async (lane: Lane): Promise<void> => {
    while (lanes.every(({ faults }) => faults.length === 0)) {
      const job = left.shift()
      if (job === undefined) break
      await work(lane, job)
    }
    await lane.revive()
    await lane.node.process.kill()
  }
  await Promise.all(
    lanes.map(async (lane) => {
      // So that the other one ends as well, before all is taken down.
      await workOffIn(lane).catch((error: unknown) => lane.fail(error))
      if (lane.faults.length > 0) t.log(await lane.node.lastWords())
    })
  )
  return lanes.flatMap(({ faults }) => faults.splice(0)).slice(0, FAULTS_SHOWN)
}

function oneLane(): Lane {
  const [lane] = lanes
  if (lane === undefined) throw new TypeError('the overlay is up')
  return lane
}

test.before(async (t) => {
  t.timeout(180_000)
  await overlay.up()
  lanes = overlay.nodes.map((node) => new Lane(overlay, node))
})

test.after.always(async (t) => {
  t.timeout(180_000)
  await overlay.down()
})

test('there are twenty points and more, and every operation has some', (t) => {
  t.true(POINTS.length >= 20)
  t.is(new Set(POINTS.map(({ name }) => name)).size, POINTS.length)
  for (const operation of OPERATIONS) t.true(POINTS.some((point) => point.operation === operation))
})

test('killed at any labelled point, a node loses no lease, doubles none and leaves no vserver behind', async (t) => {
  const jobs = rounds(KILLS_PER_POINT)
  t.timeout(jobs.length * CYCLE_MS_MAX)
  const began = performance.now()
  const faults = await workOff(t, jobs, (lane, point) => lane.killAt(point))
  t.deepEqual(faults, [])
  t.is(
    lanes.reduce((sum, { kills }) => sum + kills, 0),
    POINTS.length * KILLS_PER_POINT
  )
  const seconds = (performance.now() - began) / 1000
  const starts = overlay.nodes.flatMap((node) => node.starts).sort((a, b) => a - b)
  t.log(
    `${jobs.length} kills at ${POINTS.length} points in ${seconds.toFixed(0)} s; starts ${starts[0]} to ${starts.at(-1)} ms, median ${starts[starts.length >> 1]}`
  )
})

test('killed whenever, with several operations under way, it does not either', async (t) => {
  t.timeout(RANDOM_KILLS * CYCLE_MS_MAX)
  const began = performance.now()
  const seeds = Array.from({ length: RANDOM_KILLS }, (_kill, index) => SEED * 1_000_003 + index)
  const faults = await workOff(t, seeds, (lane, seed) => lane.killWhenever(numbersOf(seed)))
  t.deepEqual(faults, [], `SLICENET_FUZZ_SEED=${SEED}`)
  t.log(`${RANDOM_KILLS} kills in ${((performance.now() - began) / 1000).toFixed(0)} s`)
})

test('control: a store that speaks of durable commits too early is found out by the same checks', async (t) => {
  t.timeout(4 * CYCLE_MS_MAX)
  const lane = oneLane()
  await lane.node.start('forgetful')
  t.true(await lane.ledger.acquire(LONG_MS))
  await lane.node.process.kill()
  await lane.revive()
  const faults = lane.faults.splice(0)
  t.true(
    faults.some((fault) => fault.includes('lost: lease')),
    faults.join('\n')
  )
  t.true(
    faults.some((fault) => /doubled: \w+ has leases/.test(fault)),
    faults.join('\n')
  )
  await lane.node.process.kill()
})

test('control: a node that does not clear up after a crash is found out by the same checks', async (t) => {
  t.timeout(4 * CYCLE_MS_MAX)
  const lane = oneLane()
  const ending = POINTS.find(({ name }) => name === 'delete: ending durable')
  if (ending === undefined) throw new TypeError('the point has another name')
  await lane.killAt(ending)
  t.deepEqual(lane.faults, [])
  await lane.revive('careless')
  const faults = lane.faults.splice(0)
  for (const kind of ['process', 'cgroup', 'mount', 'link', 'address']) {
    t.true(
      faults.some((fault) => fault.includes(`orphan ${kind} `)),
      `${kind}: ${faults.join('\n')}`
    )
  }
  await lane.node.process.kill()
  await lane.revive()
  t.deepEqual(lane.faults, [], 'a careful one clears that up')
  await lane.node.process.kill()
})

test('control: a point that is not reached is a fault', async (t) => {
  t.timeout(4 * CYCLE_MS_MAX)
  const lane = oneLane()
  await lane.node.start()
  const { death } = await lane.node.arm('a moment that never comes', 100)
  t.regex(await death, /^nothing in 100 ms/)
})

test('taking the nodes down leaves nothing of them on the machine', async (t) => {
  t.timeout(180_000)
  const directories = [overlay.home]
  const kinds = new Set((await devnetLeftovers(overlay.name, { directories })).map(({ kind }) => kind))
  // Were the list blind, this would not see what is there now.
  t.true(kinds.isSupersetOf(new Set(['namespace', 'mount', 'loop-device'])))
  await overlay.down()
  let left = await devnetLeftovers(overlay.name, { directories })
  // The machine's first process takes note of the dead, and the kernel lets go of devices, in their own time.
  for (let tries = 0; tries < 100 && left.length > 0; tries++) {
    await delay(50)
    left = await devnetLeftovers(overlay.name, { directories })
  }
  t.deepEqual(left, [])
})
