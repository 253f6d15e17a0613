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
import { isMissing, makeDirectory, systemDisk, TEMPORARY_SUFFIX, type Disk } from './disk.ts'
import { HeadMarkWriter, readHeadMark, replaceHeadMark, type HeadMarkState } from './head-mark.ts'
import { beginningsOf, listJournal, removeAllBut, type Beginning } from './journal-files.ts'
import { scanJournal, type JournalScan, type ScanInit } from './journal-reader.ts'
import { settleTail } from './journal-tail.ts'
import { JournalWriter } from './journal-writer.ts'
import { layoutOf, type Layout } from './layout.ts'
import { GENESIS, RECORD_HEADER_BYTES, type ChainHead } from './record.ts'
import type { SnapshotName } from './snapshot.ts'

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
  /** Where `scan` began. */
  readonly beginning: Beginning
}

export class Journal {
  readonly #disk: Disk
  readonly #writer: JournalWriter
  readonly #mark: HeadMarkWriter
  readonly #layout: Layout
  #beginning: Beginning
  #bytes: number

  private constructor(
    disk: Disk,
    layout: Layout,
    opened: {
      readonly writer: JournalWriter
      readonly mark: HeadMarkWriter
      readonly beginning: Beginning
      readonly bytes: number
    }
  ) {
    this.#disk = disk
    this.#layout = layout
    this.#writer = opened.writer
    this.#mark = opened.mark
    this.#beginning = opened.beginning
    this.#bytes = opened.bytes
  }

  /** Verifies all of it, and removes what a crash left behind. Throws `STORE_CORRUPT`; I/O errors as they are. */
  static async open(components: JournalComponents, init: JournalInit): Promise<Journal> {
    const { disk } = components
    const layout = layoutOf(init.directory)
    await prepareDirectories(layout, disk)
    const survey = await surveyStore(init.directory, disk)
    refuseDamage(survey, init.directory)
    const mark = survey.mark.kind === 'readable' ? survey.mark : await markBeginning(disk, layout)
    const { scan, beginning } = survey
    await settleTail(components, scan, mark.head)
    const last = scan.segments[scan.end.segment]
    const markWriter = await HeadMarkWriter.open(disk, layout.head, mark)
    try {
      if (scan.head.sequence > mark.head.sequence) await markWriter.write(scan.head)
      await removeAllBut(disk, layout.journal, beginning)
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
      const bytes = await bytesIn(layout.journal)
      return new Journal(disk, layout, { writer, mark: markWriter, beginning, bytes })
    } catch (error) {
      await markWriter.close()
      throw error
    }
  }

  get head(): ChainHead {
    return this.#writer.head
  }

  /** Of the snapshot and all segments. */
  get bytes(): number {
    return this.#bytes
  }

  /** The sequence up to which a snapshot holds everything; 0 if there is none. */
  get beginsAfter(): number {
    return this.#beginning.sequence
  }

  /** One record for each payload. Durable and marked when it resolves; after an error nothing more may be appended. */
  async append(payloads: readonly Uint8Array[], writtenAt: number): Promise<ChainHead> {
    const head = await this.#writer.append(payloads, writtenAt)
    await this.#mark.write(head)
    for (const payload of payloads) this.#bytes += RECORD_HEADER_BYTES + payload.length
    return head
  }

  /**
   * What is appended next goes into a new segment, so that a snapshot at the head it gives can take the place of all
   * before. Not while `append` runs. An error with `usable` true has changed nothing; after another one nothing more
   * may be appended.
   */
  async beginSegment(): Promise<{ head: ChainHead } | { error: unknown; usable: boolean }> {
    try {
      await this.#writer.beginSegment()
      return { head: this.head }
    } catch (error) {
      // A segment that is there would begin where the old one goes on.
      const usable = await this.#writer.forgetSegment().then(
        () => true,
        () => false
      )
      return { error, usable }
    }
  }

  /** Begins at a snapshot from now on, and drops what is before. The record that names it must be marked. */
  async beginAt(name: SnapshotName): Promise<void> {
    const { snapshots } = await listJournal(this.#layout.journal)
    const beginning = snapshots.find(({ sequence }) => sequence === name.sequence)
    if (beginning === undefined) throw new TypeError(`there is no snapshot at record ${name.sequence}`)
    await removeAllBut(this.#disk, this.#layout.journal, beginning)
    this.#beginning = beginning
    this.#bytes = await bytesIn(this.#layout.journal)
  }

  /** Gives the snapshot's chunks and every record again, in order. */
  async replay(visitors: Pick<ScanInit, 'visit' | 'visitChunk'>): Promise<void> {
    const scan = await scanJournal(this.#layout.journal, {
      ...visitors,
      disk: this.#disk,
      beginning: this.#beginning
    })
    const sound = scan.stop === undefined && scan.base?.fault === undefined
    if (!sound || scan.head.sequence !== this.head.sequence) {
      throw new SlicenetError('STORE_CORRUPT', 'the journal changed while it was read')
    }
  }

  async close(): Promise<void> {
    await this.#writer.close()
    await this.#mark.close()
  }
}

/** A daemon that compacts the journal meanwhile moves the mark and removes files between their being listed and read. */
const SURVEY_ATTEMPTS_MAX = 5

/** Reads only, and may be called while a daemon uses the store: the mark is read first, so the journal is never behind it. */
export async function surveyStore(directory: string, disk: Disk = systemDisk): Promise<Survey> {
  for (let attempt = 1; ; attempt++) {
    try {
      const survey = await surveyOnce(layoutOf(directory), disk)
      if (attempt === SURVEY_ATTEMPTS_MAX || !isOvertaken(survey)) return survey
    } catch (error) {
      if (!isMissing(error) || attempt === SURVEY_ATTEMPTS_MAX) throw error
    }
  }
}

/** Whether a compaction may have come between the reading of the mark and that of the journal. */
function isOvertaken({ mark, scan, beginning }: Survey): boolean {
  return scan.base?.missing === true || (mark.kind === 'readable' && mark.head.sequence < beginning.sequence)
}

/** Takes the oldest beginning from which all is sound, else the one from which most is. */
async function surveyOnce(layout: Layout, disk: Disk): Promise<Survey> {
  const mark = await readHeadMark(layout.head, disk)
  const tablesExist = await exists(layout.tables)
  const files = await listJournal(layout.journal)
  const watch = mark.kind === 'readable' ? { watch: mark.head.sequence } : {}
  let best: Survey | undefined
  for (const beginning of beginningsOf(layout.journal, files)) {
    const scan = await scanJournal(layout.journal, { disk, files, beginning, ...watch })
    // That there was a snapshot is only a guess until a record names it.
    if (best !== undefined && scan.base?.missing === true && scan.base.named === 'no') continue
    const survey = { mark, scan, tablesExist, beginning }
    if (!isFatal(judge(mark, scan, tablesExist))) return survey
    if (best === undefined || scan.head.sequence > best.scan.head.sequence) best = survey
  }
  return best as Survey
}

async function bytesIn(journal: string): Promise<number> {
  const { segments, snapshots } = await listJournal(journal)
  const sizes = await Promise.all(
    [...segments, ...snapshots].map(async ({ path }) => (await stat(path)).size)
  )
  return sizes.reduce((sum, size) => sum + size, 0)
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
