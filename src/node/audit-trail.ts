/**
 * What holders of administrative slices did on this node (paper §4.3), for its administrator: JSON lines in files that
 * take turns, so that they are bounded and the last are kept. Acts and the processes seen are apart: however many
 * processes a slice starts, they push none of its acts out.
 */
import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import type { Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { isAdministrative, type Right } from '../ticket/rights.ts'
import type { LeaseRecord } from './lease-table.ts'

export const AUDIT_ACTS = [
  'lease',
  'renew',
  'refuse',
  'end',
  'upload',
  'launch',
  'stop',
  'signal',
  'freeze',
  'thaw',
  'exec',
  'addKey',
  'delKey',
  'process'
] as const
export type AuditAct = (typeof AUDIT_ACTS)[number]

export const auditEntrySchema = v.strictObject({
  /** UTC ms. */
  time: v.number(),
  act: v.picklist(AUDIT_ACTS),
  /** `begins`, written before anything is done; `done`; `seen` of a process; or the code of the error. */
  outcome: v.string(),
  /** Absent where there is none, as of a ticket that was refused. */
  lease: v.exactOptional(v.string()),
  slice: v.string(),
  principal: v.string(),
  details: v.record(v.string(), v.union([v.string(), v.number(), v.array(v.string())]))
})
export type AuditEntry = v.InferOutput<typeof auditEntrySchema>
export type AuditDetails = AuditEntry['details']

/** Whose slice an act is of. */
export interface AuditSubject {
  readonly lease?: string
  readonly slice: string
  readonly principal: string
  readonly rights: readonly Right[]
}

export function subjectOf({ lease }: Pick<LeaseRecord, 'lease'>): AuditSubject {
  const { slice, holder, rights } = lease.body
  return { lease: lease.id, slice, principal: holder, rights }
}

export interface AuditTrailComponents {
  readonly clock: Clock
  readonly logger: Logger
}

export interface AuditTrailInit {
  /** Of this node alone. */
  readonly directory: string
  /** Default `LIMITS.auditFileBytesMax`. */
  readonly fileBytesMax?: number
}

const KINDS = ['acts', 'processes'] as const
type Kind = (typeof KINDS)[number]

export class AuditTrail implements Startable {
  readonly #components: AuditTrailComponents
  readonly #directory: string
  readonly #fileBytesMax: number
  /** The last write of all, so that entries stand in the order in which they were noted. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(components: AuditTrailComponents, init: AuditTrailInit) {
    this.#components = components
    this.#directory = init.directory
    this.#fileBytesMax = init.fileBytesMax ?? LIMITS.auditFileBytesMax
  }

  async start(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
  }

  async stop(): Promise<void> {
    await this.#last.catch(() => {})
  }

  /**
   * Resolves when the entry is in its file; does nothing for ordinary slices. Throws `STORE_FAILED`, so that what cannot
   * be noted is not begun.
   */
  async note(
    { rights, ...subject }: AuditSubject,
    act: AuditAct,
    outcome: string,
    details: AuditDetails = {}
  ): Promise<void> {
    if (!isAdministrative(rights)) return
    const { clock, logger } = this.#components
    const entry = { time: clock.now(), act, outcome, ...subject, details: fit(details) }
    logger.info('administrative slice', { ...entry })
    const kind = act === 'process' ? 'processes' : 'acts'
    const written = this.#last.then(async () => this.#append(kind, entry))
    this.#last = written.catch(() => {})
    try {
      await written
    } catch (cause) {
      throw new SlicenetError('STORE_FAILED', 'the audit trail of administrative slices cannot be written', {
        cause
      })
    }
  }

  /** The last entries of both kinds, the latest last. */
  async read(last: number): Promise<AuditEntry[]> {
    await this.#last
    const entries = await Promise.all(KINDS.map(async (kind) => this.#readKind(kind, last)))
    return entries
      .flat()
      .sort((a, b) => a.time - b.time)
      .slice(-last)
  }

  async #readKind(kind: Kind, last: number): Promise<AuditEntry[]> {
    const entries: AuditEntry[] = []
    for (let index = 0; index < LIMITS.auditFilesMax && entries.length < last; index++) {
      const text = await readFile(this.#path(kind, index), 'utf8').catch(() => '')
      entries.unshift(...text.split('\n').flatMap(parseLine))
    }
    return entries.slice(-last)
  }

  async #append(kind: Kind, entry: AuditEntry): Promise<void> {
    const path = this.#path(kind, 0)
    const size = await stat(path).then(
      (found) => found.size,
      () => 0
    )
    if (size >= this.#fileBytesMax) await this.#turn(kind)
    await using file = await open(path, 'a', 0o600)
    // What a crash cut off ends here, and not in the middle of this entry.
    await file.appendFile(`\n${JSON.stringify(entry)}\n`)
  }

  async #turn(kind: Kind): Promise<void> {
    await rm(this.#path(kind, LIMITS.auditFilesMax - 1), { force: true })
    for (let index = LIMITS.auditFilesMax - 2; index >= 0; index--) {
      await rename(this.#path(kind, index), this.#path(kind, index + 1)).catch(
        (error: NodeJS.ErrnoException) => {
          if (error.code !== 'ENOENT') throw error
        }
      )
    }
  }

  #path(kind: Kind, index: number): string {
    return join(this.#directory, index === 0 ? `${kind}.jsonl` : `${kind}.${index}.jsonl`)
  }
}

function parseLine(line: string): AuditEntry[] {
  if (line === '') return []
  try {
    const result = v.safeParse(auditEntrySchema, JSON.parse(line))
    return result.success ? [result.output] : []
  } catch {
    return []
  }
}

/** As much as one entry has room for: texts are cut, and lists after that. */
function fit(details: AuditDetails): AuditDetails {
  let room: number = LIMITS.auditEntryBytesMax / 2
  const cut = (text: string): string => {
    const max = Math.max(0, Math.min(LIMITS.auditTextCharsMax, room))
    room -= Math.min(text.length, max) + 1
    return text.length <= max ? text : `${text.slice(0, max).toWellFormed()}…`
  }
  const fitted = Object.entries(details).map(([name, value]) => {
    if (typeof value === 'number') return [name, value] as const
    if (typeof value === 'string') return [name, cut(value)] as const
    const kept: string[] = []
    for (const text of value) {
      if (room <= 0) {
        kept.push(`… ${value.length - kept.length} more`)
        break
      }
      kept.push(cut(text))
    }
    return [name, kept] as const
  })
  return Object.fromEntries(fitted)
}
