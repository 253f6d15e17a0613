/** What every store must do, whatever keeps it: each implementation runs these same tests. */
import type { ExecutionContext, TestFn } from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { Store } from '../../src/store/store.ts'
import { bytesOf } from './directory.ts'

/** `make` gives a store that is not started, and stops and removes it when the test is over. */
export function testStoreContract(
  test: TestFn,
  name: string,
  make: (t: ExecutionContext) => Promise<Store>
): void {
  const withStore = (title: string, body: (t: ExecutionContext, store: Store) => Promise<void>): void => {
    test(`${name}: ${title}`, async (t) => {
      const store = await make(t)
      await store.start()
      await body(t, store)
      await store.stop()
    })
  }

  withStore('gives what was committed, and undefined for what was not', async (t, store) => {
    await store.commit([{ table: 'leases', key: 'a', value: bytesOf('1') }])
    t.deepEqual(await store.get('leases', 'a'), bytesOf('1'))
    t.is(await store.get('leases', 'b'), undefined)
    t.is(await store.get('tickets', 'a'), undefined)
  })

  withStore('replaces, deletes, and takes the later of two entries for one key', async (t, store) => {
    await store.commit([
      { table: 'leases', key: 'a', value: bytesOf('1') },
      { table: 'leases', key: 'b', value: bytesOf('1') },
      { table: 'leases', key: 'b', value: bytesOf('2') },
      { table: 'leases', key: 'c', value: bytesOf('1') },
      { table: 'leases', key: 'c', value: null }
    ])
    await store.commit([
      { table: 'leases', key: 'a', value: null },
      { table: 'leases', key: 'never-there', value: null }
    ])
    t.deepEqual(await rows(store, 'leases'), [['b', '2']])
  })

  withStore('keeps empty values, empty keys and keys with a zero byte apart', async (t, store) => {
    await store.commit([
      { table: 'a', key: '', value: bytesOf('empty key') },
      { table: 'a', key: '\0', value: new Uint8Array() },
      { table: 'a', key: '\0b', value: bytesOf('zero') },
      { table: 'a-b', key: '', value: bytesOf('other table') }
    ])
    t.deepEqual(await store.get('a', '\0'), new Uint8Array())
    t.deepEqual(await rows(store, 'a'), [
      ['', 'empty key'],
      ['\0', ''],
      ['\0b', 'zero']
    ])
    t.deepEqual(await rows(store, 'a-b'), [['', 'other table']])
  })

  withStore('iterates in the order of the UTF-8 bytes of the keys', async (t, store) => {
    // In UTF-16 units, U+1F600 comes before U+FF5E.
    const keys = ['', 'B', 'a', 'ab', 'b', '\u00e9', '\uff5e', '\u{1f600}']
    await store.commit(keys.toReversed().map((key) => ({ table: 'rows', key, value: bytesOf(key) })))
    t.deepEqual(
      (await rows(store, 'rows')).map(([key]) => key),
      keys
    )
  })

  withStore('iterates over the table as it was when the iteration began', async (t, store) => {
    const keys = Array.from({ length: 300 }, (_, n) => `row-${String(n).padStart(3, '0')}`)
    await store.commit(keys.map((key) => ({ table: 'rows', key, value: bytesOf('old') })))
    const seen: string[] = []
    for await (const [key, value] of store.iterate('rows')) {
      if (seen.length === 0) {
        await store.commit([
          { table: 'rows', key: 'row-100', value: null },
          { table: 'rows', key: 'row-200', value: bytesOf('new') },
          { table: 'rows', key: 'row-999', value: bytesOf('new') }
        ])
      }
      t.deepEqual(value, bytesOf('old'))
      seen.push(key)
    }
    t.deepEqual(seen, keys)
  })

  withStore('ends an iteration with the reason of its signal', async (t, store) => {
    await store.commit(['a', 'b', 'c'].map((key) => ({ table: 'rows', key, value: bytesOf(key) })))
    const controller = new AbortController()
    const reason = new Error('enough')
    const seen: string[] = []
    const error = await t.throwsAsync(async () => {
      for await (const [key] of store.iterate('rows', { signal: controller.signal })) {
        seen.push(key)
        controller.abort(reason)
      }
    })
    t.is(error, reason)
    t.deepEqual(seen, ['a'])
  })

  withStore('shares no memory with its callers', async (t, store) => {
    const given = bytesOf('mine')
    const committed = store.commit([{ table: 'rows', key: 'a', value: given }])
    given.fill(0)
    await committed
    const got = await store.get('rows', 'a')
    t.deepEqual(got, bytesOf('mine'))
    got?.fill(0)
    for await (const [, value] of store.iterate('rows')) value.fill(0)
    t.deepEqual(await store.get('rows', 'a'), bytesOf('mine'))
  })

  withStore('commits concurrent calls in their order', async (t, store) => {
    await Promise.all(
      Array.from({ length: 100 }, (_, n) =>
        store.commit([
          { table: 'rows', key: `row-${n}`, value: bytesOf(`${n}`) },
          { table: 'rows', key: 'last', value: bytesOf(`${n}`) }
        ])
      )
    )
    t.deepEqual(await store.get('rows', 'last'), bytesOf('99'))
    t.is((await rows(store, 'rows')).length, 101)
  })

  withStore('refuses what is too large and keeps none of its commit', async (t, store) => {
    const tooLarge: { key: string; value: Uint8Array }[] = [
      { key: 'x'.repeat(LIMITS.storeKeyBytesMax + 1), value: bytesOf('') },
      { key: 'a', value: new Uint8Array(LIMITS.storeValueBytesMax + 1) }
    ]
    for (const entry of tooLarge) {
      const commit = store.commit([
        { table: 'rows', key: 'before', value: bytesOf('1') },
        { table: 'rows', ...entry }
      ])
      await t.throwsAsync(commit, { instanceOf: SlicenetError, code: 'TOO_LARGE' })
    }
    const many = Array.from({ length: 9 }, (_, n) => ({
      table: 'rows',
      key: `${n}`,
      value: new Uint8Array(LIMITS.storeValueBytesMax)
    }))
    await t.throwsAsync(store.commit(many), { instanceOf: SlicenetError, code: 'TOO_LARGE' })
    t.deepEqual(await rows(store, 'rows'), [])
    const largest = {
      key: 'x'.repeat(LIMITS.storeKeyBytesMax),
      value: new Uint8Array(LIMITS.storeValueBytesMax)
    }
    await store.commit([{ table: 'rows', ...largest }])
    t.is((await store.get('rows', largest.key))?.length, LIMITS.storeValueBytesMax)
  })

  withStore("takes a caller's mistake for a TypeError", async (t, store) => {
    const value = bytesOf('1')
    for (const table of ['', 'Leases', 'a\0b', '-a', 'x'.repeat(41)]) {
      await t.throwsAsync(store.commit([{ table, key: 'a', value }]), { instanceOf: TypeError })
      await t.throwsAsync(store.get(table, 'a'), { instanceOf: TypeError })
      await t.throwsAsync(rows(store, table), { instanceOf: TypeError })
    }
    await t.throwsAsync(store.commit([{ table: 'rows', key: '\ud800', value }]), { instanceOf: TypeError })
    const text = 'text' as unknown as Uint8Array
    await t.throwsAsync(store.commit([{ table: 'rows', key: 'a', value: text }]), { instanceOf: TypeError })
    t.deepEqual(await rows(store, 'rows'), [])
  })

  withStore('keeps everything over a stop and a start', async (t, store) => {
    await store.commit([{ table: 'rows', key: 'a', value: bytesOf('1') }])
    await store.commit([])
    await store.stop()
    await store.start()
    await store.commit([{ table: 'rows', key: 'b', value: bytesOf('2') }])
    await store.stop()
    await store.start()
    t.deepEqual(await rows(store, 'rows'), [
      ['a', '1'],
      ['b', '2']
    ])
  })

  withStore('starts and stops any number of times', async (t, store) => {
    await Promise.all([store.start(), store.start()])
    await Promise.all([store.stop(), store.stop()])
    await Promise.all([store.stop(), store.start()])
    await t.notThrowsAsync(store.get('rows', 'a'))
  })

  test(`${name}: refuses everything unless it runs`, async (t) => {
    const store = await make(t)
    const expectRefusals = async (): Promise<void> => {
      const failed = { instanceOf: SlicenetError, code: 'STORE_FAILED' }
      await t.throwsAsync(store.commit([{ table: 'rows', key: 'a', value: null }]), failed)
      await t.throwsAsync(store.get('rows', 'a'), failed)
      await t.throwsAsync(rows(store, 'rows'), failed)
    }
    await expectRefusals()
    await store.start()
    await store.commit([
      { table: 'rows', key: 'a', value: bytesOf('1') },
      { table: 'rows', key: 'b', value: bytesOf('2') }
    ])
    const iterator = store.iterate('rows')[Symbol.asyncIterator]()
    await iterator.next()
    await store.stop()
    await t.throwsAsync(iterator.next(), { instanceOf: SlicenetError, code: 'STORE_FAILED' })
    await expectRefusals()
  })
}

async function rows(store: Store, table: string): Promise<[key: string, text: string][]> {
  const found: [string, string][] = []
  for await (const [key, value] of store.iterate(table)) found.push([key, new TextDecoder().decode(value)])
  return found
}
