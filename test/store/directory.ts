/** Directories and stores for the tests of the store, gone when the test is over. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { systemClock } from '../../src/base/clock.ts'
import { silentLogger } from '../../src/base/log.ts'
import { createStore, type DiskStoreComponents, type DiskStoreInit } from '../../src/store/disk-store.ts'

export async function temporaryDirectory(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-store-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

/** A store that a forgotten stop does not keep open. */
export async function startedStore(
  t: ExecutionContext,
  init: DiskStoreInit,
  components: Partial<DiskStoreComponents> = {}
): Promise<ReturnType<typeof createStore>> {
  const store = createStore({ clock: systemClock, logger: silentLogger, ...components }, init)
  t.teardown(() => store.stop())
  await store.start()
  return store
}

export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

/** A stopped store with records 1 to `records`: record n puts `row-n` = `value n` into the table `rows`. */
export async function makeStore(
  t: ExecutionContext,
  init: { readonly records: number; readonly segmentBytesMax?: number }
): Promise<string> {
  const directory = await temporaryDirectory(t)
  const store = await startedStore(t, { directory, ...init })
  for (let n = 1; n <= init.records; n++) await store.commit([row(n)])
  await store.stop()
  return directory
}

export function row(n: number): { table: string; key: string; value: Uint8Array } {
  return { table: 'rows', key: `row-${n}`, value: bytesOf(`value ${n}`) }
}

/** The rows that a store holds, as numbers; fails when a value is not its key's. */
export async function rowsOf(t: ExecutionContext, directory: string): Promise<number[]> {
  const store = await startedStore(t, { directory })
  const rows: number[] = []
  for await (const [key, value] of store.iterate('rows')) {
    const n = Number(key.slice('row-'.length))
    t.deepEqual(value, row(n).value)
    rows.push(n)
  }
  await store.stop()
  return rows.sort((a, b) => a - b)
}

export function upTo(n: number): number[] {
  return Array.from({ length: n }, (_, index) => index + 1)
}

export async function segmentsOf(directory: string): Promise<string[]> {
  const names = await readdir(join(directory, 'journal'))
  return names.sort().map((name) => join(directory, 'journal', name))
}

export async function flipBit(path: string, offset: number, bit = offset % 8): Promise<void> {
  const bytes = await readFile(path)
  bytes[offset] = (bytes[offset] ?? 0) ^ (1 << bit)
  await writeFile(path, bytes)
}

export async function copyOf(t: ExecutionContext, directory: string): Promise<string> {
  const copy = await temporaryDirectory(t)
  await cp(directory, copy, { recursive: true })
  return copy
}
