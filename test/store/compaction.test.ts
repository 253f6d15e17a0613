import { createHash } from 'node:crypto'
import { copyFile, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { checkStore } from '../../src/store/check-store.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { judge } from '../../src/store/damage.ts'
import { systemDisk, type Disk } from '../../src/store/disk.ts'
import { surveyStore } from '../../src/store/journal.ts'
import { layoutOf } from '../../src/store/layout.ts'
import { repairStore } from '../../src/store/repair-store.ts'
import { scanSnapshot } from '../../src/store/snapshot-reader.ts'
import { compactedStore, CHURN, COMPACTING } from './compacted.ts'
import {
  copyOf,
  makeStore,
  row,
  rowsOf,
  segmentsOf,
  startedStore,
  temporaryDirectory,
  upTo
} from './directory.ts'

test('a journal that has grown well beyond its tables begins at a snapshot, and nothing is lost', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory, ...COMPACTING })
  for (let n = 1; n <= 200; n++) await store.commit([row((n % 20) + 1), CHURN])
  await store.stop()
  const report = await checkStore(directory)
  t.like(report, { damage: 'none', snapshot: { sound: true, entries: 21 } })
  t.true((report.snapshot?.sequence ?? 0) > 20)
  // Without compaction, it would be more than 200 times the constant value.
  t.true(report.bytes < 100 * CHURN.value.length)
  t.deepEqual(await rowsOf(t, directory), upTo(20))
})

test('tables that are gone are rebuilt from the snapshot and the records after it', async (t) => {
  const { directory, rows } = await compactedStore(t)
  await rm(layoutOf(directory).tables, { recursive: true })
  t.deepEqual(await rowsOf(t, directory), rows)
  const { sequence = 0 } = (await checkStore(directory)).snapshot ?? {}
  t.true(sequence > 0)
  const store = await startedStore(t, { directory })
  t.deepEqual(await store.get('churn', 'key'), CHURN.value)
})

test('a compacted store is compacted again, and a store that holds much is left alone', async (t) => {
  const { directory } = await compactedStore(t)
  const before = (await checkStore(directory)).snapshot?.sequence ?? 0
  const store = await startedStore(t, { directory, ...COMPACTING })
  for (let n = 0; n < 60; n++) await store.commit([CHURN])
  await store.stop()
  t.true(((await checkStore(directory)).snapshot?.sequence ?? 0) > before)

  const other = await temporaryDirectory(t)
  const full = await startedStore(t, { directory: other, ...COMPACTING })
  for (let n = 0; n < 60; n++) await full.commit([{ ...CHURN, key: `key ${n}` }])
  await full.stop()
  t.is((await checkStore(other)).snapshot, undefined)
})

test('a start compacts a journal that has grown before', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory })
  for (let n = 0; n < 60; n++) await store.commit([row(1), CHURN])
  await store.stop()
  t.is((await checkStore(directory)).snapshot, undefined)
  const next = await startedStore(t, { directory, ...COMPACTING })
  while ((await checkStore(directory)).segments > 1 || (await checkStore(directory)).snapshot === undefined) {
    await next.get('rows', 'row-1')
  }
  await next.stop()
  t.like(await checkStore(directory), { damage: 'none', snapshot: { sequence: 60, entries: 2 } })
  t.deepEqual(await rowsOf(t, directory), [1])
})

test('a check while a daemon compacts again and again finds no damage', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory, segmentBytesMax: 2000, compactionBytesMin: 3000 })
  const over = new AbortController()
  const writing = (async () => {
    while (!over.signal.aborted) await store.commit([CHURN])
  })()
  const snapshots = new Set<number>()
  for (let round = 0; round < 150 || snapshots.size < 3; round++) {
    const report = await checkStore(directory)
    t.false(report.fatal, report.message)
    snapshots.add(report.snapshot?.sequence ?? 0)
  }
  over.abort()
  await writing
})

test('a check that a compaction overtakes looks again', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory, ...COMPACTING })
  for (let n = 1; n <= 3; n++) await store.commit([row(n)])
  // Between the reading of the mark and that of the journal, its beginning moves beyond that mark.
  let reads = 0
  const disk: Disk = {
    ...systemDisk,
    read: async (path) => {
      const file = await systemDisk.read(path)
      if (!path.endsWith('head') || reads++ > 0) return file
      const close = async (): Promise<void> => {
        await file.close()
        while ((await namesOf(directory)).includes('0000000000000001.segment')) await store.commit([CHURN])
      }
      return { ...file, close }
    }
  }
  const { mark, scan, tablesExist } = await surveyStore(directory, disk)
  t.is(judge(mark, scan, tablesExist).message, 'no damage')
  t.is(scan.base?.named, 'yes')
  t.is(reads, 2)
})

