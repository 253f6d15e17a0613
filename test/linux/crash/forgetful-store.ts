/** A store that says of each commit at once that it is durable, and writes it down some time later: what must be found out. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Store } from '../../../src/store/store.ts'
import { kindOf } from './moments.ts'

/** Longer than any test lets a daemon with this store live. */
const BUFFERED_MS = 60_000

/** Only what is about leases is buffered, so that the daemon itself starts as always. */
export function forgetfulStore(store: Store): Store {
  return {
    start: () => store.start(),
    stop: () => store.stop(),
    get: (table, key) => store.get(table, key),
    iterate: (table, options) => store.iterate(table, options),
    async commit(entries) {
      if (kindOf(entries) === undefined) return store.commit(entries)
      delay(BUFFERED_MS, undefined, { ref: false }).then(
        () => store.commit(entries),
        () => {}
      )
    }
  }
}
