import test from 'ava'
import { LIMITS } from '../../src/base/limits.ts'
import { row, rowsOf, startedStore, temporaryDirectory, upTo } from './directory.ts'
import { recordingDisk } from './simulated-disk.ts'

test('calls made at once share a write and a sync, those made after each other do not', async (t) => {
  const directory = await temporaryDirectory(t)
  const lines: string[] = []
  const store = await startedStore(t, { directory }, { disk: recordingDisk(lines) })
  const syncs = (): number => lines.filter((line) => /^sync .*\.segment$/.test(line)).length
  lines.length = 0
  await Promise.all(upTo(50).map((n) => store.commit([row(n)])))
  t.is(syncs(), 1)
  for (let n = 51; n <= 55; n++) await store.commit([row(n)])
  t.is(syncs(), 6)
  await store.stop()
  t.deepEqual(await rowsOf(t, directory), upTo(55))
})

test('no more waits than there is room for, and what was taken is kept', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory })
  const value = new Uint8Array(LIMITS.storeValueBytesMax - 100)
  const commits = upTo(10).map((n) =>
    store.commit(upTo(7).map((part) => ({ table: 'rows', key: `${n} ${part}`, value })))
  )
  const results = await Promise.allSettled(commits)
  t.deepEqual(
    results.map(({ status }) => status),
    [...upTo(9).map(() => 'fulfilled'), 'rejected']
  )
  t.like(results[9], { reason: { code: 'BUSY', retryable: true } })
  t.is((await store.get('rows', '9 7'))?.length, value.length)
  t.is(await store.get('rows', '10 1'), undefined)
  await store.commit([row(1)])
})

test('a stop waits for the commits that were taken', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory })
  const commits = upTo(20).map((n) => store.commit([row(n)]))
  await Promise.all([store.stop(), ...commits])
  t.deepEqual(await rowsOf(t, directory), upTo(20))
})
