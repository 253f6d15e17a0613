/**
 * Measures the store on the disk of the temporary directory (`TMPDIR`): durable commits a second, one after the other
 * and at once, how long a start takes with sound tables and with tables to rebuild, and what compaction makes of a
 * journal whose records mostly replace each other.
 */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { checkStore } from '../../src/store/check-store.ts'
import { createStore } from '../../src/store/disk-store.ts'
import { layoutOf } from '../../src/store/layout.ts'
import { segmentName } from '../../src/store/record.ts'
import type { Store } from '../../src/store/store.ts'
import { figure, type BenchContext, type Figure } from './figure.ts'
import { ownDirectory } from '../linux/own-names.ts'

/** About a lease with its envelope. */
const VALUE_BYTES = 600
const RUNS = 5
const COMMIT_MS_EACH = 500
const AT_ONCE = [1, 4, 16, 64, 256]
/** So many values, each replaced so often: a journal of some 67 MB. */
const LIVE_VALUES = 10_000
const TIMES_REPLACED = 10
const COMPACTION_RUNS = 3

export async function store({ signal, progress }: BenchContext): Promise<readonly Figure[]> {
  const parent = await ownDirectory('store')
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
    await store.stop()
    return [
      ...figures,
      figure('start_ms_per_10000_records', sound.map(per10000), { unit: 'ms' }),
      figure('start_rebuilding_ms_per_10000_records', rebuilt.map(per10000), { unit: 'ms' }),
      ...(await compaction(join(parent, 'compacted'), { signal, progress }))
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

/** Starts of a journal before and after its compaction, with the tables sound and gone. */
async function compaction(directory: string, { signal, progress }: BenchContext): Promise<Figure[]> {
  const open = (compactionBytesMin: number): Store & AsyncDisposable =>
    createStore({ clock: systemClock, logger: silentLogger }, { directory, compactionBytesMin })
  await using store = open(Infinity)
  await store.start()
  for (let times = 0; times < TIMES_REPLACED; times++) {
    signal.throwIfAborted()
    await Promise.all(Array.from({ length: LIVE_VALUES }, (_, n) => store.commit([replaced(n, times)])))
  }
  await store.stop()
  progress(
    `${LIVE_VALUES} values, each written ${TIMES_REPLACED} times; now starts before and after compaction`
  )
  const before = await startsOf(store, directory, signal)
  const bytesBefore = (await checkStore(directory)).bytes
  const began = systemClock.monotonic()
  await using compacting = open(1)
  await compacting.start()
  while ((await readdir(layoutOf(directory).journal)).includes(segmentName(1))) {
    await systemClock.sleep(20, { signal })
  }
  const compactionMs = systemClock.monotonic() - began
  await compacting.stop()
  const after = await startsOf(store, directory, signal)
  const { bytes } = await checkStore(directory)
  return [
    figure('journal_mb_before_compaction', [bytesBefore / 1e6], { unit: 'MB' }),
    figure('journal_mb_after_compaction', [bytes / 1e6], { unit: 'MB' }),
    figure('compaction_with_start_ms', [compactionMs], { unit: 'ms' }),
    figure('start_ms_before_compaction', before.sound, { unit: 'ms' }),
    figure('start_ms_after_compaction', after.sound, { unit: 'ms' }),
    figure('start_rebuilding_ms_before_compaction', before.rebuilding, { unit: 'ms' }),
    figure('start_rebuilding_ms_after_compaction', after.rebuilding, { unit: 'ms' })
  ]
}

function replaced(n: number, times: number): { table: string; key: string; value: Uint8Array } {
  return { table: 'rows', key: `row-${n}`, value: Buffer.alloc(VALUE_BYTES, `${n} ${times} `) }
}

async function startsOf(
  store: Store,
  directory: string,
  signal: AbortSignal
): Promise<{ sound: number[]; rebuilding: number[] }> {
  const sound: number[] = []
  const rebuilding: number[] = []
  for (let run = 0; run < COMPACTION_RUNS; run++) {
    signal.throwIfAborted()
    sound.push(await startMs(store))
    await rm(layoutOf(directory).tables, { recursive: true })
    rebuilding.push(await startMs(store))
  }
  return { sound, rebuilding }
}
