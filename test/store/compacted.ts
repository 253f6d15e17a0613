/** Stores whose journal begins at a snapshot. */
import type { ExecutionContext } from 'ava'
import { checkStore } from '../../src/store/check-store.ts'
import { row, startedStore, temporaryDirectory, upTo } from './directory.ts'

/** Written over and over, so that the journal soon holds much more than the tables. */
export const CHURN = { table: 'churn', key: 'key', value: new Uint8Array(400).fill(7) }

export const COMPACTING = { segmentBytesMax: 4000, compactionBytesMin: 8000 }

/** A stopped store with several segments after its snapshot, and the rows that it holds. */
export async function compactedStore(
  t: ExecutionContext
): Promise<{ readonly directory: string; readonly rows: readonly number[] }> {
  const directory = await temporaryDirectory(t)
  const compacting = await startedStore(t, { directory, ...COMPACTING })
  for (let n = 1; n <= 40; n++) await compacting.commit([row(n), CHURN])
  while ((await checkStore(directory)).snapshot === undefined) await compacting.commit([CHURN])
  await compacting.stop()
  const store = await startedStore(t, { directory, segmentBytesMax: 1000 })
  for (let n = 41; n <= 60; n++) await store.commit([row(n)])
  await store.stop()
  return { directory, rows: upTo(60) }
}
