/**
 * `slicenet store repair`: makes a damaged store usable again by keeping its longest sound beginning. What comes after,
 * and a snapshot that is damaged, is set aside in a dated file and never thrown away, and the report says what it was as
 * far as it can be read. A damaged snapshot is made anew (`snapshot-repair.ts`).
 *
 * The set-aside file is a row of pieces, each a line of JSON, `{"file":...,"offset":...,"bytes":...}`, followed by so
 * many bytes.
 */
import { createReadStream } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { systemClock, type Clock } from '../base/clock.ts'
import { reportOf, requireDirectory, sizeOf, type StoreReport } from './check-store.ts'
import { DirectoryLock } from './directory-lock.ts'
import { asStoreFailure, systemDisk } from './disk.ts'
import { decodeEntries } from './entries.ts'
import { replaceHeadMark } from './head-mark.ts'
import { surveyStore, type Survey } from './journal.ts'
import { truncate } from './journal-tail.ts'
import { removeAllBut } from './journal-files.ts'
import type { Base } from './journal-reader.ts'
import { layoutOf, type Layout } from './layout.ts'
import {
  decodeRecordHeader,
  GENESIS,
  RECORD_HEADER_BYTES,
  SEGMENT_HEADER_BYTES,
  type ChainHead
} from './record.ts'
import { SegmentBytes } from './segment-bytes.ts'
import { nameSnapshot, replaceSnapshot, type SnapshotRepair } from './snapshot-repair.ts'

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
  /** What became of a damaged snapshot. */
  readonly snapshot?: SnapshotRepair
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
  const { scan } = survey
  if (before.damage === 'none') {
    return { ...keptReport(survey, before, scan.head), repaired: false, lostEntries: [] }
  }
  const layout = layoutOf(directory)
  const pieces = piecesToRemove(survey)
  const lostEntries = await readLostEntries(pieces)
  const stamp = new Date(clock.now()).toISOString().replaceAll(':', '-')
  const setAside = join(directory, `set-aside-${stamp}.bin`)
  const snapshot =
    scan.base !== undefined && isDamaged(scan.base) ? [{ path: scan.base.path, offset: 0 }] : []
  await writeAside(setAside, directory, [{ path: layout.head, offset: 0 }, ...snapshot, ...pieces])
  // From the end backwards: whenever this is interrupted, what is left is still damaged and can be repaired again.
  for (const { path, offset } of pieces.toReversed()) {
    if (offset === 0) await systemDisk.remove(path)
    else await truncate(systemDisk, path, offset)
    await systemDisk.syncDirectory(dirname(path))
  }
  const replaced = await settleBeginning(layout, survey, clock.now())
  // A start makes them anew. Gone, they cannot be taken for those of the journal as it was.
  await rm(layout.tables, { recursive: true, force: true })
  return {
    ...keptReport(survey, before, replaced?.head ?? scan.head),
    repaired: true,
    ...(replaced === undefined ? {} : { snapshot: replaced.report }),
    lostEntries,
    setAside
  }
}

function keptReport({ mark, scan }: Survey, before: StoreReport, head: ChainHead) {
  return {
    before,
    recordsKept: head.sequence,
    ...(mark.kind === 'readable' ? { recordsLost: Math.max(0, mark.head.sequence - head.sequence) } : {}),
    ...(scan.writtenAt === undefined ? {} : { lostAfter: scan.writtenAt })
  }
}

function isDamaged(base: Base): boolean {
  return base.fault !== undefined || base.named === 'otherwise'
}

/** Makes sure of the snapshot that the journal begins at, and marks where the journal ends. */
async function settleBeginning(layout: Layout, survey: Survey, now: number) {
  const { head, end, base, segments } = survey.scan
  const init = { disk: systemDisk, layout, survey, now }
  if (base !== undefined && isDamaged(base)) {
    const replaced = await replaceSnapshot(init)
    if (replaced !== undefined) return replaced
    await replaceHeadMark(systemDisk, layout.head, GENESIS)
    await removeAllBut(systemDisk, layout.journal, { sequence: 0 })
    return undefined
  }
  if (base?.header !== undefined && base.named === 'no') {
    const last = end.offset === 0 ? undefined : segments[end.segment]
    const segment = last && { path: last.path, bytes: end.offset }
    const name = { sequence: base.sequence, hash: base.header.hash }
    await nameSnapshot(init, name, { head, ...(segment === undefined ? {} : { segment }) })
    return undefined
  }
  await replaceHeadMark(systemDisk, layout.head, head)
  return undefined
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
      const bytes = Math.max(0, (await sizeOf(path)) - offset)
      await file.appendFile(`${JSON.stringify({ file: relative(directory, path), offset, bytes })}\n`)
      if (bytes === 0) continue
      await file.appendFile(createReadStream(path, { start: offset, end: offset + bytes - 1 }))
    }
    await file.sync()
  } finally {
    await file.close()
  }
  await systemDisk.syncDirectory(directory)
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
