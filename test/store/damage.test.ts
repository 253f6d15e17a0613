import { copyFile, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { checkStore } from '../../src/store/check-store.ts'
import { judge } from '../../src/store/damage.ts'
import { systemDisk } from '../../src/store/disk.ts'
import { replaceHeadMark } from '../../src/store/head-mark.ts'
import { scanJournal } from '../../src/store/journal-reader.ts'
import { RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES } from '../../src/store/record.ts'
import { copyOf, flipBit, makeStore, row, rowsOf, segmentsOf, startedStore, upTo } from './directory.ts'
import { recordingDisk } from './simulated-disk.ts'

/** Every record of `makeStore` up to the ninth has this length. */
const PAYLOAD_BYTES = 21
const RECORD_BYTES = RECORD_HEADER_BYTES + PAYLOAD_BYTES
/** Two records a segment. */
const SEGMENT_BYTES_MAX = 200

test('every flipped bit of the journal is found and stops a start', async (t) => {
  const directory = await makeStore(t, { records: 6, segmentBytesMax: SEGMENT_BYTES_MAX })
  const segments = await segmentsOf(directory)
  t.is(segments.length, 3)
  for (const path of segments) {
    const bytes = await readFile(path)
    for (let offset = 0; offset < bytes.length; offset++) {
      await flipBit(path, offset)
      const report = await checkStore(directory)
      t.true(report.fatal, `${path} at ${offset}`)
      t.is(report.damage, 'flipped-bit', `${path} at ${offset}`)
      if (offset % 50 === 0) {
        await t.throwsAsync(startedStore(t, { directory }), { code: 'STORE_CORRUPT', message: /altered/ })
      }
      await writeFile(path, bytes)
    }
  }
  t.deepEqual(await rowsOf(t, directory), upTo(6))
})

test('every truncation of the journal is found, in its last segment as a lost tail, before as a gap', async (t) => {
  const directory = await makeStore(t, { records: 6, segmentBytesMax: SEGMENT_BYTES_MAX })
  for (const [index, path] of (await segmentsOf(directory)).entries()) {
    const bytes = await readFile(path)
    for (let length = 0; length < bytes.length; length++) {
      await truncate(path, length)
      const report = await checkStore(directory)
      t.true(report.fatal)
      // A segment that ends in its header is the end of what can be read, whatever follows it.
      const kinds = index === 2 ? ['lost-tail'] : ['gap', 'lost-tail']
      t.true(kinds.includes(report.damage), `${path} at ${length}: ${report.damage}`)
      t.true(report.records < 6)
      if (length % 50 === 0) {
        await t.throwsAsync(startedStore(t, { directory }), { code: 'STORE_CORRUPT' })
      }
      await writeFile(path, bytes)
    }
  }
})

test('without the head mark a lost tail would go unnoticed, with it it does not', async (t) => {
  const directory = await makeStore(t, { records: 6 })
  const [path = ''] = await segmentsOf(directory)
  await truncate(path, (await readFile(path)).length - 2 * RECORD_BYTES)

  const scan = await scanJournal(join(directory, 'journal'))
  t.is(scan.stop, undefined)
  t.is(scan.head.sequence, 4)
  t.is((await checkStore(directory)).damage, 'lost-tail')
  await t.throwsAsync(startedStore(t, { directory }), { code: 'STORE_CORRUPT', message: /record 6 was/ })

  // The control: a mark that believes the journal.
  await replaceHeadMark(systemDisk, join(directory, 'head'), scan.head)
  t.is((await checkStore(directory)).damage, 'none')
  t.deepEqual(await rowsOf(t, directory), upTo(4))
})

test('whatever happens to records beyond the mark is no damage, and those before it stay', async (t) => {
  const directory = await makeUnmarked(t, { marked: 4, records: 6 })
  const [path = ''] = await segmentsOf(directory)
  const bytes = await readFile(path)
  const unmarked = bytes.length - 2 * RECORD_BYTES
  for (let offset = unmarked; offset < bytes.length; offset++) {
    for (const damage of ['flip', 'truncate', 'zero']) {
      if (damage === 'flip') await flipBit(path, offset)
      else if (damage === 'truncate') await truncate(path, offset)
      else
        await writeFile(path, Buffer.concat([bytes.subarray(0, offset), Buffer.alloc(bytes.length - offset)]))
      const report = await checkStore(directory)
      t.false(report.fatal, `${damage} at ${offset}: ${report.message}`)
      t.is(report.records, offset < unmarked + RECORD_BYTES ? 4 : 5)
      if (offset % 40 === 0) {
        const copy = await copyOf(t, directory)
        t.deepEqual(await rowsOf(t, copy), upTo(report.records))
        t.is((await checkStore(copy)).damage, 'none')
        t.is((await checkStore(copy)).marked?.sequence, report.records)
      }
      await writeFile(path, bytes)
    }
  }
})

test('sound records beyond the mark are kept and marked by the next start', async (t) => {
  const directory = await makeUnmarked(t, { marked: 4, records: 6 })
  t.is((await checkStore(directory)).damage, 'none')
  t.deepEqual(await rowsOf(t, directory), upTo(6))
  t.is((await checkStore(directory)).marked?.sequence, 6)
})

test('records beyond the mark are written again and synced before they are marked', async (t) => {
  const directory = await makeUnmarked(t, { marked: 4, records: 6 })
  const lines: string[] = []
  const store = await startedStore(t, { directory }, { disk: recordingDisk(lines) })
  await store.commit([row(7)])
  await store.stop()
  const segment = '0000000000000001.segment'
  const offset = SEGMENT_HEADER_BYTES + 4 * RECORD_BYTES
  t.deepEqual(lines, [
    `write ${segment} ${offset} ${2 * RECORD_BYTES}`,
    `sync ${segment}`,
    'write head 4096 84',
    'sync head',
    `write ${segment} ${offset + 2 * RECORD_BYTES} ${RECORD_BYTES}`,
    `sync ${segment}`,
    'write head 0 84',
    'sync head'
  ])
})

test('no flipped bit of the head mark goes by with a loss, and every loss of both slots is found', async (t) => {
  const directory = await makeStore(t, { records: 5 })
  const path = join(directory, 'head')
  const bytes = await readFile(path)
  const slots = [0, 4096].flatMap((slot) => Array.from({ length: 84 }, (_, n) => slot + n))
  // Five commits after the first mark, which is in slot 0: the newest is in slot 1.
  const kinds = new Set<string>()
  for (const offset of slots) {
    await flipBit(path, offset)
    const report = await checkStore(directory)
    t.is(report.records, 5)
    // The newer slot unreadable looks like a crash in the middle of a mark: the journal goes further, nothing is lost.
    t.is(report.damage, offset < 4096 ? 'head-unreadable' : 'none')
    kinds.add(report.damage)
    await writeFile(path, bytes)
  }
  t.is(kinds.size, 2)
  for (const length of [0, 10, 83]) {
    await truncate(path, length)
    t.is((await checkStore(directory)).damage, 'head-unreadable')
    await t.throwsAsync(startedStore(t, { directory }), { code: 'STORE_CORRUPT', message: /head mark/ })
  }
  await rm(path)
  t.is((await checkStore(directory)).damage, 'head-unreadable')
})

test('the newer slot of the mark and the tail that it covered cannot be lost together unnoticed', async (t) => {
  const directory = await makeStore(t, { records: 5 })
  const [path = ''] = await segmentsOf(directory)
  await flipBit(join(directory, 'head'), 4096 + 20)
  await truncate(path, (await readFile(path)).length - RECORD_BYTES)
  t.is((await checkStore(directory)).damage, 'head-unreadable')
})

test('a store whose journal and mark are both gone is not taken for a new one', async (t) => {
  const directory = await makeStore(t, { records: 3 })
  await rm(join(directory, 'journal'), { recursive: true })
  t.is((await checkStore(directory)).damage, 'lost-tail')
  await rm(join(directory, 'head'))
  t.is((await checkStore(directory)).damage, 'head-unreadable')
  await t.throwsAsync(startedStore(t, { directory }), { code: 'STORE_CORRUPT' })
})

test('a missing segment is a gap, and the journal of another store a mismatch', async (t) => {
  const directory = await makeStore(t, { records: 6, segmentBytesMax: SEGMENT_BYTES_MAX })
  for (const index of [0, 1]) {
    const copy = await copyOf(t, directory)
    await rm((await segmentsOf(copy))[index] as string)
    t.is((await checkStore(copy)).damage, 'gap')
  }
  const other = await makeStore(t, { records: 7 })
  await copyFile(join(other, 'head'), join(directory, 'head'))
  t.is((await checkStore(directory)).damage, 'lost-tail')
  await copyFile(join(await makeStore(t, { records: 5 }), 'head'), join(directory, 'head'))
  t.is((await checkStore(directory)).damage, 'head-mismatch')
})

test('a mark alone, without a journal to speak of, is a beginning that a crash cut off', (t) => {
  const scan = { segments: [], head: GENESIS_HEAD, end: { segment: 0, offset: 0 }, writtenAt: undefined }
  const watched = { head: GENESIS_HEAD, end: scan.end }
  const mark = { kind: 'readable', head: GENESIS_HEAD, slot: 0, otherReadable: true } as const
  t.is(judge(mark, { ...scan, stop: undefined, watched }, false).kind, 'none')
  t.is(judge({ kind: 'missing' }, { ...scan, stop: undefined, watched }, false).kind, 'none')
  t.is(judge({ kind: 'missing' }, { ...scan, stop: undefined, watched }, true).kind, 'head-unreadable')
})

const GENESIS_HEAD = { sequence: 0, link: new Uint8Array(32) }

/** A store as a crash leaves it after the last records were written and before they were marked. */
async function makeUnmarked(
  t: ExecutionContext,
  init: { readonly marked: number; readonly records: number }
): Promise<string> {
  const directory = await makeStore(t, { records: init.marked })
  const longer = await makeStore(t, { records: init.records })
  const [from = ''] = await segmentsOf(longer)
  const [to = ''] = await segmentsOf(directory)
  // The same records have other links in the two stores, because they were written at other times.
  const mark = await scanJournal(join(longer, 'journal'), { watch: init.marked })
  await copyFile(from, to)
  await replaceHeadMark(systemDisk, join(directory, 'head'), mark.watched?.head ?? GENESIS_HEAD)
  return directory
}
