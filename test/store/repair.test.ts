import { readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { Readable } from 'node:stream'
import test from 'ava'
import type { Clock } from '../../src/base/clock.ts'
import { checkStore } from '../../src/store/check-store.ts'
import type { DamageKind } from '../../src/store/damage.ts'
import { systemDisk } from '../../src/store/disk.ts'
import { GENESIS, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES } from '../../src/store/record.ts'
import { repairStore } from '../../src/store/repair-store.ts'
import { SNAPSHOT_HEADER_BYTES, parseSnapshotFileName } from '../../src/store/snapshot.ts'
import { scanSnapshot } from '../../src/store/snapshot-reader.ts'
import { writeSnapshot } from '../../src/store/snapshot-writer.ts'
import { CHURN, compactedStore, COMPACTING } from './compacted.ts'
import {
  copyOf,
  flipBit,
  makeStore,
  row,
  rowsOf,
  segmentsOf,
  startedStore,
  temporaryDirectory,
  upTo
} from './directory.ts'

const RECORD_BYTES = RECORD_HEADER_BYTES + 21
const clock: Clock = {
  now: () => Date.UTC(2026, 10, 23),
  monotonic: () => 0,
  sleep: async () => {},
  timeout: (ms) => AbortSignal.timeout(ms)
}

test('a repair leaves a sound store alone', async (t) => {
  const directory = await makeStore(t, { records: 3 })
  t.like(await repairStore(directory, { clock }), { repaired: false, recordsKept: 3, recordsLost: 0 })
  t.false((await readdir(directory)).some((name) => name.startsWith('set-aside')))
  t.deepEqual(await rowsOf(t, directory), upTo(3))
})

test('a repair keeps all before the first damage, sets the rest aside and says what it was', async (t) => {
  const directory = await makeStore(t, { records: 8, segmentBytesMax: 200 })
  const [, second = '', third = ''] = await segmentsOf(directory)
  const secondBytes = await readFile(second)
  const thirdBytes = await readFile(third)
  // In the payload of the fourth record: fields of the value's text.
  await flipBit(second, SEGMENT_HEADER_BYTES + 2 * RECORD_BYTES - 1)

  const report = await repairStore(directory, { clock })
  t.is(report.before.damage, 'flipped-bit')
  t.like(report, { repaired: true, recordsKept: 3, recordsLost: 5 })
  t.is(typeof report.lostAfter, 'number')
  t.deepEqual(
    report.lostEntries.map(({ key }) => key),
    ['row-4', 'row-5', 'row-6', 'row-7', 'row-8']
  )
  t.is(report.setAside, join(directory, 'set-aside-2026-11-23T00-00-00.000Z.bin'))
  const aside = await readFile(report.setAside ?? '')
  t.true(aside.includes(thirdBytes))
  t.true(aside.includes(secondBytes.subarray(SEGMENT_HEADER_BYTES + RECORD_BYTES, -1)))

  t.like(await checkStore(directory), { damage: 'none', records: 3, marked: { sequence: 3 } })
  t.deepEqual(await rowsOf(t, directory), upTo(3))
  const store = await startedStore(t, { directory })
  await store.commit([row(4)])
  await store.stop()
  t.deepEqual(await rowsOf(t, directory), upTo(4))
})

test('every kind of damage can be repaired, and a repair of what is repaired does nothing', async (t) => {
  const sound = await makeStore(t, { records: 6, segmentBytesMax: 200 })
  const damages: [kind: DamageKind, kept: number, lost: number | undefined, (d: string) => Promise<void>][] =
    [
      [
        'lost-tail',
        5,
        1,
        async (d) => truncate((await segmentsOf(d))[2] as string, SEGMENT_HEADER_BYTES + 100)
      ],
      ['gap', 2, 4, async (d) => rm((await segmentsOf(d))[1] as string)],
      ['gap', 0, 6, async (d) => rm((await segmentsOf(d))[0] as string)],
      ['lost-tail', 0, 6, (d) => rm(join(d, 'journal'), { recursive: true })],
      ['flipped-bit', 0, 6, async (d) => flipBit((await segmentsOf(d))[0] as string, 3)],
      ['flipped-bit', 4, 2, async (d) => flipBit((await segmentsOf(d))[2] as string, 30)],
      ['head-unreadable', 6, undefined, (d) => rm(join(d, 'head'))],
      ['head-unreadable', 6, undefined, (d) => writeFile(join(d, 'head'), 'nonsense')]
    ]
  for (const [kind, kept, lost, damage] of damages) {
    const directory = await copyOf(t, sound)
    await damage(directory)
    t.is((await checkStore(directory)).damage, kind)
    const report = await repairStore(directory, { clock })
    t.is(report.recordsKept, kept, kind)
    t.is(report.recordsLost, lost, kind)
    t.is((await checkStore(directory)).damage, 'none', kind)
    t.deepEqual(await rowsOf(t, directory), upTo(kept), kind)
    t.false((await repairStore(directory, { clock })).repaired)
  }
})

test('a damaged snapshot is made anew from the tables, and nothing is lost', async (t) => {
  const { directory, rows } = await compactedStore(t)
  const path = await snapshotOf(directory)
  const { size } = await stat(path)
  const damages: (() => Promise<void>)[] = [
    () => flipBit(path, 30),
    () => flipBit(path, size - 5),
    () => truncate(path, 50),
    () => truncate(path, size - 5),
    () => rm(path)
  ]
  const bytes = await readFile(path)
  for (const damage of damages) {
    await damage()
    const copy = await copyOf(t, directory)
    const before = await checkStore(copy)
    t.is(before.damage, 'snapshot-damaged')
    const error = await t.throwsAsync(startedStore(t, { directory: copy }), { code: 'STORE_CORRUPT' })
    t.regex((error as unknown as { hint: string }).hint, /slicenet store repair/)
    const report = await repairStore(copy, { clock })
    t.like(report, { recordsLost: 0, snapshot: { from: 'tables' } })
    t.like(await checkStore(copy), { damage: 'none', snapshot: { sound: true } })
    t.deepEqual(await rowsOf(t, copy), rows)
    t.false((await repairStore(copy, { clock })).repaired)
    await writeFile(path, bytes)
  }
})

test('without the tables, the sound chunks of a damaged snapshot and all later records are kept, and the loss is told', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory, ...COMPACTING })
  // More than one chunk.
  for (let n = 1; n <= 1200; n += 100) {
    await store.commit(upTo(100).map((part) => row(n + part - 1)))
  }
  for (let n = 0; (await checkStore(directory)).snapshot === undefined; n++) {
    await store.commit(upTo(400).map(() => CHURN))
  }
  await store.commit([row(1201)])
  await store.stop()
  const { entries = 0 } = (await checkStore(directory)).snapshot ?? {}
  t.is(entries, 1201)
  await rm(join(directory, 'tables'), { recursive: true })
  const path = await snapshotOf(directory)

  const altered = await copyOf(t, directory)
  await flipBit(await snapshotOf(altered), SNAPSHOT_HEADER_BYTES + RECORD_HEADER_BYTES + 9)
  const report = await repairStore(altered, { clock })
  t.like(report, { recordsLost: 0, snapshot: { from: 'snapshot', entriesKept: 201, entriesLost: 1000 } })
  const aside = await readFile(report.setAside ?? '')
  t.true(aside.includes((await readFile(path)).subarray(-500)))
  t.like(await checkStore(altered), { damage: 'none', snapshot: { sound: true } })
  const rows = await rowsOf(t, altered)
  t.is(rows.length, 201 + 1)
  t.true(rows.includes(1201))

  // The header alone: the chunks are sound, whatever it said.
  const headless = await copyOf(t, directory)
  await flipBit(await snapshotOf(headless), 40)
  const kept = await repairStore(headless, { clock })
  t.like(kept, { recordsLost: 0, snapshot: { from: 'snapshot', entriesKept: 1201, entriesLost: undefined } })
  t.deepEqual(await rowsOf(t, headless), upTo(1201))

  const gone = await copyOf(t, directory)
  await rm(await snapshotOf(gone))
  t.like(await repairStore(gone, { clock }), { snapshot: { from: 'snapshot', entriesKept: 0 } })
  t.deepEqual(await rowsOf(t, gone), [1201])
})

