/** What every store offers its users, whatever keeps it: tables of opaque bytes, changed in atomic, durable steps. */
import type { Startable } from '../base/lifecycle.ts'

/** One change: `value` is put under `key` of `table`; null deletes, and deleting what is not there is no error. */
export interface Entry {
  /** 1 to 40 characters of `[a-z0-9-]`, the first a letter. */
  readonly table: string
  /** Well-formed Unicode, at most 1024 bytes of UTF-8. */
  readonly key: string
  /** At most 1 MiB. */
  readonly value: Uint8Array | null
}

/** A `TypeError` from any of these is the caller's mistake: a bad table name, an ill-formed key, a value of no bytes type. */
export interface Store extends Startable {
  /**
   * Atomic and durable when it resolves; visible to reads at the same time. Entries of concurrent calls are synced
   * together, in the order of the calls; of two entries for one key the later holds.
   *
   * Throws `TOO_LARGE`, `BUSY` when more than 64 MiB wait to be synced, and `STORE_FAILED` when the disk does not
   * take it. After a write error the store refuses everything further, reads too, until it is started anew; whether
   * the commits that failed with it were kept is known only then.
   */
  commit(entries: readonly Entry[]): Promise<void>
  /** The caller owns the bytes it gets. Throws `STORE_FAILED`; `STORE_CORRUPT` when the table's copy is damaged. */
  get(table: string, key: string): Promise<Uint8Array | undefined>
  /** In the order of the keys' UTF-8 bytes, as the table is when the iteration begins. Throws as `get` does. */
  iterate(
    table: string,
    options?: { readonly signal?: AbortSignal }
  ): AsyncIterable<readonly [key: string, value: Uint8Array]>
}
