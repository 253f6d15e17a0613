/** The entries of one commit: what is allowed in them, and how they become the payload of a journal record. */
import { decode, encode } from '@ipld/dag-cbor'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { decodeSnapshotName } from './snapshot.ts'
import type { Entry } from './store.ts'

const TABLE_NAME = /^[a-z][a-z0-9-]{0,39}$/

/** Throws `TypeError` unless `table` can name a table. */
export function checkTable(table: string): void {
  if (!TABLE_NAME.test(table)) throw new TypeError(`not a table name: ${JSON.stringify(table)}`)
}

/** Throws `TypeError` for a key that UTF-8 cannot hold, `TOO_LARGE` for one that is too long. */
export function checkKey(key: string): void {
  // Lone surrogates would all become the same replacement character, so that two keys would be one.
  if (!key.isWellFormed()) throw new TypeError('a key must be well-formed Unicode')
  if (Buffer.byteLength(key) > LIMITS.storeKeyBytesMax) throw tooLarge('a key', LIMITS.storeKeyBytesMax)
}

/**
 * Checks the entries of one commit and copies them, so that nothing a caller does to its bytes later has an effect.
 * Throws `TypeError`, `TOO_LARGE`.
 */
export function copyEntries(entries: readonly Entry[]): Entry[] {
  if (entries.length > LIMITS.storeEntriesPerCommitMax) {
    throw new SlicenetError('TOO_LARGE', `more than ${LIMITS.storeEntriesPerCommitMax} entries in one commit`)
  }
  let bytes = 0
  const copies = entries.map(({ table, key, value }) => {
    checkTable(table)
    checkKey(key)
    if (value !== null && !(value instanceof Uint8Array)) {
      throw new TypeError('a value must be a Uint8Array or null')
    }
    const length = value?.length ?? 0
    if (length > LIMITS.storeValueBytesMax) throw tooLarge('a value', LIMITS.storeValueBytesMax)
    bytes += ENTRY_OVERHEAD_BYTES + table.length + Buffer.byteLength(key) + length
    return { table, key, value: value === null ? null : Uint8Array.from(value) }
  })
  if (bytes > LIMITS.storeCommitBytesMax) throw tooLarge('a commit', LIMITS.storeCommitBytesMax)
  return copies
}

/** The most that CBOR adds to the table, key and value of one entry. */
const ENTRY_OVERHEAD_BYTES = 16

/** DAG-CBOR of `[[table, key, value or null], ...]`. */
export function encodeEntries(entries: readonly Entry[]): Uint8Array {
  return encode(entries.map(({ table, key, value }) => [table, key, value]))
}

/**
 * The reverse of `encodeEntries`; a payload that names a snapshot has no entries. The values share memory with the
 * payload. Throws `STORE_CORRUPT`.
 */
export function decodeEntries(payload: Uint8Array): Entry[] {
  if (decodeSnapshotName(payload) !== undefined) return []
  let decoded: unknown
  try {
    decoded = decode(payload)
  } catch (error) {
    throw new SlicenetError('STORE_CORRUPT', 'a journal record does not hold entries', { cause: error })
  }
  if (!Array.isArray(decoded)) throw new SlicenetError('STORE_CORRUPT', 'a journal record is no list')
  return decoded.map(decodeEntry)
}

function decodeEntry(item: unknown): Entry {
  if (Array.isArray(item) && item.length === 3) {
    const [table, key, value] = item as unknown[]
    if (typeof table === 'string' && typeof key === 'string' && TABLE_NAME.test(table)) {
      if (value === null || value instanceof Uint8Array) return { table, key, value }
    }
  }
  throw new SlicenetError('STORE_CORRUPT', 'a journal record holds something that is no entry')
}

function tooLarge(what: string, bytesMax: number): SlicenetError {
  return new SlicenetError('TOO_LARGE', `${what} may have at most ${bytesMax} bytes`)
}
