/**
 * The tables, in a LevelDB that is only a copy of what the journal says. LevelDB neither notices every flipped bit nor
 * that a stretch of its log is gone, so every value carries a checksum, and one more entry notes up to which record the
 * tables go, how many entries they have and the sum of all their checksums. A start recomputes both; whatever does not
 * agree is wiped and rebuilt.
 */
import { hash } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { Level } from 'level'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { asStoreFailure } from './disk.ts'
import { isLevelLocked } from './directory-lock.ts'
import { sameHead, type ChainHead } from './record.ts'
import type { Entry } from './store.ts'
import { findSealFault, noteOpen } from './tables-seal.ts'

/** Sorts before every table, because no table's name begins with it. */
const STATE_KEY = '\0state'
const STATE_BYTES = 72
const CHECKSUM_BYTES = 16
/** A sum of checksums modulo 2^128: it does not depend on the order, and an entry can be taken out of it again. */
interface Tally {
  count: number
  sum: bigint
  /** Of all keys and values; not kept on the disk. */
  bytes: number
}

export class Tables {
  readonly #level: Level<string, Uint8Array>
  #tally: Tally = zero()

  private constructor(level: Level<string, Uint8Array>) {
    this.#level = level
  }

  /**
   * Opens the tables and makes sure that they are those of the journal's `head`; if not, empties them and has `fill`
   * put in everything by `apply`. `onRebuild` is told why. Throws `STORE_FAILED`.
   */
  static async open(
    directory: string,
    head: ChainHead,
    fill: (tables: Tables) => Promise<void>,
    onRebuild: (reason: string) => void
  ): Promise<Tables> {
    const kept = await openIfSound(directory, head)
    if (kept instanceof Tables) return kept
    onRebuild(kept)
    await rm(directory, { recursive: true, force: true })
    const tables = new Tables(await openLevel(directory))
    await noteOpen(directory)
    try {
      await fill(tables)
      await tables.apply([], head)
    } catch (error) {
      await tables.close()
      throw error
    }
    return tables
  }

  static async openExisting(directory: string): Promise<Tables> {
    return new Tables(await openLevel(directory))
  }

