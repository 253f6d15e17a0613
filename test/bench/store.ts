/**
 * Measures the store on the disk of the temporary directory (or of the directory given): durable commits a second, one
 * after the other and at once, and how long a start takes with sound tables and with tables to rebuild.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createStore } from '../../src/store/disk-store.ts'
import { layoutOf } from '../../src/store/layout.ts'
import type { Store } from '../../src/store/store.ts'

/** About a lease with its envelope. */
const VALUE_BYTES = 600
const SECONDS_EACH = 2
const AT_ONCE = [1, 4, 16, 64, 256]

const parent = await mkdtemp(join(process.argv[2] ?? tmpdir(), 'slicenet-bench-'))
try {
  const directory = join(parent, 'store')
  const store = createStore({ clock: systemClock, logger: silentLogger }, { directory })
  await store.start()
  let records = 0
  for (const atOnce of AT_ONCE) {
    const { commits, perSecond } = await commitFor(store, atOnce, records)
    records += commits
    console.log(
      `${atOnce} at once: ${Math.round(perSecond)} durable commits of ${VALUE_BYTES} bytes a second`
    )
  }
  await store.stop()
  console.log(`start, ${records} records: ${await startMs(store)} ms`)
  await rm(layoutOf(directory).tables, { recursive: true })
  console.log(`start, ${records} records, tables rebuilt: ${await startMs(store)} ms`)
} finally {
  await rm(parent, { recursive: true, force: true })
}

async function commitFor(
  store: Store,
  atOnce: number,
  first: number
): Promise<{ commits: number; perSecond: number }> {
  const began = systemClock.monotonic()
  const end = began + SECONDS_EACH * 1000
  let commits = 0
  const write = async (): Promise<void> => {
    while (systemClock.monotonic() < end) {
      const key = `row-${first + commits++}`
      await store.commit([{ table: 'rows', key, value: Buffer.alloc(VALUE_BYTES, key) }])
    }
  }
  await Promise.all(Array.from({ length: atOnce }, write))
  return { commits, perSecond: (commits * 1000) / (systemClock.monotonic() - began) }
}

async function startMs(store: Store): Promise<number> {
  const began = systemClock.monotonic()
  await store.start()
  const elapsed = systemClock.monotonic() - began
  await store.stop()
  return Math.round(elapsed)
}
