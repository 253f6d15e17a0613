import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Level } from 'level'
import { systemClock } from '../../src/base/clock.ts'
import { createLogger } from '../../src/base/log.ts'
import { createStore } from '../../src/store/disk-store.ts'
import { Tables } from '../../src/store/tables.ts'
import { flipBit, makeStore, row, rowsOf, startedStore, upTo } from './directory.ts'

const RECORDS = 2500

test('tables that are gone or cannot be opened are rebuilt', async (t) => {
  const directory = await makeStore(t, { records: 30, segmentBytesMax: 500 })
  const tables = join(directory, 'tables')
  await rm(tables, { recursive: true })
  t.deepEqual(await rowsOf(t, directory), upTo(30))
  for (const name of await readdir(tables)) await truncate(join(tables, name), 0)
  t.deepEqual(await rowsOf(t, directory), upTo(30))
})

test('tables that are behind the journal, or ahead of it, are rebuilt', async (t) => {
  const directory = await makeStore(t, { records: 30 })
  const other = await makeStore(t, { records: 31 })
  const level = await openTables(join(other, 'tables'))
  const state = (await level.get('\0state')) ?? new Uint8Array()
  await level.close()
  const victim = await openTables(join(directory, 'tables'))
  await victim.batch([
    { type: 'put', key: '\0state', value: state },
    { type: 'del', key: 'rows\0row-3' }
  ])
  await victim.close()
  await rm(join(directory, 'tables.seal'))
  t.deepEqual(await reasonsOf(directory), ['they go to record 31, the journal to 30'])
  t.deepEqual(await rowsOf(t, directory), upTo(30))
})

test('LevelDB opens a damaged log without a word and with rows missing; the store notices and rebuilds', async (t) => {
  const directory = await makeWide(t)
  const tables = join(directory, 'tables')
  const log = (await readdir(tables)).find((name) => name.endsWith('.log')) ?? ''
  const bytes = await readFile(join(tables, log))
  // In the first of several blocks: what follows the block is read again, also the note of how far the tables go.
  t.true(bytes.length > 3 * 32_768)
  await flipBit(join(tables, log), 20_000)
  await rm(join(directory, 'tables.seal'))

  const level = await openTables(tables)
  const keys = await level.keys().all()
  t.true(keys.length < RECORDS)
  t.deepEqual(keys[0], '\0state')
  const state = await level.get('\0state')
  t.is(
    Number(Buffer.from(state ?? []).readBigUInt64BE(0)),
    RECORDS,
    'the applied head alone says that all is well'
  )
  await level.close()

  t.deepEqual(await reasonsOf(directory), ['entries are missing or altered'])
  t.deepEqual(await rowsOf(t, directory), upTo(RECORDS))
  t.deepEqual(await reasonsOf(directory), [])
})

test('a value that was altered on the disk is not given out, and a start rebuilds the tables', async (t) => {
  const directory = await makeStore(t, { records: 3 })
  const level = await openTables(join(directory, 'tables'))
  const stored = Buffer.from((await level.get('rows\0row-2')) ?? [])
  stored[20] = (stored[20] ?? 0) ^ 1
  await level.put('rows\0row-2', stored)
  await level.close()
  await rm(join(directory, 'tables.seal'))

  const tables = await Tables.openExisting(join(directory, 'tables'))
  t.teardown(() => tables.close())
  t.deepEqual(await tables.get('rows', 'row-1'), row(1).value)
  await t.throwsAsync(tables.get('rows', 'row-2'), { code: 'STORE_CORRUPT' })
  await t.throwsAsync(async () => Array.fromAsync(tables.iterate('rows')), { code: 'STORE_CORRUPT' })
  await tables.close()

  t.deepEqual(await reasonsOf(directory), [
    'they cannot be read: a value in the tables was altered on the disk'
  ])
  t.deepEqual(await rowsOf(t, directory), upTo(3))
})

test('LevelDB is not let at files that are not as it left them, nor again at those over which a start died', async (t) => {
  const directory = await makeStore(t, { records: 30 })
  const manifest =
    (await readdir(join(directory, 'tables'))).find((name) => name.startsWith('MANIFEST')) ?? ''
  await flipBit(join(directory, 'tables', manifest), 20)
  t.deepEqual(await reasonsOf(directory), ['their files were altered'])
  t.deepEqual(await reasonsOf(directory), [])
  await writeFile(join(directory, 'tables.seal'), 'verifying')
  t.deepEqual(await reasonsOf(directory), ['the last start ended while it read them'])
  t.deepEqual(await rowsOf(t, directory), upTo(30))
})

function openTables(directory: string): Promise<Level<string, Uint8Array>> {
  const level = new Level<string, Uint8Array>(directory, { keyEncoding: 'utf8', valueEncoding: 'view' })
  return level.open().then(() => level)
}

/** Starts and stops the store; gives the reasons that it logged for rebuilding its tables. */
async function reasonsOf(directory: string): Promise<string[]> {
  const lines: string[] = []
  const logger = createLogger({ level: 'info', write: (line) => lines.push(line), clock: systemClock })
  const store = createStore({ clock: systemClock, logger }, { directory })
  await store.start()
  await store.stop()
  return lines
    .map((line) => JSON.parse(line) as { message: string; reason?: string })
    .flatMap(({ message, reason }) => (message === 'rebuilding the tables' && reason ? [reason] : []))
}

/** So many records, each with a batch of its own, that LevelDB's log has several blocks. */
async function makeWide(t: ExecutionContext): Promise<string> {
  const directory = await makeStore(t, { records: 0 })
  const store = await startedStore(t, { directory })
  for (let n = 1; n <= RECORDS; n += 10) {
    await Promise.all(Array.from({ length: 10 }, (_, index) => store.commit([row(n + index)])))
  }
  await store.stop()
  return directory
}
