import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Level } from 'level'
import { checkStore } from '../../src/store/check-store.ts'
import { Tables } from '../../src/store/tables.ts'
import { CHURN, compactedStore } from './compacted.ts'
import { bytesOf, makeStore, row, rowsOf, startedStore, temporaryDirectory, upTo } from './directory.ts'
import { recordErrors, type RecordedErrors } from './recorded-errors.ts'
import { unreadableDisk } from './simulated-disk.ts'

for (const suffix of ['head', '.segment', '.snapshot']) {
  test(`a disk that cannot read a ${suffix} file is no damage: the start fails and changes nothing`, async (t) => {
    const { directory, rows } = await compactedStore(t)
    const before = await contentOf(directory)
    for (const reads of [0, 1]) {
      const error = await t.throwsAsync(
        startedStore(t, { directory }, { disk: unreadableDisk({ suffix, reads }) }),
        { code: 'STORE_FAILED', message: /EIO/ }
      )
      t.regex((error as unknown as { hint: string }).hint, /the disk reports errors/)
      t.deepEqual(await contentOf(directory), before)
    }
    t.deepEqual(await rowsOf(t, directory), rows)
  })
}

test('a journal that cannot be read while the tables are rebuilt from it leaves them to be rebuilt again', async (t) => {
  const { directory, rows } = await compactedStore(t)
  // What the survey and then the rebuilding read of the segments, in pieces.
  const reads = 2 * (await checkStore(directory)).segments + 4
  for (let failing = 0; failing < reads; failing++) {
    await rm(join(directory, 'tables'), { recursive: true, force: true })
    const disk = unreadableDisk({ suffix: '.segment', reads: failing })
    await t.throwsAsync(startedStore(t, { directory }, { disk }), { code: 'STORE_FAILED', message: /EIO/ })
  }
  t.deepEqual(await rowsOf(t, directory), rows)
})

test('tables that the disk does not give at a start are rebuilt', async (t) => {
  const directory = await makeStore(t, { records: 30 })
  // Opened once more, the log has become a table file.
  t.deepEqual(await rowsOf(t, directory), upTo(30))
  const name = (await readdir(join(directory, 'tables'))).find((name) => name.endsWith('.ldb')) ?? ''
  const path = join(directory, 'tables', name)
  await rm(path)
  await mkdir(path)
  t.deepEqual(await rowsOf(t, directory), upTo(30))
})

test.serial(
  'a value that the disk does not give is an error of its own, and the store goes on',
  async (t) => {
    const directory = await makeStore(t, { records: 3 })
    const store = await startedStore(t, { directory })
    await replacing(Level.prototype, 'get', unreadable, async () => {
      await t.throwsAsync(store.get('rows', 'row-1'), { code: 'STORE_FAILED', message: /EIO/ })
    })
    t.deepEqual(await store.get('rows', 'row-1'), row(1).value)
    await store.commit([row(4)])
    await store.stop()
    t.deepEqual(await rowsOf(t, directory), upTo(4))
  }
)

test.serial(
  'tables that cannot be read, or were altered, make no snapshot, and the journal stays whole',
  async (t) => {
    const faults: [message: string, (next: NextRows) => NextRows][] = [
      ['EIO: injected', () => unreadable],
      [
        'a value in the tables was altered on the disk',
        (next) => async (size) =>
          (await next(size)).map(([name, value]) => [
            name,
            name.endsWith('row-3') ? bytesOf('x'.repeat(30)) : value
          ])
      ],
      [
        'entries are missing from the tables, or were altered on the disk',
        (next) => async (size) => (await next(size)).filter(([name]) => !name.endsWith('row-3'))
      ]
    ]
    for (const [message, damage] of faults) {
      const directory = await makeGrown(t)
      const recorded = recordErrors()
      await duringCompaction(t, directory, recorded, damage)
      t.is(recorded.errors.length, 1)
      t.true(recorded.errors[0]?.includes(message))
      t.like(await checkStore(directory), { damage: 'none', snapshot: undefined })
      t.false((await readdir(join(directory, 'journal'))).some((name) => name.includes('snapshot')))
      await rm(join(directory, 'tables'), { recursive: true })
      t.deepEqual(await rowsOf(t, directory), upTo(21))
    }
  }
)

test.serial('control: a snapshot of tables that nobody checks loses what they lack', async (t) => {
  const directory = await makeGrown(t)
  const capture = function (this: Tables): ReturnType<Tables['capture']> {
    const entries = [
      upTo(20)
        .map(row)
        .filter(({ key }) => key !== 'row-3')
    ]
    return { entries: asynchronous(entries), [Symbol.asyncDispose]: async () => {} }
  }
  await replacing(Tables.prototype, 'capture', capture, () =>
    duringCompaction(t, directory, recordErrors(), (next) => next)
  )
  t.like(await checkStore(directory), { damage: 'none', snapshot: { sound: true } })
  await rm(join(directory, 'tables'), { recursive: true })
  t.false((await rowsOf(t, directory)).includes(3))
})

type NextRows = (size: number) => Promise<[name: string, value: Uint8Array][]>

const unreadable = async (): Promise<never> => {
  throw Object.assign(new Error('EIO: injected'), { code: 'EIO' })
}

/** A journal that is worth compacting. */
async function makeGrown(t: ExecutionContext): Promise<string> {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory })
  for (let n = 1; n <= 20; n++) await store.commit([row(n), CHURN])
  await store.stop()
  return directory
}

/** Starts the store, commits what makes it compact while its tables are read so, and commits once more. */
async function duringCompaction(
  t: ExecutionContext,
  directory: string,
  { logger, errors }: RecordedErrors,
  damage: (next: NextRows) => NextRows
): Promise<void> {
  const { segments } = await checkStore(directory)
  t.is(segments, 1)
  const bytes = 400 * 22
  const store = await startedStore(t, { directory, compactionBytesMin: bytes }, { logger })
  const iterator = Reflect.get(Level.prototype, 'iterator') as (...args: unknown[]) => { nextv: NextRows }
  const wrapped = function (this: Level, ...args: unknown[]): unknown {
    const made = iterator.apply(this, args)
    made.nextv = damage(made.nextv.bind(made))
    return made
  }
  await replacing(Level.prototype, 'iterator', wrapped, async () => {
    while ((await checkStore(directory)).segments === 1) await store.commit([CHURN])
    await store.commit([row(21)])
    while (errors.length === 0 && (await checkStore(directory)).snapshot === undefined) {
      await store.get('rows', 'row-1')
    }
    await store.stop()
  })
}

async function replacing<T extends object>(
  owner: T,
  name: keyof T,
  value: unknown,
  body: () => Promise<void>
): Promise<void> {
  const own = Object.getOwnPropertyDescriptor(owner, name)
  Object.defineProperty(owner, name, { value, configurable: true, writable: true })
  try {
    await body()
  } finally {
    if (own === undefined) Reflect.deleteProperty(owner, name)
    else Object.defineProperty(owner, name, own)
  }
}

async function* asynchronous<T>(items: Iterable<T>): AsyncGenerator<T> {
  yield* items
}

async function contentOf(directory: string): Promise<Map<string, string>> {
  const content = new Map<string, string>()
  for (const name of [
    'head',
    ...(await readdir(join(directory, 'journal'))).map((name) => join('journal', name))
  ]) {
    content.set(name, (await readFile(join(directory, name))).toString('hex'))
  }
  return content
}
