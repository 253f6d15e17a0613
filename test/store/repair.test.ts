import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import type { Clock } from '../../src/base/clock.ts'
import { checkStore } from '../../src/store/check-store.ts'
import type { DamageKind } from '../../src/store/damage.ts'
import { RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES } from '../../src/store/record.ts'
import { repairStore } from '../../src/store/repair-store.ts'
import { copyOf, flipBit, makeStore, row, rowsOf, segmentsOf, startedStore, upTo } from './directory.ts'

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
