import { readdir, readFile, stat, symlink, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { checkStore } from '../../src/store/check-store.ts'
import { DirectoryLock } from '../../src/store/directory-lock.ts'
import { repairStore } from '../../src/store/repair-store.ts'
import { makeStore, row, rowsOf, startedStore, temporaryDirectory } from './directory.ts'
import { startWriter } from './writer.ts'

test('a second store in the same process is refused, and does not loosen the lock of the first', async (t) => {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory })
  const link = join(await temporaryDirectory(t), 'link')
  await symlink(directory, link)
  for (const name of [directory, link]) {
    const error = await t.throwsAsync(startedStore(t, { directory: name }), { code: 'STORE_LOCKED' })
    t.like(error, { details: { pid: process.pid }, hint: `process ${process.pid} has it open: stop it` })
    await t.throwsAsync(repairStore(name), { code: 'STORE_LOCKED' })
  }
  // An fcntl lock is gone as soon as its process closes any descriptor of the file: another process would get in.
  const [said = ''] = await startWriter(t, directory).lines(1)
  t.is((JSON.parse(said) as { code: string }).code, 'STORE_LOCKED')
  await store.commit([row(1)])
  t.like(await checkStore(directory), { damage: 'none', records: 1 })
})

test('a start that is refused has not touched the journal', async (t) => {
  const directory = await makeStore(t, { records: 2 })
  const journal = async (): Promise<unknown> => {
    const names = await readdir(join(directory, 'journal'))
    const { mtimeMs, ctimeMs } = await stat(join(directory, 'journal', names[0] as string))
    return { names, mtimeMs, ctimeMs, head: await readFile(join(directory, 'head')) }
  }
  const before = await journal()
  const lock = await DirectoryLock.acquire(directory)
  await t.throwsAsync(startedStore(t, { directory }), { code: 'STORE_LOCKED' })
  t.deepEqual(await journal(), before)
  await lock.release()
  t.deepEqual(await rowsOf(t, directory), [1, 2])
})

test('a lock whose files a power cut has damaged can still be taken', async (t) => {
  const directory = await makeStore(t, { records: 2 })
  for (const name of await readdir(join(directory, 'lock'))) await truncate(join(directory, 'lock', name), 0)
  t.deepEqual(await rowsOf(t, directory), [1, 2])
})

test('the directory and what the store writes are for their owner alone', async (t) => {
  const directory = join(await temporaryDirectory(t), 'a', 'b')
  const store = await startedStore(t, { directory })
  await store.commit([row(1)])
  const mode = async (...path: string[]): Promise<number> =>
    (await stat(join(directory, ...path))).mode & 0o777
  for (const path of ['..', '.', 'journal', 'lock']) t.is(await mode(path), 0o700, path)
  const [segment = ''] = await readdir(join(directory, 'journal'))
  for (const path of ['head', 'owner', join('journal', segment)]) t.is(await mode(path), 0o600, path)
})