test('a repair that cuts off the record that named the snapshot has the journal name it again', async (t) => {
  const { directory } = await compactedStore(t)
  const { snapshot } = await checkStore(directory)
  const [first = '', ...others] = (await segmentsOf(directory)).filter((path) => path.endsWith('.segment'))
  await truncate(first, SEGMENT_HEADER_BYTES + 10)
  t.true((await checkStore(directory)).fatal)
  const report = await repairStore(directory, { clock })
  t.is(report.recordsKept, snapshot?.sequence ?? 0)
  t.true(others.length > 0 && (report.recordsLost ?? 0) > 0)
  t.like(await checkStore(directory), { damage: 'none', snapshot: { sound: true, hash: snapshot?.hash } })
  const rows = await rowsOf(t, directory)
  t.deepEqual(rows, upTo(rows.length))
})

test('a snapshot that no record names, or another than the one that is named, is damage', async (t) => {
  const { directory } = await compactedStore(t)
  const path = await snapshotOf(directory)
  const { header } = await scanSnapshot(systemDisk, { path, sequence: sequenceOf(path) })
  const entries = [[row(1)]]
  await writeSnapshot(systemDisk, {
    directory: join(directory, 'journal'),
    head: header?.head ?? GENESIS,
    entries: Readable.from(entries),
    writtenAt: 1
  })
  t.like(await checkStore(directory), {
    damage: 'snapshot-damaged',
    message: `the snapshot at record ${sequenceOf(path)} is not the one that the journal names`
  })
  await t.throwsAsync(startedStore(t, { directory }), { code: 'STORE_CORRUPT' })
})

function sequenceOf(path: string): number {
  return parseSnapshotFileName(basename(path)) ?? 0
}

async function snapshotOf(directory: string): Promise<string> {
  return (await segmentsOf(directory)).find((path) => path.endsWith('.snapshot')) ?? ''
}

test('neither check nor repair makes a store where there is none', async (t) => {
  const directory = join(await makeStore(t, { records: 0 }), 'nowhere')
  await t.throwsAsync(checkStore(directory), { code: 'NOT_FOUND' })
  await t.throwsAsync(repairStore(directory), { code: 'NOT_FOUND' })
  await t.throwsAsync(readdir(directory), { code: 'ENOENT' })
})

test('a check changes nothing and may be made while a daemon runs', async (t) => {
  const directory = await makeStore(t, { records: 3, segmentBytesMax: 400 })
  const store = await startedStore(t, { directory, segmentBytesMax: 400 })
  const over = new AbortController()
  const writing = (async () => {
    for (let n = 4; !over.signal.aborted; n++) await store.commit([row(n)])
  })()
  for (let round = 0; round < 30; round++) {
    const report = await checkStore(directory)
    t.false(report.fatal, report.message)
    t.true(report.records >= (report.marked?.sequence ?? Infinity))
  }
  over.abort()
  await writing
})
