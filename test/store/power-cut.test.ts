import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import * as fc from 'fast-check'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { checkStore } from '../../src/store/check-store.ts'
import { createStore, type DiskStoreInit } from '../../src/store/disk-store.ts'
import { numbersOf } from '../base/seeded-numbers.ts'
import { CHURN } from './compacted.ts'
import { row, rowsOf, temporaryDirectory } from './directory.ts'
import { UnreliableDisk } from './simulated-disk.ts'

interface Cut {
  /** Seed of what survives, and the operation at which the power goes, for each cut in turn. */
  readonly seed: number
  readonly operations: number
}

const cuts = fc.array(fc.record({ seed: fc.nat(), operations: fc.nat({ max: 60 }) }), {
  minLength: 1,
  maxLength: 4
})

test('no power cut, wherever it comes, takes an acknowledged commit or makes the store unusable', async (t) => {
  await fc.assert(
    fc.asyncProperty(cuts, async (cuts) => {
      const { directory, acknowledged } = await suffer(t, cuts, () => false)
      await expectSound(t, directory, acknowledged)
    }),
    { numRuns: 25 }
  )
})

test('nor does one at any operation of a store that compacts its journal again and again', async (t) => {
  const beginnings = new Set<string>()
  for (let operations = 15; operations < 110; operations += 2) {
    const cuts = [{ seed: operations, operations }]
    const { directory, acknowledged } = await suffer(t, cuts, () => false, { compactionBytesMin: 2000 })
    const files = await readdir(join(directory, 'journal'))
    const first = files.includes('0000000000000001.segment')
    const kinds = ['.snapshot', '.snapshot.tmp'].filter((kind) => files.some((name) => name.endsWith(kind)))
    beginnings.add([first ? 'genesis' : 'snapshot', ...kinds].join(' '))
    await expectSound(t, directory, acknowledged)
  }
  // Before a compaction, in the midst of a snapshot, before the first segment is dropped, and after.
  for (const kind of ['genesis', 'genesis .snapshot.tmp', 'genesis .snapshot', 'snapshot .snapshot']) {
    t.true(beginnings.has(kind), kind)
  }
})

async function expectSound(t: ExecutionContext, directory: string, acknowledged: number[]): Promise<void> {
  const report = await checkStore(directory)
  t.false(report.fatal, report.message)
  const rows = new Set(await rowsOf(t, directory))
  for (const n of acknowledged) t.true(rows.has(n))
  await rm(directory, { recursive: true })
}

test('control: on a disk that only claims to sync the journal, a power cut takes commits, and the mark shows it', async (t) => {
  for (let seed = 1; seed <= 6; seed++) {
    const cut = { seed, operations: 60 }
    const { directory, acknowledged } = await suffer(t, [cut], (path) => path.endsWith('.segment'))
    const report = await checkStore(directory)
    t.true(acknowledged.length > report.records)
    t.true(report.fatal)
  }
})

test('control: if neither the journal nor the mark were synced, commits would be lost and nobody would know', async (t) => {
  const lies = (path: string): boolean => path.endsWith('.segment') || path.endsWith('/head')
  const { directory, acknowledged } = await suffer(t, [{ seed: NOTHING_SURVIVES, operations: 60 }], lies, {
    segmentBytesMax: 1_000_000
  })
  t.true(acknowledged.length > 0)
  t.like(await checkStore(directory), { damage: 'none', records: 0 })
})

/** Commits until the power goes, starts again, and so on for each cut; gives what was acknowledged. */
async function suffer(
  t: ExecutionContext,
  cuts: readonly Cut[],
  ignoreSync: (path: string) => boolean,
  init: Partial<DiskStoreInit> = {}
): Promise<{ directory: string; acknowledged: number[] }> {
  const parent = await temporaryDirectory(t)
  const directory = join(parent, 'made', 'anew')
  const acknowledged: number[] = []
  let n = 0
  for (const { seed, operations } of cuts) {
    const disk = new UnreliableDisk({
      random: seed === NOTHING_SURVIVES ? () => 1 : numbersOf(seed),
      operations,
      ignoreSync
    })
    const store = createStore(
      { clock: systemClock, logger: silentLogger, disk },
      { directory, segmentBytesMax: 700, ...init }
    )
    try {
      await store.start()
      for (;;) {
        const group = [++n, ++n, ++n]
        await Promise.all(
          group.map(async (n) => {
            await store.commit([row(n), CHURN])
            acknowledged.push(n)
          })
        )
      }
    } catch (error) {
      t.is((error as { code?: string }).code, 'STORE_FAILED')
    }
    await store.stop()
    await disk.cutPower()
    // Whatever was acknowledged is marked, on the disk.
    const marked = (await checkStore(directory)).marked?.sequence ?? 0
    if (!ignoreSync(join(directory, 'head'))) t.true(marked >= acknowledged.length)
  }
  return { directory, acknowledged }
}

/** A seed under which a power cut takes all that was not synced. */
const NOTHING_SURVIVES = -1
