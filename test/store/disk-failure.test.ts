import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { checkStore } from '../../src/store/check-store.ts'
import { asStoreFailure } from '../../src/store/disk.ts'
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
import { CHURN } from './compacted.ts'
import { recordErrors } from './recorded-errors.ts'
import { failingDisk, SmallDisk } from './simulated-disk.ts'

/** The mark and the first segment's header take some 8300 bytes before the first commit. */
for (const [title, init, message] of [
  ['that is full', { code: 'ENOSPC' }, /ENOSPC/],
  ['that cannot sync', { code: 'EIO', onSync: true }, /EIO/]
] as const) {
  test(`on a disk ${title} nothing acknowledged is lost and nothing more is taken`, async (t) => {
    for (let bytes = 8400; bytes < 9600; bytes += 53) {
      const directory = await temporaryDirectory(t)
      const store = await startedStore(t, { directory }, { disk: failingDisk({ bytes, ...init }) })
      let acknowledged = 0
      const error = await t.throwsAsync(
        async () => {
          for (;;) {
            await store.commit([row(acknowledged + 1)])
            acknowledged++
          }
        },
        { code: 'STORE_FAILED', message }
      )
      t.is(typeof (error as unknown as { hint?: string }).hint, 'string')
      await t.throwsAsync(store.commit([row(99)]), { code: 'STORE_FAILED', message })
      await t.throwsAsync(store.get('rows', 'row-1'), { code: 'STORE_FAILED', message })
      await t.throwsAsync(store.iterate('rows')[Symbol.asyncIterator]().next(), { code: 'STORE_FAILED' })
      await store.stop()

      t.false((await checkStore(directory)).fatal)
      const rows = await rowsOf(t, directory)
      t.deepEqual(rows.slice(0, acknowledged), upTo(acknowledged))
      // The commit that failed may be there or not; nothing else.
      t.true(rows.length <= acknowledged + 1)
    }
  })
}

test('all commits that wait are refused together with the one that failed', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory }, { disk: failingDisk({ bytes: 9000, code: 'ENOSPC' }) })
  const results = await Promise.allSettled(upTo(50).map((n) => store.commit([row(n)])))
  t.deepEqual(
    results.map(({ status }) => status),
    upTo(50).map(() => 'rejected')
  )
  await store.stop()
  await store.start().catch(() => {})
  await store.stop()
  t.false((await checkStore(directory)).fatal)
})

test('a store that failed can be started again when the disk has room', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory }, { disk: failingDisk({ bytes: 9000, code: 'ENOSPC' }) })
  await store.commit([row(1)])
  await t.throwsAsync(store.commit([{ ...row(2), value: new Uint8Array(2000) }]), { code: 'STORE_FAILED' })
  await store.stop()
  t.deepEqual(await rowsOf(t, await copyOf(t, directory)), [1])
  const next = await startedStore(t, { directory })
  await next.commit([row(2)])
  await next.stop()
  t.deepEqual(await rowsOf(t, directory), [1, 2])
})

test('a snapshot that fills the disk is given up, and commits go on with the journal as it was', async (t) => {
  const grown = await makeStore(t, { records: 40 })
  const growing = await startedStore(t, { directory: grown })
  for (let n = 0; n < 40; n++) await growing.commit([CHURN])
  await growing.stop()
  const outcomes = new Set<string>()
  const [segment = ''] = await segmentsOf(grown)
  const used = (await stat(segment)).size + (await stat(join(grown, 'head'))).size
  // Room for a segment's header and a small commit, at least.
  for (let free = 200; free < 3500; free += 300) {
    const directory = await copyOf(t, grown)
    const disk = new SmallDisk({ bytes: used + free, saysFree: Infinity })
    const { errors, logger } = recordErrors()
    const store = await startedStore(t, { directory, compactionBytesMin: 1000 }, { disk, logger })
    while (errors.length === 0 && (await checkStore(directory)).snapshot === undefined) await delay(1)
    if (errors.some((line) => line.includes('takes no more commits'))) {
      // The snapshot found room, and the record that names it none: a commit like any other.
      outcomes.add('full')
      disk.bytesMax = Infinity
      await store.stop()
      await store.start()
    } else if (errors.length > 0) {
      outcomes.add('given up')
      t.regex(errors.join(), /compaction failed.*ENOSPC/)
      const files = await readdir(join(directory, 'journal'))
      t.false(files.some((name) => name.includes('snapshot')))
      t.true(files.includes('0000000000000001.segment'))
    } else {
      outcomes.add('compacted')
      disk.bytesMax = Infinity
    }
    await store.commit([row(41)])
    t.deepEqual(await store.get('rows', 'row-40'), row(40).value)
    await store.stop()
    t.false((await checkStore(directory)).fatal)
    t.deepEqual(await rowsOf(t, directory), upTo(41))
  }
  t.true(outcomes.has('given up') && outcomes.has('compacted'))
})

test('no snapshot is begun on a disk that has too little room for it', async (t) => {
  const grown = await makeStore(t, { records: 40 })
  const disk = new SmallDisk({ bytes: Infinity, saysFree: 1_000_000 })
  const { errors, logger } = recordErrors()
  const init = { directory: grown, compactionBytesMin: 1000 }
  const store = await startedStore(t, init, { disk, logger })
  while (errors.length === 0) await store.commit([CHURN])
  await store.commit([row(41)])
  await store.stop()
  t.regex(errors[0] ?? '', /1000000 bytes are free/)
  t.like(await checkStore(grown), { damage: 'none', segments: 1, snapshot: undefined })
  t.deepEqual(await rowsOf(t, grown), upTo(41))
})

test('a full disk that LevelDB meets gives the same advice as one that the journal meets', (t) => {
  const said = new Error('IO error: /tables/000003.log: No space left on device')
  t.regex(asStoreFailure('writing', said).hint, /disk is full/)
  t.notRegex(asStoreFailure('writing', new Error('IO error: something else')).hint, /disk is full/)
})
