/** Writes a snapshot chunk by chunk, so that it never stands in memory as a whole. */
import { dirname, join } from 'node:path'
import { TEMPORARY_SUFFIX, type Disk, type DiskFile } from './disk.ts'
import { encodeEntries } from './entries.ts'
import { encodeRecord, type ChainHead } from './record.ts'
import {
  chunkBeginning,
  encodeSnapshotHeader,
  SNAPSHOT_HEADER_BYTES,
  snapshotFileName,
  type SnapshotName
} from './snapshot.ts'
import type { Entry } from './store.ts'

export interface SnapshotInit {
  /** The journal's directory. */
  readonly directory: string
  /** The point of the chain at which the entries are all there is. */
  readonly head: ChainHead
  /** Every entry once, some at a time. What it throws ends the writing. */
  readonly entries: AsyncIterable<readonly Entry[]>
  /** UTC milliseconds. */
  readonly writtenAt: number
  readonly signal?: AbortSignal
}

/** Durable under its name when it resolves. When it throws, nothing bears that name but what may have before. */
export async function writeSnapshot(disk: Disk, init: SnapshotInit): Promise<SnapshotName> {
  const path = join(init.directory, snapshotFileName(init.head.sequence))
  const temporary = `${path}${TEMPORARY_SUFFIX}`
  const file = await disk.create(temporary)
  let hash: Uint8Array
  try {
    try {
      hash = await writeContent(file, init)
      await file.sync()
    } finally {
      await file.close()
    }
    init.signal?.throwIfAborted()
    await disk.rename(temporary, path)
  } catch (error) {
    // It may be what filled the disk. A start removes it too.
    await disk.remove(temporary).catch(() => {})
    throw error
  }
  await disk.syncDirectory(dirname(path))
  return { sequence: init.head.sequence, hash }
}

async function writeContent(file: DiskFile, init: SnapshotInit): Promise<Uint8Array> {
  let position = SNAPSHOT_HEADER_BYTES
  let chunk = chunkBeginning(init.head)
  let count = 0
  for await (const entries of init.entries) {
    init.signal?.throwIfAborted()
    const { bytes, head } = encodeRecord(chunk, encodeEntries(entries), init.writtenAt)
    await file.write(bytes, position)
    position += bytes.length
    count += entries.length
    chunk = head
  }
  const header = encodeSnapshotHeader({
    head: init.head,
    chunks: chunk.sequence,
    entries: count,
    seal: chunk.link
  })
  await file.write(header.bytes, 0)
  return header.hash
}
