import test from 'ava'
import { BoundedDatastore } from '../../src/peer/bounded-datastore.ts'

type Key = Parameters<BoundedDatastore['put']>[0]
const key = (name: string): Key => ({ toString: () => name }) as unknown as Key
const value = (n: number): Uint8Array => Uint8Array.of(n)

function names(datastore: BoundedDatastore, prefix: string): string[] {
  return [...datastore.queryKeys({ prefix })].map(String)
}

function makeDatastore(): BoundedDatastore {
  return new BoundedDatastore({
    maxima: { '/peers/': 3, '/dht/record/': 2, '': 1 },
    pinned: new Set(['/peers/self'])
  })
}

test('each kind has its maximum; the least recently used goes, never what is pinned', (t) => {
  const datastore = makeDatastore()
  datastore.put(key('/peers/self'), value(0))
  for (const name of ['/peers/a', '/peers/b']) datastore.put(key(name), value(1))
  datastore.get(key('/peers/a'))
  datastore.put(key('/peers/c'), value(2))
  t.deepEqual(names(datastore, '/peers/').sort(), ['/peers/a', '/peers/c', '/peers/self'])
  for (let i = 0; i < 10; i++) datastore.put(key(`/dht/record/${i}`), value(i))
  t.deepEqual(names(datastore, '/dht'), ['/dht/record/8', '/dht/record/9'])
  t.is(names(datastore, '/peers/').length, 3)
  t.throws(() => datastore.get(key('/peers/b')), { name: 'NotFoundError' })
})

test('queries filter by prefix and predicate, order and cut', (t) => {
  const datastore = makeDatastore()
  datastore.put(key('/peers/a'), value(1))
  datastore.put(key('/peers/b'), value(2))
  datastore.put(key('/other'), value(3))
  t.deepEqual(names(datastore, '').sort(), ['/other', '/peers/a', '/peers/b'])
  const found = datastore.query({
    prefix: '/peers/',
    filters: [(pair) => (pair.value[0] ?? 0) > 0],
    orders: [(a, b) => (String(a.key) < String(b.key) ? 1 : -1)],
    offset: 1,
    limit: 5
  })
  t.deepEqual(
    [...found].map((pair) => String(pair.key)),
    ['/peers/a']
  )
  datastore.delete(key('/peers/a'))
  t.false(datastore.has(key('/peers/a')))
})
