/**
 * The journal and its head mark as one thing: opened only when both agree, and moved together, so that a commit is
 * acknowledged only when the records and then the mark are on the disk (`head-mark.ts` gives the reasoning).
 */
import { chmod, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { isFatal, judge } from './damage.ts'
import { makeDirectory, TEMPORARY_SUFFIX, type Disk } from './disk.ts'
import { HeadMarkWriter, readHeadMark, replaceHeadMark, type HeadMarkState } from './head-mark.ts'
import { scanJournal, type JournalRecord, type JournalScan } from './journal-reader.ts'
import { settleTail } from './journal-tail.ts'
import { JournalWriter } from './journal-writer.ts'
import { layoutOf, type Layout } from './layout.ts'
import { GENESIS, type ChainHead } from './record.ts'

export interface JournalComponents {
  readonly disk: Disk
  readonly logger: Logger
}

export interface JournalInit {
  /** The store's directory, whose lock the caller holds. */
  readonly directory: string
  readonly segmentBytesMax?: number
}

/** What lies in a store's directory, as far as one can tell by reading. */
export interface Survey {
  readonly mark: HeadMarkState
  readonly scan: JournalScan
  readonly tablesExist: boolean
}

export class Journal {
  readonly #writer: JournalWriter
  readonly #mark: HeadMarkWriter
  readonly #layout: Layout

  private constructor(layout: Layout, writer: JournalWriter, mark: HeadMarkWriter) {
    this.#layout = layout
    this.#writer = writer
    this.#mark = mark
  }

  /** Verifies all of it, and removes what a crash left behind. Throws `STORE_CORRUPT`; I/O errors as they are. */
  static async open(components: JournalComponents, init: JournalInit): Promise<Journal> {
    const { disk } = components
    const layout = layoutOf(init.directory)
    await prepareDirectories(layout, disk)
    const survey = await surveyStore(init.directory)
    refuseDamage(survey, init.directory)
    const mark = survey.mark.kind === 'readable' ? survey.mark : await markBeginning(disk, layout)
    const { scan } = survey
    await settleTail(components, scan, mark.head)
    const last = scan.segments[scan.end.segment]
    const markWriter = await HeadMarkWriter.open(disk, layout.head, mark)
    try {
      if (scan.head.sequence > mark.head.sequence) await markWriter.write(scan.head)
      const writer = await JournalWriter.open(
        { disk },
        {
          directory: layout.journal,
          segmentBytesMax: init.segmentBytesMax ?? LIMITS.storeSegmentBytesMax,
          head: scan.head,
          ...(last === undefined || scan.end.offset === 0
            ? {}
            : { segment: { path: last.path, bytes: scan.end.offset } })
        }
      )
      return new Journal(layout, writer, markWriter)
    } catch (error) {
      await markWriter.close()
      throw error
    }
  }

  get head(): ChainHead {
    return this.#writer.head
  }

  /** One record for each payload. Durable and marked when it resolves; after an error nothing more may be appended. */
  async append(payloads: readonly Uint8Array[], writtenAt: number): Promise<ChainHead> {
    const head = await this.#writer.append(payloads, writtenAt)
    await this.#mark.write(head)
    return head
  }

  /** Gives every record again, in order. */
  async replay(visit: (records: readonly JournalRecord[]) => Promise<void>): Promise<void> {
    const scan = await scanJournal(this.#layout.journal, { visit })
    if (scan.stop !== undefined || scan.head.sequence !== this.head.sequence) {
      throw new SlicenetError('STORE_CORRUPT', 'the journal changed while it was read')
    }
  }

  async close(): Promise<void> {
    await this.#writer.close()
    await this.#mark.close()
  }
}

/** Reads only, and may be called while a daemon uses the store: the mark is read first, so the journal is never behind it. */
export async function surveyStore(directory: string): Promise<Survey> {
  const layout = layoutOf(directory)
  const mark = await readHeadMark(layout.head)
  const scan = await scanJournal(
    layout.journal,
    mark.kind === 'readable' ? { watch: mark.head.sequence } : {}
  )
  return { mark, scan, tablesExist: await exists(layout.tables) }
}

function refuseDamage(survey: Survey, directory: string): void {
  const damage = judge(survey.mark, survey.scan, survey.tablesExist)
  if (!isFatal(damage)) return
  throw new SlicenetError('STORE_CORRUPT', `the store in ${directory} is damaged: ${damage.message}`, {
    hint: 'run `slicenet store check` to see what is there, then `slicenet store repair`, which says what it cannot keep',
    details: {
      damage: damage.kind,
      soundRecords: survey.scan.head.sequence,
      ...(survey.mark.kind === 'readable' ? { markedRecords: survey.mark.head.sequence } : {})
    }
  })
}

async function prepareDirectories(layout: Layout, disk: Disk): Promise<void> {
  await makeDirectory(disk, layout.journal)
  await chmod(layout.directory, 0o700)
  for (const directory of [layout.directory, layout.journal]) {
    for (const name of await readdir(directory)) {
      if (name.endsWith(TEMPORARY_SUFFIX)) await disk.remove(join(directory, name))
    }
    await disk.syncDirectory(directory)
  }
}

/** The mark comes before the first segment, so that no crash leaves a journal without a mark. */
async function markBeginning(disk: Disk, layout: Layout): Promise<{ slot: 0; head: ChainHead }> {
  await replaceHeadMark(disk, layout.head, GENESIS)
  return { slot: 0, head: GENESIS }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}
