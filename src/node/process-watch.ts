/**
 * Looks every second at what runs in administrative slices and notes each process once, and again when its command line
 * is another one. What is over sooner is not seen: this tells what a slice runs, not every call that it makes.
 */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Enforcer, VserverProcess } from '../enforce/enforcer.ts'
import { isAdministrative } from '../ticket/rights.ts'
import { subjectOf, type AuditTrail } from './audit-trail.ts'
import type { LeaseRecord } from './lease-table.ts'
import type { NodeManager } from './node-manager.ts'

export interface ProcessWatchComponents {
  readonly manager: NodeManager
  readonly enforcer: Enforcer
  readonly audit: AuditTrail
  readonly clock: Clock
  readonly logger: Logger
}

interface Watched {
  /** Command lines by process. */
  readonly known: Map<string, string>
  /** By the monotonic clock. */
  minuteBegan: number
  noted: number
  passedOver: number
}

const INTERVAL_MS = 1000
const MINUTE_MS = 60_000

export class ProcessWatch implements Startable {
  readonly #components: ProcessWatchComponents
  readonly #watched = new Map<string, Watched>()
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: ProcessWatchComponents) {
    this.#components = components
  }

  async start(): Promise<void> {
    const { clock, logger } = this.#components
    const onError = (error: unknown): void => logger.error('processes could not be looked at', { error })
    this.#loop ??= repeat(async () => this.look(), { clock, onError }, { intervalMs: INTERVAL_MS })
  }

  async stop(): Promise<void> {
    await this.#loop?.stop()
    this.#loop = undefined
  }

  /** Looks once. */
  async look(): Promise<void> {
    const { manager } = this.#components
    const records = manager.table
      .holding()
      .filter(({ lease, state }) => state === 'active' && isAdministrative(lease.body.rights))
    const vservers = new Set(records.map(({ lease }) => lease.body.vserver))
    for (const id of this.#watched.keys()) if (!vservers.has(id)) this.#watched.delete(id)
    for (const record of records) await this.#lookAt(record)
  }

  async #lookAt(record: LeaseRecord): Promise<void> {
    const { enforcer, clock } = this.#components
    const { vserver } = record.lease.body
    const processes = await enforcer.processes(vserver).catch((error: unknown) => {
      // It may be gone by now.
      if (error instanceof SlicenetError && error.code === 'NOT_FOUND') return []
      throw error
    })
    const now = clock.monotonic()
    const watched = this.#watched.get(vserver) ?? {
      known: new Map(),
      minuteBegan: now,
      noted: 0,
      passedOver: 0
    }
    this.#watched.set(vserver, watched)
    if (now - watched.minuteBegan >= MINUTE_MS) {
      await this.#tellPassedOver(record, watched)
      Object.assign(watched, { minuteBegan: now, noted: 0, passedOver: 0 })
    }
    const { known } = watched
    const present = new Set(processes.map(keyOf))
    for (const key of known.keys()) if (!present.has(key)) known.delete(key)
    for (const process of processes) {
      const line = process.argv.join(' ')
      if (known.get(keyOf(process)) === line) continue
      if (watched.noted >= LIMITS.auditProcessesPerMinute) watched.passedOver += 1
      else {
        watched.noted += 1
        await this.#note(record, process)
      }
      known.set(keyOf(process), line)
    }
  }

  async #note(record: LeaseRecord, { pid, uid, argv }: VserverProcess): Promise<void> {
    await this.#components.audit.note(subjectOf(record), 'process', 'seen', { pid, uid, argv: [...argv] })
  }

  async #tellPassedOver(record: LeaseRecord, { passedOver }: Watched): Promise<void> {
    if (passedOver === 0) return
    await this.#components.audit.note(subjectOf(record), 'process', 'seen', { passedOver })
  }
}

function keyOf({ pid, startedTicks }: VserverProcess): string {
  return `${pid}@${startedTicks}`
}
