/**
 * `slicenet store repair`: makes a damaged store usable again by keeping its longest sound beginning. What comes after
 * is set aside in a dated file and never thrown away, and the report says what it was as far as it can be read.
 *
 * The set-aside file is a row of pieces, each a line of JSON, `{"file":...,"offset":...,"bytes":...}`, followed by so
 * many bytes.
 */
import { open, readFile, rm } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { systemClock, type Clock } from '../base/clock.ts'
import { reportOf, requireDirectory, type StoreReport } from './check-store.ts'
import { DirectoryLock } from './directory-lock.ts'
import { asStoreFailure, systemDisk } from './disk.ts'
import { decodeEntries } from './entries.ts'
import { replaceHeadMark } from './head-mark.ts'
import { surveyStore, type Survey } from './journal.ts'
import { truncate } from './journal-tail.ts'
import { layoutOf } from './layout.ts'
import { decodeRecordHeader, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES } from './record.ts'
import { SegmentBytes } from './segment-bytes.ts'

export interface RepairReport {
  /** What was found before. */
  readonly before: StoreReport
  /** Whether anything was changed; a sound store is left alone. */
  readonly repaired: boolean
  readonly recordsKept: number
  /** Acknowledged records that are gone; absent when no head mark could be read, so that nobody knows. */
  readonly recordsLost?: number
  /** Everything committed after this is lost, UTC milliseconds; absent if no record is left. */
  readonly lostAfter?: number
  /** Changes that could still be read in what was set aside; at most 10,000, the first ones. */
  readonly lostEntries: readonly LostEntry[]
  /** The file with what was taken out. */
  readonly setAside?: string
}

export interface LostEntry {
  readonly table: string
  readonly key: string
  readonly deleted: boolean
}

/** A part of a file that is to be taken out: all from `offset` on. */
interface Piece {
  readonly path: string
  readonly offset: number
}

const LOST_ENTRIES_MAX = 10_000

/**
 * Throws `NOT_FOUND`, `STORE_LOCKED` while a daemon has the store, `STORE_FAILED` when it cannot be read or written, or is of
 * another format version. May be repeated after a crash in the middle.
 */
export async function repairStore(
  directory: string,
  components: { readonly clock: Clock } = { clock: systemClock }
): Promise<RepairReport> {
  try {
    await requireDirectory(directory)
    const lock = await DirectoryLock.acquire(directory)
    try {
      return await repair(directory, components.clock)
    } finally {
      await lock.release()
    }
  } catch (error) {
    throw asStoreFailure('repairing the store', error)
  }
}

async function repair(directory: string, clock: Clock): Promise<RepairReport> {
  const survey = await surveyStore(directory)
  const before = await reportOf(directory, survey)
  const { mark, scan } = survey
  const kept = {
    before,
    recordsKept: scan.head.sequence,
    ...(mark.kind === 'readable'
      ? { recordsLost: Math.max(0, mark.head.sequence - scan.head.sequence) }
      : {}),
    ...(scan.writtenAt === undefined ? {} : { lostAfter: scan.writtenAt })
  }
  if (before.damage === 'none') return { ...kept, repaired: false, lostEntries: [] }
  const layout = layoutOf(directory)
  const pieces = piecesToRemove(survey)
  const lostEntries = await readLostEntries(pieces)
  const stamp = new Date(clock.now()).toISOString().replaceAll(':', '-')
  const setAside = join(directory, `set-aside-${stamp}.bin`)
  await writeAside(setAside, directory, [{ path: layout.head, offset: 0 }, ...pieces])
  // From the end backwards: whenever this is interrupted, what is left is still damaged and can be repaired again.
  for (const { path, offset } of pieces.toReversed()) {
    if (offset === 0) await systemDisk.remove(path)
    else await truncate(systemDisk, path, offset)
    await systemDisk.syncDirectory(dirname(path))
  }
  await replaceHeadMark(systemDisk, layout.head, scan.head)
  // A start makes them anew. Gone, they cannot be taken for those of the journal as it was.
  await rm(layout.tables, { recursive: true, force: true })
  return { ...kept, repaired: true, lostEntries, setAside }
}

function piecesToRemove({ scan }: Survey): Piece[] {
  const { stop } = scan
  if (stop === undefined) return []
  return scan.segments.slice(stop.segment).map(({ path }, index) => ({
    path,
    offset: index === 0 ? stop.offset : 0
  }))
}

async function writeAside(target: string, directory: string, pieces: readonly Piece[]): Promise<void> {
  // Never over a file that an earlier repair made.
  const file = await open(target, 'wx', 0o600)
  try {
    for (const { path, offset } of pieces) {
      const bytes = (await readIfThere(path)).subarray(offset)
      const line = { file: relative(directory, path), offset, bytes: bytes.length }
      await file.appendFile(`${JSON.stringify(line)}\n`)
      await file.appendFile(bytes)
    }
    await file.sync()
  } finally {
    await file.close()
  }
  await systemDisk.syncDirectory(directory)
}

async function readIfThere(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0)
    throw error
  }
}

/** Goes from record to record as long as their headers hold, past the first whose content was altered. */
async function readLostEntries(pieces: readonly Piece[]): Promise<LostEntry[]> {
  const lost: LostEntry[] = []
  for (const { path, offset } of pieces) {
    await using bytes = await SegmentBytes.open(systemDisk, path, Math.max(offset, SEGMENT_HEADER_BYTES))
    while (lost.length < LOST_ENTRIES_MAX) {
      const start = await bytes.read(RECORD_HEADER_BYTES)
      const header = start === undefined ? undefined : decodeRecordHeader(start)
      if (header === undefined) break
      const record = await bytes.read(RECORD_HEADER_BYTES + header.payloadLength)
      if (record === undefined) break
      lost.push(...entriesOf(record.subarray(RECORD_HEADER_BYTES)))
      bytes.skip(record.length)
    }
  }
  return lost.slice(0, LOST_ENTRIES_MAX)
}

function entriesOf(payload: Uint8Array): LostEntry[] {
  try {
    return decodeEntries(payload).map(({ table, key, value }) => ({ table, key, deleted: value === null }))
  } catch {
    // The record that was altered itself; it is in the set-aside file all the same.
    return []
  }
}