test('all that is committed while a snapshot is written is kept', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory, ...COMPACTING })
  for (let n = 1; n <= 300; n += 10) {
    await Promise.all(upTo(10).map((part) => store.commit([row(n + part - 1), CHURN])))
  }
  await store.stop()
  await rm(layoutOf(directory).tables, { recursive: true })
  t.deepEqual(await rowsOf(t, directory), upTo(300))
})

test('what a crash leaves between the snapshot and its naming, or its naming and the dropping, is a sound store', async (t) => {
  // The journal as it was, never compacted, and what a compaction makes of it.
  const before = await temporaryDirectory(t)
  const store = await startedStore(t, { directory: before, segmentBytesMax: 2000 })
  for (let n = 1; n <= 30; n++) await store.commit([row(n), CHURN])
  await store.stop()
  const after = await copyOf(t, before)
  const compacting = await startedStore(t, { directory: after, segmentBytesMax: 2000, compactionBytesMin: 1 })
  while ((await checkStore(after)).snapshot === undefined) await compacting.get('rows', 'row-1')
  await compacting.stop()
  const snapshot = (await namesOf(after)).find((name) => name.endsWith('.snapshot')) ?? ''

  const unnamed = await copyOf(t, before)
  await copyFile(join(after, 'journal', snapshot), join(unnamed, 'journal', snapshot))
  t.like(await checkStore(unnamed), { damage: 'none', snapshot: undefined })
  t.deepEqual(await rowsOf(t, unnamed), upTo(30))
  t.false((await namesOf(unnamed)).includes(snapshot))

  const named = await copyOf(t, after)
  for (const name of await namesOf(before)) {
    if (!(await namesOf(after)).includes(name)) {
      await copyFile(join(before, 'journal', name), join(named, 'journal', name))
    }
  }
  const undropped = await copyOf(t, named)
  t.like(await checkStore(undropped), { damage: 'none', snapshot: undefined })
  t.deepEqual(await rowsOf(t, undropped), upTo(30))

  // The old beginning is gone, the rest not yet: in whatever order it goes.
  await rm(join(named, 'journal', (await namesOf(before))[0] as string))
  t.like(await checkStore(named), { damage: 'none', snapshot: { sound: true } })
  t.deepEqual(await rowsOf(t, named), upTo(30))
  t.deepEqual(await namesOf(named), await namesOf(after))
})

test('a store of format version 1 is read and goes on; one of a later version is neither read nor repaired', async (t) => {
  const directory = await makeStore(t, { records: 6, segmentBytesMax: 200 })
  const reversion = async (version: number): Promise<void> => {
    for (const path of [join(directory, 'head'), ...(await segmentsOf(directory))]) {
      const bytes = await readFile(path)
      for (const offset of path.endsWith('head') ? [0, 4096] : [0]) writeVersion(bytes, offset, version)
      await writeFile(path, bytes)
    }
  }
  await reversion(1)
  t.is((await checkStore(directory)).damage, 'none')
  const store = await startedStore(t, { directory })
  await store.commit([row(7)])
  await store.stop()
  t.deepEqual(await rowsOf(t, directory), upTo(7))

  await reversion(3)
  const refusal = { code: 'STORE_FAILED', message: /version 3, not 1 to 2/ }
  await t.throwsAsync(checkStore(directory), refusal)
  await t.throwsAsync(startedStore(t, { directory }), refusal)
  await t.throwsAsync(repairStore(directory), refusal)
})

test('the largest values make no chunk that is too large to be read', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory, compactionBytesMin: 1 })
  const value = new Uint8Array(LIMITS.storeValueBytesMax)
  // The same ones over and over: five times what the tables hold.
  for (let times = 0; times < 5; times++) {
    await Promise.all(upTo(4).map((n) => store.commit([{ table: 'large', key: `${n}`, value }])))
  }
  while ((await checkStore(directory)).snapshot === undefined) await store.commit([row(1)])
  await store.stop()
  const [path = ''] = (await segmentsOf(directory)).filter((name) => name.endsWith('.snapshot'))
  const sizes: number[] = []
  const visit = async (payload: Uint8Array): Promise<void> => void sizes.push(payload.length)
  const { sequence = 0 } = (await checkStore(directory)).snapshot ?? {}
  await scanSnapshot(systemDisk, { path, sequence }, { visit })
  t.true(sizes.length > 1)
  for (const size of sizes)
    t.true(size < LIMITS.storeChunkBytesMax + 2 * LIMITS.storeValueBytesMax, `${size}`)
  await rm(layoutOf(directory).tables, { recursive: true })
  const next = await startedStore(t, { directory })
  t.deepEqual(await next.get('large', '4'), value)
})

function writeVersion(bytes: Buffer, slot: number, version: number): void {
  bytes.writeUInt32BE(version, slot + 8)
  bytes.set(
    createHash('sha256')
      .update(bytes.subarray(slot, slot + 52))
      .digest(),
    slot + 52
  )
}

async function namesOf(directory: string): Promise<string[]> {
  return (await readdir(join(directory, 'journal'))).sort()
}
