import test, { type ExecutionContext } from 'ava'
import * as fc from 'fast-check'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createStore } from '../../src/store/disk-store.ts'
import { MemoryStore } from '../../src/store/memory-store.ts'
import type { Entry, Store } from '../../src/store/store.ts'
import { temporaryDirectory } from './directory.ts'

const TABLES = ['a', 'a-b', 'b'] as const

// Few keys, so that replacing and deleting happen; among them some that sort differently in UTF-16 and UTF-8.
const key = fc.oneof(
  fc.constantFrom('', 'a', 'a\0', 'b', 'B', '\uffff', '\u{1f600}'),
  fc.string({ unit: 'binary', maxLength: 3 })
)
const entry: fc.Arbitrary<Entry> = fc.record({
  table: fc.constantFrom(...TABLES),
  key,
  value: fc.option(fc.uint8Array({ maxLength: 40 }), { freq: 3 })
})
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('commit'), entries: fc.array(entry, { maxLength: 5 }) })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('at-once'),
      commits: fc.array(fc.array(entry, { maxLength: 3 }), { maxLength: 5 })
    })
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart') }) }
)

type Step = { kind: string; entries?: Entry[]; commits?: Entry[][] }

for (const [name, runs, make] of [
  ['memory', 200, async () => new MemoryStore()],
  ['disk', 25, makeDiskStore]
] as const) {
  test(`${name}: whatever is committed, the store is a map from table and key to the last value`, async (t) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps: Step[]) => {
        const store: Store = await make(t)
        await store.start()
        const model = new Map<string, Map<string, Uint8Array>>(TABLES.map((table) => [table, new Map()]))
        for (const { entries, commits } of steps) {
          if (entries !== undefined) await store.commit(entries)
          if (commits !== undefined) await Promise.all(commits.map((entries) => store.commit(entries)))
          if (entries === undefined && commits === undefined) {
            await store.stop()
            await store.start()
          }
          for (const { table, key, value } of entries ?? commits?.flat() ?? []) {
            if (value === null) model.get(table)?.delete(key)
            else model.get(table)?.set(key, value)
          }
          await expectModel(t, store, model)
        }
        await store.stop()
      }),
      { numRuns: runs }
    )
  })
}

async function expectModel(
  t: ExecutionContext,
  store: Store,
  model: ReadonlyMap<string, ReadonlyMap<string, Uint8Array>>
): Promise<void> {
  for (const [table, rows] of model) {
    const found: [string, Uint8Array][] = []
    for await (const [key, value] of store.iterate(table)) found.push([key, value])
    const sorted = [...rows].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    t.deepEqual(found, sorted)
    for (const [key, value] of rows) t.deepEqual(await store.get(table, key), value)
  }
  t.is(await store.get('b', 'never there'), undefined)
}

async function makeDiskStore(t: ExecutionContext): Promise<Store> {
  const directory = await temporaryDirectory(t)
  const store = createStore({ clock: systemClock, logger: silentLogger }, { directory, segmentBytesMax: 300 })
  t.teardown(() => store.stop())
  return store
}
