/**
 * What libp2p remembers (addresses of peers, records and providers of the DHT) in memory, with a maximum for each
 * kind: strangers make libp2p store things, and its own datastore grows without bound.
 */
import { NotFoundError } from '@libp2p/interface'
import type { Libp2pInit } from 'libp2p'

type Datastore = NonNullable<Libp2pInit['datastore']>
type Key = Parameters<Datastore['put']>[0]
type Query = Parameters<Datastore['query']>[0]
type KeyQuery = Parameters<Datastore['queryKeys']>[0]
interface Pair {
  key: Key
  value: Uint8Array
}

export interface BoundedDatastoreInit {
  /** How many entries each prefix may have; the longest that fits counts. What has no prefix shares the last. */
  readonly maxima: Readonly<Record<string, number>> & { readonly '': number }
  /** Keys that are never displaced. */
  readonly pinned: ReadonlySet<string>
}

export class BoundedDatastore implements Datastore {
  readonly #pinned: ReadonlySet<string>
  /** By prefix, longest first; entries in the order of their last use. */
  readonly #spaces: { prefix: string; max: number; entries: Map<string, Pair> }[]

  constructor(init: BoundedDatastoreInit) {
    this.#pinned = init.pinned
    this.#spaces = Object.entries(init.maxima)
      .map(([prefix, max]) => ({ prefix, max, entries: new Map<string, Pair>() }))
      .sort((a, b) => b.prefix.length - a.prefix.length)
  }

  put(key: Key, value: Uint8Array): Key {
    const name = key.toString()
    const { entries, max } = this.#space(name)
    entries.delete(name)
    entries.set(name, { key, value })
    if (entries.size > max) {
      const oldest = entries.keys().find((candidate) => !this.#pinned.has(candidate))
      if (oldest !== undefined) entries.delete(oldest)
    }
    return key
  }

  get(key: Key): Uint8Array {
    const name = key.toString()
    const { entries } = this.#space(name)
    const pair = entries.get(name)
    if (pair === undefined) throw new NotFoundError()
    entries.delete(name)
    entries.set(name, pair)
    return pair.value
  }

  has(key: Key): boolean {
    const name = key.toString()
    return this.#space(name).entries.has(name)
  }

  delete(key: Key): void {
    const name = key.toString()
    this.#space(name).entries.delete(name)
  }

  async *putMany(source: Iterable<Pair> | AsyncIterable<Pair>): AsyncGenerator<Key> {
    for await (const { key, value } of source) yield this.put(key, value)
  }

  async *getMany(source: Iterable<Key> | AsyncIterable<Key>): AsyncGenerator<Pair> {
    for await (const key of source) yield { key, value: this.get(key) }
  }

  async *deleteMany(source: Iterable<Key> | AsyncIterable<Key>): AsyncGenerator<Key> {
    for await (const key of source) {
      this.delete(key)
      yield key
    }
  }

  batch(): ReturnType<Datastore['batch']> {
    const steps: (() => void)[] = []
    return {
      put: (key: Key, value: Uint8Array) => steps.push(() => this.put(key, value)),
      delete: (key: Key) => steps.push(() => this.delete(key)),
      commit: () => {
        for (const step of steps.splice(0)) step()
      }
    }
  }

  *query(query: Query): Generator<Pair> {
    let pairs = this.#under(query.prefix).filter(
      (pair) => query.filters?.every((filter) => filter(pair)) ?? true
    )
    for (const order of query.orders ?? []) pairs = pairs.sort(order)
    yield* cut(pairs, query)
  }

  *queryKeys(query: KeyQuery): Generator<Key> {
    let keys = this.#under(query.prefix)
      .map(({ key }) => key)
      .filter((key) => query.filters?.every((filter) => filter(key)) ?? true)
    for (const order of query.orders ?? []) keys = keys.sort(order)
    yield* cut(keys, query)
  }

  #space(name: string): { entries: Map<string, Pair>; max: number } {
    const space = this.#spaces.find(({ prefix }) => name.startsWith(prefix))
    // The empty prefix fits everything.
    return space ?? { entries: new Map(), max: 0 }
  }

  #under(prefix = ''): Pair[] {
    return this.#spaces
      .filter((space) => space.prefix.startsWith(prefix) || prefix.startsWith(space.prefix))
      .flatMap(({ entries }) => [...entries.values()])
      .filter(({ key }) => key.toString().startsWith(prefix))
  }
}

function cut<T>(items: readonly T[], query: { offset?: number; limit?: number }): readonly T[] {
  const offset = query.offset ?? 0
  return items.slice(offset, query.limit === undefined ? undefined : offset + query.limit)
}
