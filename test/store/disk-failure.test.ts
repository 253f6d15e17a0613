import test from 'ava'
import { checkStore } from '../../src/store/check-store.ts'
import { copyOf, row, rowsOf, startedStore, temporaryDirectory, upTo } from './directory.ts'
import { failingDisk } from './simulated-disk.ts'

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
