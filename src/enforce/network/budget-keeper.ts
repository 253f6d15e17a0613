/**
 * Holds vservers to the bytes a day of their leases (paper §3.3): counts what each sent, across restarts of the daemon, and
 * narrows its cap while the day's budget runs out, without touching others.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import * as v from 'valibot'
import type { Clock } from '../../base/clock.ts'
import { repeat } from '../../base/lifecycle.ts'
import type { Logger } from '../../base/log.ts'
import {
  openAccount,
  paceOf,
  readAccount,
  type EgressAccount,
  type Pace,
  type SentByUplink
} from './egress-budget.ts'
import type { LinkRecord } from './link-records.ts'
import { CAP_BPS_MIN, vserverRates } from './rates.ts'

const INTERVAL_MS = 5000
/** A cap is not changed for less than this part of it. */
const TOLERANCE = 0.05
/** Differs from every cap, so that it is put in place at the next look. */
const FAILED = -1

const count = v.pipe(v.number(), v.integer(), v.minValue(0))
const accountsSchema = v.record(
  v.string(),
  v.object({
    index: count,
    counted: v.record(v.string(), count),
    day: count,
    sentBytes: count,
    readAt: count
  })
)

/** Bytes that the kernel counted by the link's number, for each uplink that is there by its device. */
export type SentBytes = ReadonlyMap<string, ReadonlyMap<number, number>>

export interface BudgetKeeperComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly records: () => Iterable<LinkRecord>
  readonly sentBytes: () => Promise<SentBytes>
  /** Puts a vserver's cap in place as `narrowedBps` says by now. */
  readonly change: (id: string) => Promise<void>
}

export interface BudgetKeeperInit {
  /** Where the accounts are kept. */
  readonly file: string
  readonly rootBps: number
  /** Default: 5 seconds. */
  readonly intervalMs?: number
}

export class BudgetKeeper {
  readonly #components: BudgetKeeperComponents
  readonly #init: BudgetKeeperInit
  readonly #intervalMs: number
  readonly #accounts = new Map<string, EgressAccount>()
  /** What was put in place last. */
  readonly #applied = new Map<string, number | undefined>()
  /** The day of each one's last notice. */
  readonly #noticed = new Map<string, number>()
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: BudgetKeeperComponents, init: BudgetKeeperInit) {
    this.#components = components
    this.#init = init
    this.#intervalMs = init.intervalMs ?? INTERVAL_MS
  }

  /** Takes up the accounts that are kept. `sent`: what the kernel has counted by now. */
  async open(records: Iterable<LinkRecord>, sent: SentBytes): Promise<void> {
    const kept = await this.#read()
    const now = this.#components.clock.now()
    for (const { id, index } of records) {
      const counted = sentOf(sent, index)
      const account = kept[id]
      // Of whom nothing is known, nobody knows when it was sent either.
      const opened = account === undefined ? openAccount(index, counted, now) : account
      this.#accounts.set(id, readAccount(opened, { index, counted }, now))
    }
    this.#loop = repeat(
      async () => this.#look(),
      {
        clock: this.#components.clock,
        onError: (error) => this.#components.logger.error('daily budgets are not looked after', { error })
      },
      { intervalMs: this.#intervalMs, initialDelayMs: this.#intervalMs }
    )
  }

  async close(): Promise<void> {
    await this.#loop?.stop()
    this.#loop = undefined
    for (const each of [this.#accounts, this.#applied, this.#noticed]) each.clear()
  }

  /** The cap to put in place for a vserver, where it is lower than its lease's. */
  narrowedBps(record: LinkRecord): number | undefined {
    const { narrowedBps } = this.#pace(record)
    this.#applied.set(record.id, narrowedBps)
    return narrowedBps
  }

  isRunningOut(record: LinkRecord): boolean {
    return this.#pace(record).isRunningOut
  }

  rename(id: string, to: string): void {
    for (const map of [this.#accounts, this.#applied, this.#noticed] as Map<string, unknown>[]) {
      if (map.has(id)) map.set(to, map.get(id))
      map.delete(id)
    }
  }

  forget(id: string): void {
    for (const each of [this.#accounts, this.#applied, this.#noticed]) each.delete(id)
  }

  #pace({ id, index, resources }: LinkRecord): Pace {
    const now = this.#components.clock.now()
    const account = this.#accounts.get(id) ?? openAccount(index, {}, now)
    const budget = {
      budgetBytes: resources.egressBytesPerDay,
      capBps: vserverRates(this.#init.rootBps, resources).capBps,
      leastBps: CAP_BPS_MIN,
      intervalMs: this.#intervalMs
    }
    return paceOf(account, budget, now)
  }

  async #look(): Promise<void> {
    const { clock, logger, records, sentBytes, change } = this.#components
    if ([...records()].length === 0) return
    const sent = await sentBytes()
    const now = clock.now()
    for (const record of records()) {
      const { id, index } = record
      const account = this.#accounts.get(id) ?? openAccount(index, {}, now)
      this.#accounts.set(id, readAccount(account, { index, counted: sentOf(sent, index) }, now))
      const pace = this.#pace(record)
      if (pace.isRunningOut) this.#notice(record, pace)
      if (!differ(this.#applied.get(id), pace.narrowedBps)) continue
      await change(id).catch((error: unknown) => {
        this.#applied.set(id, FAILED)
        logger.error('the cap of a vserver is not changed', { id, error })
      })
    }
    const attached = new Set([...records()].map(({ id }) => id))
    for (const id of this.#accounts.keys()) if (!attached.has(id)) this.forget(id)
    await this.#write()
  }

  /** Once a day; its holder sees it in the vserver's status. */
  #notice({ id, resources }: LinkRecord, { narrowedBps }: Pace): void {
    const account = this.#accounts.get(id)
    if (account === undefined || this.#noticed.get(id) === account.day) return
    this.#noticed.set(id, account.day)
    this.#components.logger.warn('the egress budget of a vserver is running out', {
      id,
      sentBytes: account.sentBytes,
      budgetBytes: resources.egressBytesPerDay,
      ...(narrowedBps === undefined ? {} : { capBps: narrowedBps })
    })
  }

  async #read(): Promise<Readonly<Record<string, EgressAccount>>> {
    try {
      const result = v.safeParse(accountsSchema, JSON.parse(await readFile(this.#init.file, 'utf8')))
      if (result.success) return result.output
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    }
    this.#components.logger.warn('the egress accounts are damaged and begun anew', { file: this.#init.file })
    return {}
  }

  /** A crash loses nothing: the kernel counts on, and the next reading goes on from the last that was written. */
  async #write(): Promise<void> {
    const { file } = this.#init
    await mkdir(dirname(file), { recursive: true, mode: 0o700 })
    await writeFile(`${file}.new`, JSON.stringify(Object.fromEntries(this.#accounts)), { mode: 0o600 })
    await rename(`${file}.new`, file)
  }
}

function sentOf(sent: SentBytes, index: number): SentByUplink {
  return Object.fromEntries([...sent].map(([uplink, bytes]) => [uplink, bytes.get(index) ?? 0]))
}

function differ(applied: number | undefined, wanted: number | undefined): boolean {
  if (applied === undefined || wanted === undefined) return applied !== wanted
  return Math.abs(applied - wanted) > applied * TOLERANCE
}
