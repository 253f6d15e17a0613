/**
 * Measures the store on the disk of the temporary directory (`TMPDIR`): durable commits a second, one after the other
 * and at once, and how long a start takes with sound tables and with tables to rebuild.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createStore } from '../../src/store/disk-store.ts'
import { layoutOf } from '../../src/store/layout.ts'
import type { Store } from '../../src/store/store.ts'
import { figure, type BenchContext, type Figure } from './figure.ts'

/** About a lease with its envelope. */
const VALUE_BYTES = 600
const RUNS = 5
const COMMIT_MS_EACH = 500
const AT_ONCE = [1, 4, 16, 64, 256]

export async function store({ signal, progress }: BenchContext): Promise<readonly Figure[]> {
  const parent = await mkdtemp(join(tmpdir(), 'slicenet-bench-'))
  const directory = join(parent, 'store')
  const store = createStore({ clock: systemClock, logger: silentLogger }, { directory })
  try {
    await store.start()
    const figures: Figure[] = []
    let records = 0
    for (const atOnce of AT_ONCE) {
      const perSecond: number[] = []
      for (let run = 0; run < RUNS; run++) {
        signal.throwIfAborted()
        const measured = await commitFor(store, atOnce, records)
        records += measured.commits
        perSecond.push(measured.perSecond)
      }
      figures.push(figure(`commits_per_s_${atOnce}_at_once`, perSecond, { unit: '1/s' }))
      progress(`${atOnce} at once: done`)
    }
    await store.stop()
    progress(`${records} records of ${VALUE_BYTES} bytes; now starts`)
    const sound: number[] = []
    const rebuilt: number[] = []
    for (let run = 0; run < RUNS; run++) {
      signal.throwIfAborted()
      sound.push(await startMs(store))
      await rm(layoutOf(directory).tables, { recursive: true })
      rebuilt.push(await startMs(store))
    }
    const per10000 = (each: number): number => (each * 10_000) / records
    return [
      ...figures,
      figure('start_ms_per_10000_records', sound.map(per10000), { unit: 'ms' }),
      figure('start_rebuilding_ms_per_10000_records', rebuilt.map(per10000), { unit: 'ms' })
    ]
  } finally {
    await store.stop()
    await rm(parent, { recursive: true, force: true })
  }
}

async function commitFor(
  store: Store,
  atOnce: number,
  first: number
): Promise<{ commits: number; perSecond: number }> {
  const began = systemClock.monotonic()
  const end = began + COMMIT_MS_EACH
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
  return elapsed
}
