/** What a crash leaves in the journal beyond the marked head: nothing of it was acknowledged, and all of it is doubtful. */
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import type { Disk } from './disk.ts'
import type { JournalScan, Position } from './journal-reader.ts'
import { SEGMENT_HEADER_BYTES, type ChainHead } from './record.ts'
import { SegmentBytes } from './segment-bytes.ts'

/**
 * Makes what lies beyond the mark certain: cuts off what is no record, and writes the records there once more. They may
 * stand in memory only: after a sync that failed, Linux takes pages for clean that never reached the disk.
 */
export async function settleTail(
  components: { readonly disk: Disk; readonly logger: Logger },
  scan: JournalScan,
  marked: ChainHead
): Promise<void> {
  const { disk, logger } = components
  if (scan.stop !== undefined) {
    const { path } = scan.segments[scan.stop.segment] as { path: string }
    const bytes = (await stat(path)).size - scan.stop.offset
    logger.info('cut off a record that was never acknowledged', { path, bytes, offset: scan.stop.offset })
    if (scan.stop.offset === 0) await disk.remove(path)
    else await truncate(disk, path, scan.stop.offset)
    await disk.syncDirectory(dirname(path))
  }
  if (scan.watched !== undefined && scan.head.sequence > marked.sequence) {
    await writeAgain(disk, scan, scan.watched.end)
  }
}

async function writeAgain(disk: Disk, scan: JournalScan, from: Position): Promise<void> {
  for (let index = from.segment; index <= scan.end.segment; index++) {
    const { path } = scan.segments[index] as { path: string }
    const start = index === from.segment ? from.offset : SEGMENT_HEADER_BYTES
    const end = index === scan.end.segment ? scan.end.offset : (await stat(path)).size
    await using source = await SegmentBytes.open(disk, path, start)
    const file = await disk.open(path)
    try {
      for (let offset = start; offset < end; offset += WRITE_AGAIN_BYTES) {
        const length = Math.min(WRITE_AGAIN_BYTES, end - offset)
        const bytes = await source.read(length)
        if (bytes === undefined)
          throw new SlicenetError('STORE_FAILED', `${path} became shorter while it was read`)
        await file.write(bytes, offset)
        source.skip(length)
      }
      await file.sync()
    } finally {
      await file.close()
    }
  }
}

const WRITE_AGAIN_BYTES = 1024 * 1024

export async function truncate(disk: Disk, path: string, length: number): Promise<void> {
  const file = await disk.open(path)
  try {
    await file.truncate(length)
    await file.sync()
  } finally {
    await file.close()
  }
}
