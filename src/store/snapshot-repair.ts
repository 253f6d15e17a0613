/**
 * Gives a journal whose snapshot is damaged a new one to begin at: of the tables if they are whole, since they hold the
 * same; else of what the sound chunks of the snapshot and the records after it come to.
 */
import { rm } from 'node:fs/promises'
import type { Disk } from './disk.ts'
import { decodeEntries } from './entries.ts'
import { replaceHeadMark } from './head-mark.ts'
import type { Survey } from './journal.ts'
import { removeAllBut } from './journal-files.ts'
import { scanJournal } from './journal-reader.ts'
import { JournalWriter } from './journal-writer.ts'
import type { Layout } from './layout.ts'
import { GENESIS, sameHead, type ChainHead } from './record.ts'
import { encodeSnapshotName, type SnapshotName } from './snapshot.ts'
import { writeSnapshot } from './snapshot-writer.ts'
import { openIfSound, Tables } from './tables.ts'

export interface SnapshotRepair {
  /** Where its content was found. */
  readonly from: 'tables' | 'snapshot'
  /** Entries that a sound part of the snapshot still held; absent if the tables held everything. */
  readonly entriesKept?: number
  /** Entries of the snapshot that are gone, but for those that later records give; absent when nobody knows. */
  readonly entriesLost?: number
}

interface RepairInit {
  readonly disk: Disk
  readonly layout: Layout
  readonly survey: Survey
  /** UTC milliseconds. */
  readonly now: number
}

/**
 * What comes after the journal's sound part must have been removed. May be repeated after a crash in the middle.
 * Undefined if nothing of it can be used.
 */
export async function replaceSnapshot(
  init: RepairInit
): Promise<{ readonly report: SnapshotRepair; readonly head: ChainHead } | undefined> {
  const found = (await findTables(init)) ?? (await salvage(init))
  if (found === undefined) return undefined
  const { disk, layout, now } = init
  const { tables, head, report } = found
  let name: SnapshotName
  try {
    await using capture = tables.capture()
    const { entries } = capture
    name = await writeSnapshot(disk, { directory: layout.journal, head, entries, writtenAt: now })
  } finally {
    await tables.close()
  }
  await nameSnapshot(init, name, { head })
  return { report, head }
}

/** Has the journal, sound up to a head, name the snapshot that it is to begin at, and marks that. */
export async function nameSnapshot(
  { disk, layout, now }: Omit<RepairInit, 'survey'>,
  name: SnapshotName,
  end: { readonly head: ChainHead; readonly segment?: { readonly path: string; readonly bytes: number } }
): Promise<void> {
  const writer = await JournalWriter.open(
    { disk },
    { directory: layout.journal, segmentBytesMax: Infinity, ...end }
  )
  try {
    await replaceHeadMark(disk, layout.head, await writer.append([encodeSnapshotName(name)], now))
  } finally {
    await writer.close()
  }
  await removeAllBut(disk, layout.journal, { sequence: name.sequence })
}

interface Found {
  readonly tables: Tables
  readonly head: ChainHead
  readonly report: SnapshotRepair
}

/** The tables, if they are those of the journal's end or of the marked head. */
async function findTables({ layout, survey }: RepairInit): Promise<Found | undefined> {
  const { mark, scan } = survey
  const heads = [scan.head, ...(mark.kind === 'readable' ? [mark.head] : [])]
  for (const head of heads) {
    if (sameHead(head, GENESIS)) continue
    const tables = await openIfSound(layout.tables, head)
    if (tables instanceof Tables) return { tables, head, report: { from: 'tables', entriesLost: 0 } }
  }
  return undefined
}

async function salvage({ disk, layout, survey }: RepairInit): Promise<Found | undefined> {
  const { scan, beginning } = survey
  const { head, base } = scan
  // Neither the snapshot nor a segment after it says where it was.
  if (base === undefined || head.sequence < base.sequence) return undefined
  let entriesKept = 0
  await rm(layout.tables, { recursive: true, force: true })
  const tables = await Tables.openExisting(layout.tables)
  try {
    await scanJournal(layout.journal, {
      disk,
      beginning,
      visitChunk: async (payload) => {
        const entries = decodeEntries(payload)
        entriesKept += entries.length
        await tables.apply(entries, GENESIS)
      },
      visit: async (records) => {
        const entries = records.flatMap((record) => decodeEntries(record.payload))
        await tables.apply(entries, GENESIS)
      }
    })
  } catch (error) {
    await tables.close()
    throw error
  }
  const entries = base.header?.entries
  const report = {
    from: 'snapshot',
    entriesKept,
    ...(entries === undefined ? {} : { entriesLost: entries - entriesKept })
  } as const
  return { tables, head, report }
}
