/**
 * Which files make up a journal, where it may begin, and how a snapshot takes the place of the segments before it.
 *
 * Order. The snapshot is written and synced under its name, then the record that names it is written, synced and
 * marked, then the old beginning (the first segment, or the snapshot before) is removed and the directory synced, then
 * the rest of what came before. A journal begins at the oldest beginning that there is. So a crash leaves the old
 * beginning with everything after it, or the new one with some segments that nobody needs any more.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { isMissing, type Disk } from './disk.ts'
import { parseSegmentName } from './record.ts'
import { parseSnapshotFileName, snapshotFileName } from './snapshot.ts'
import type { SnapshotFile } from './snapshot-reader.ts'

export interface Segment {
  readonly path: string
  readonly firstSequence: number
}

export interface JournalFiles {
  /** In order. */
  readonly segments: readonly Segment[]
  /** In order. */
  readonly snapshots: readonly SnapshotFile[]
}

/** The genesis, the snapshot of a path at the record of a sequence, or a place in a chain whose past was dropped. */
export interface Beginning {
  readonly path?: string
  readonly sequence: number
  /** The link of that record, where there is no snapshot to say it. Default: the genesis's. */
  readonly link?: Uint8Array
}

/** A journal directory that is not there has none. */
export async function listJournal(directory: string): Promise<JournalFiles> {
  const segments: Segment[] = []
  const snapshots: SnapshotFile[] = []
  for (const name of await namesIn(directory)) {
    const path = join(directory, name)
    const firstSequence = parseSegmentName(name)
    if (firstSequence !== undefined) segments.push({ path, firstSequence })
    const sequence = parseSnapshotFileName(name)
    if (sequence !== undefined) snapshots.push({ path, sequence })
  }
  return {
    segments: segments.sort((a, b) => a.firstSequence - b.firstSequence),
    snapshots: snapshots.sort((a, b) => a.sequence - b.sequence)
  }
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if (isMissing(error)) return []
    throw error
  }
}

/**
 * Where the journal may begin, the oldest first and at least one. The last is a snapshot that is not there, if it
 * would explain why the first segment is not the journal's first.
 */
export function beginningsOf(directory: string, files: JournalFiles): [Beginning, ...Beginning[]] {
  const { segments, snapshots } = files
  const before = (segments[0]?.firstSequence ?? 1) - 1
  const atGenesis = segments[0]?.firstSequence === 1
  const guess = { path: join(directory, snapshotFileName(before)), sequence: before }
  const guesses = before === 0 || snapshots.some(({ sequence }) => sequence === before) ? [] : [guess]
  const [oldest, ...newer] = snapshots
  if (oldest !== undefined && !atGenesis) return [oldest, ...newer, ...guesses]
  return [{ sequence: 0 }, ...snapshots, ...guesses]
}

/** Removes what a journal that begins at `beginning` does not need. May be repeated after a crash in the middle. */
export async function removeAllBut(disk: Disk, directory: string, beginning: Beginning): Promise<void> {
  const { segments, snapshots } = await listJournal(directory)
  const older = [
    ...segments.filter(({ firstSequence }) => firstSequence === 1 && beginning.sequence > 0),
    ...snapshots.filter(({ sequence }) => sequence < beginning.sequence)
  ]
  const others = [
    ...segments.filter(({ firstSequence }) => firstSequence > 1 && firstSequence <= beginning.sequence),
    ...snapshots.filter(({ sequence }) => sequence > beginning.sequence)
  ]
  for (const files of [older, others]) {
    for (const { path } of files) await disk.remove(path)
    if (files.length > 0) await disk.syncDirectory(directory)
  }
}
