/** `slicenet store check`: says what is in a store's directory and whether it is sound. Reads only, takes no lock. */
import { stat } from 'node:fs/promises'
import { SlicenetError } from '../base/errors.ts'
import { isFatal, judge, type DamageKind } from './damage.ts'
import { asStoreFailure, isMissing } from './disk.ts'
import { surveyStore, type Survey } from './journal.ts'
import type { Base } from './journal-reader.ts'
import type { ChainHead } from './record.ts'

export interface StoreReport {
  readonly directory: string
  readonly damage: DamageKind
  /** What was found, one sentence. */
  readonly message: string
  /** Whether a daemon would refuse to start with it. */
  readonly fatal: boolean
  /** The last sound record's sequence: how many there were from the first, those that the snapshot replaces with them. */
  readonly records: number
  readonly head: HeadReport
  /** Absent when the head mark is missing or cannot be read. */
  readonly marked?: HeadReport
  /** When the last sound record was written, UTC milliseconds. */
  readonly lastWrittenAt?: number
  readonly segments: number
  /** The snapshot that the journal begins at; absent if it begins at its first record. */
  readonly snapshot?: SnapshotReport
  /** Of the segments and the snapshot. */
  readonly bytes: number
}

export interface SnapshotReport {
  /** The last record whose entries are in it. */
  readonly sequence: number
  /** 64 hex digits, by which a record names it; absent, as is `entries`, if its header cannot be read. */
  readonly hash?: string
  readonly entries?: number
  readonly bytes: number
  /** Whether all of it is what was written, and a record names it. */
  readonly sound: boolean
}

export interface HeadReport {
  readonly sequence: number
  /** 64 hex digits. */
  readonly link: string
}

/**
 * May be called while a daemon uses the store: what that is writing just then shows as `torn-tail` at worst.
 * Throws `NOT_FOUND` when there is no such directory, `STORE_FAILED` when it cannot be read.
 */
export async function checkStore(directory: string): Promise<StoreReport> {
  try {
    await requireDirectory(directory)
    return await reportOf(directory, await surveyStore(directory))
  } catch (error) {
    throw asStoreFailure('checking the store', error)
  }
}

/** Throws `NOT_FOUND`: only a daemon makes stores, a check or a repair of a mistyped path must not. */
export async function requireDirectory(directory: string): Promise<void> {
  try {
    await stat(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    throw new SlicenetError('NOT_FOUND', `there is no store in ${directory}`, { cause: error })
  }
}

/** What a survey comes to. */
export async function reportOf(directory: string, survey: Survey): Promise<StoreReport> {
  const { mark, scan } = survey
  const damage = judge(mark, scan, survey.tablesExist)
  const sizes = await Promise.all(scan.segments.map(async ({ path }) => sizeOf(path)))
  const snapshot = scan.base && (await snapshotReport(scan.base))
  return {
    directory,
    damage: damage.kind,
    message: damage.message,
    fatal: isFatal(damage),
    records: scan.head.sequence,
    head: headReport(scan.head),
    ...(mark.kind === 'readable' ? { marked: headReport(mark.head) } : {}),
    ...(scan.writtenAt === undefined ? {} : { lastWrittenAt: scan.writtenAt }),
    segments: scan.segments.length,
    ...(snapshot === undefined ? {} : { snapshot }),
    bytes: sizes.reduce((sum, size) => sum + size, snapshot?.bytes ?? 0)
  }
}

async function snapshotReport(base: Base): Promise<SnapshotReport> {
  const { sequence, header, fault, named } = base
  return {
    sequence,
    ...(header === undefined
      ? {}
      : { hash: Buffer.from(header.hash).toString('hex'), entries: header.entries }),
    bytes: await sizeOf(base.path),
    sound: fault === undefined && named === 'yes'
  }
}

/** 0 for a file that is missing, or that a daemon's compaction has removed since it was read. */
export async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (isMissing(error)) return 0
    throw error
  }
}

function headReport(head: ChainHead): HeadReport {
  return { sequence: head.sequence, link: Buffer.from(head.link).toString('hex') }
}