  /** Applies what the records up to `head` say, all or nothing; of two entries for one key the later holds. */
  async apply(entries: readonly Entry[], head: ChainHead): Promise<void> {
    const changes = new Map<string, Uint8Array | null>()
    for (const { table, key, value } of entries) changes.set(levelKey(table, key), value)
    const keys = [...changes.keys()]
    const old = await this.#level.getMany(keys)
    const tally = { ...this.#tally }
    const operations: { type: 'put' | 'del'; key: string; value: Uint8Array }[] = []
    for (const [index, key] of keys.entries()) {
      const value = changes.get(key) ?? null
      const before = old[index]
      if (before !== undefined) count(tally, key, before, -1)
      if (value === null) {
        operations.push({ type: 'del', key, value: NOTHING })
      } else {
        const stored = Buffer.concat([checksumOf(key, value), value])
        count(tally, key, stored, 1)
        operations.push({ type: 'put', key, value: stored })
      }
    }
    operations.push({ type: 'put', key: STATE_KEY, value: encodeState(head, tally) })
    await this.#level.batch(operations)
    this.#tally = tally
  }

  async get(table: string, key: string): Promise<Uint8Array | undefined> {
    const name = levelKey(table, key)
    const stored = await this.#level.get(name)
    return stored === undefined ? undefined : open(name, stored)
  }

  async *iterate(table: string): AsyncGenerator<readonly [key: string, value: Uint8Array]> {
    // `\x01` is what comes after the separator: every key of the table lies between.
    for await (const [name, stored] of this.#level.iterator({ gte: `${table}\0`, lt: `${table}\x01` })) {
      yield [name.slice(table.length + 1), open(name, stored)]
    }
  }

  close(): Promise<void> {
    return this.#level.close()
  }

  /** About how many bytes a snapshot of these tables has. */
  get bytes(): number {
    return this.#tally.bytes
  }

  /** All entries as they are at the call, whatever is applied meanwhile. */
  capture(): Capture {
    const iterator = iteratorOf(this.#level)
    return {
      entries: this.#entriesOf(iterator, { ...this.#tally }),
      [Symbol.asyncDispose]: () => iterator.close()
    }
  }

  async *#entriesOf(iterator: LevelIterator, expected: Tally): AsyncGenerator<readonly Entry[]> {
    const tally = zero()
    for await (const rows of readAll(iterator)) {
      add(tally, rows)
      yield rows.map(([name, stored]) => {
        const separator = name.indexOf('\0')
        const value = stored.subarray(CHECKSUM_BYTES)
        return { table: name.slice(0, separator), key: name.slice(separator + 1), value }
      })
    }
    if (tally.count === expected.count && tally.sum === expected.sum) return
    throw new SlicenetError(
      'STORE_CORRUPT',
      'entries are missing from the tables, or were altered on the disk',
      {
        hint: REBUILD_HINT
      }
    )
  }

  /** Why these are not the tables of `head`, or undefined if they are. */
  async findFault(head: ChainHead): Promise<string | undefined> {
    const state = await this.#level.get(STATE_KEY)
    if (state === undefined || state.length !== STATE_BYTES) return 'they do not say how far they go'
    const tally = zero()
    for await (const entries of readAll(iteratorOf(this.#level))) add(tally, entries)
    const applied = { sequence: Number(readUint64(state, 0)), link: state.subarray(8, 40) }
    if (!sameHead(applied, head)) {
      return `they go to record ${applied.sequence}, the journal to ${head.sequence}`
    }
    if (Buffer.compare(encodeState(head, tally), state) !== 0) return 'entries are missing or altered'
    this.#tally = tally
    return undefined
  }
}

const NOTHING = new Uint8Array()
const REBUILD_HINT = 'start the daemon again: it rebuilds the tables from the journal'

/** Memory of the tables as they were, held until it is disposed of. */
export interface Capture extends AsyncDisposable {
  /** Some at a time. Throws `STORE_CORRUPT`, at the latest at the end, unless they are what was put in. */
  readonly entries: AsyncIterable<readonly Entry[]>
}

type LevelIterator = ReturnType<typeof iteratorOf>

/** Made at once: what it reads is as it was then. */
function iteratorOf(level: Level<string, Uint8Array>) {
  return level.iterator({ gt: STATE_KEY, fillCache: false, highWaterMarkBytes: LIMITS.storeChunkBytesMax })
}

function zero(): Tally {
  return { count: 0, sum: 0n, bytes: 0 }
}

async function* readAll(iterator: LevelIterator): AsyncGenerator<[name: string, stored: Uint8Array][]> {
  try {
    for (;;) {
      const rows = await iterator.nextv(LIMITS.storeChunkEntriesMax)
      if (rows.length === 0) return
      yield rows
    }
  } finally {
    await iterator.close()
  }
}

/** Throws as `check` does. */
function add(tally: Tally, rows: readonly (readonly [name: string, stored: Uint8Array])[]): void {
  for (const [name, stored] of rows) {
    check(name, stored)
    count(tally, name, stored, 1)
  }
}

/** The tables if they are those of `head`, or why they cannot be used. */
export async function openIfSound(directory: string, head: ChainHead): Promise<Tables | string> {
  let tables: Tables | undefined
  try {
    const altered = await findSealFault(directory)
    if (altered !== undefined) return altered
    tables = await Tables.openExisting(directory)
    const fault = await tables.findFault(head)
    await noteOpen(directory)
    if (fault === undefined) return tables
    await tables.close()
    return fault
  } catch (error) {
    await tables?.close()
    // The directory's lock is ours, so this is some program that knows nothing of it.
    if (isLevelLocked(error)) throw asStoreFailure('opening the tables', error)
    return `they cannot be read: ${error instanceof Error ? error.message : String(error)}`
  }
}

async function openLevel(directory: string): Promise<Level<string, Uint8Array>> {
  const level = new Level<string, Uint8Array>(directory, { keyEncoding: 'utf8', valueEncoding: 'view' })
  await level.open()
  return level
}

function levelKey(table: string, key: string): string {
  return `${table}\0${key}`
}

function checksumOf(name: string, value: Uint8Array): Buffer {
  const nameBytes = Buffer.byteLength(name)
  const bytes = Buffer.allocUnsafe(4 + nameBytes + value.length)
  bytes.writeUInt32BE(nameBytes, 0)
  bytes.write(name, 4)
  bytes.set(value, 4 + nameBytes)
  return hash('sha256', bytes, 'buffer').subarray(0, CHECKSUM_BYTES)
}

/** Throws `STORE_CORRUPT` if what is stored is not what was put in. */
function check(name: string, stored: Uint8Array): void {
  const checksum = checksumOf(name, stored.subarray(CHECKSUM_BYTES))
  if (checksum.equals(stored.subarray(0, CHECKSUM_BYTES))) return
  throw new SlicenetError('STORE_CORRUPT', 'a value in the tables was altered on the disk', {
    hint: REBUILD_HINT,
    details: { table: name.slice(0, name.indexOf('\0')), key: name.slice(name.indexOf('\0') + 1) }
  })
}

/** The value in what is stored, as memory of its own. Throws as `check` does. */
function open(name: string, stored: Uint8Array): Uint8Array {
  check(name, stored)
  return Uint8Array.from(stored.subarray(CHECKSUM_BYTES))
}

function count(tally: Tally, name: string, stored: Uint8Array, times: 1 | -1): void {
  const checksum = (readUint64(stored, 0) << 64n) | readUint64(stored, 8)
  tally.count += times
  tally.bytes += times * (Buffer.byteLength(name) + stored.length)
  tally.sum = BigInt.asUintN(128, tally.sum + BigInt(times) * checksum)
}

/** Sequence, link, count, sum; then a checksum, although LevelDB has one, because it does not look at its own. */
function encodeState(head: ChainHead, tally: Tally): Buffer {
  const bytes = Buffer.alloc(STATE_BYTES)
  bytes.writeBigUInt64BE(BigInt(head.sequence), 0)
  bytes.set(head.link, 8)
  bytes.writeBigUInt64BE(BigInt(tally.count), 40)
  bytes.writeBigUInt64BE(tally.sum >> 64n, 48)
  bytes.writeBigUInt64BE(BigInt.asUintN(64, tally.sum), 56)
  bytes.set(hash('sha256', bytes.subarray(0, 64), 'buffer').subarray(0, 8), 64)
  return bytes
}

function readUint64(bytes: Uint8Array, offset: number): bigint {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).readBigUInt64BE(offset)
}
