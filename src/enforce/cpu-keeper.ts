/**
 * Keeps vservers to what they are guaranteed of the processor (paper §3.3): looks, while the machine is busy, at who gets how
 * much and who waits, and narrows the caps of those who take more than their share for as long as it takes.
 */
import { readFileSync } from 'node:fs'
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { Cgroups } from './cgroup.ts'
import { CpuBalance, IDLE_MIN, type CpuShare } from './cpu-balance.ts'
import { cpuCapMillis } from './oci-config.ts'
import type { VserverRecord } from './vserver-records.ts'

const LOOK_MS = 250
/** With more vservers it looks less often, so that looking costs the same. */
const VSERVERS_PER_LOOK = 64
/** Waiting is judged by so many looks in a row: who happens to run at one of them waits for nothing. */
const WAITING_LOOKS = 3
/** Processes of one vserver that are looked at; one that waits is soon found among many. */
const TASKS_MAX = 64
/** The kernel's unit in /proc/stat. */
const TICK_MICROS = 10_000

export interface CpuKeeperComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly cgroups: Cgroups
  readonly records: () => readonly VserverRecord[]
}

interface Before {
  readonly at: number
  readonly idleMicros: number
  readonly used: ReadonlyMap<string, number>
}

export class CpuKeeper implements Startable {
  readonly #c: CpuKeeperComponents
  #balance = new CpuBalance()
  #before: Before | undefined
  /** Processes of each that were ready at the last looks, the newest last. */
  readonly #ready = new Map<string, readonly number[]>()
  /** Caps that stand narrower than leased. */
  readonly #applied = new Map<string, number>()
  #loop: { stop(): Promise<void> } | undefined
  #skip = 0

  constructor(components: CpuKeeperComponents) {
    this.#c = components
  }

  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    // A daemon that was killed may have left them narrow.
    for (const record of this.#c.records()) await this.#cap(record, undefined)
    const { clock, logger } = this.#c
    this.#loop = repeat(
      async () => this.#look(),
      { clock, onError: (error) => logger.error('shares of the processor were not looked at', { error }) },
      { intervalMs: LOOK_MS, initialDelayMs: LOOK_MS }
    )
  }

  /** Every vserver has its whole cap again. */
  async stop(): Promise<void> {
    await this.#loop?.stop()
    this.#loop = undefined
    this.#balance = new CpuBalance()
    await this.#apply()
    this.#before = undefined
    this.#ready.clear()
  }

  async #look(): Promise<void> {
    const records = this.#c.records().filter(({ pid }) => pid !== undefined)
    if (this.#skip-- > 0) return
    this.#skip = Math.floor(records.length / VSERVERS_PER_LOOK)
    if (records.length < 2 && this.#applied.size === 0) {
      this.#before = undefined
      return
    }
    const before = this.#before
    const now = this.#sample(records)
    this.#before = now
    if (before === undefined) return
    const elapsedMicros = (now.at - before.at) * 1000
    const idle = ((now.idleMicros - before.idleMicros) * 1000) / elapsedMicros
    const isIdle = idle > IDLE_MIN
    for (const id of this.#ready.keys()) if (isIdle || !now.used.has(id)) this.#ready.delete(id)
    const shares = records.map(({ spec: { id, resources }, container }): CpuShare => {
      const used = (((now.used.get(id) ?? 0) - (before.used.get(id) ?? 0)) * 1000) / elapsedMicros
      const guarantee = resources.cpuMillis
      const wanted = isIdle ? 0 : this.#wanted(id, container, guarantee - used)
      return { id, guarantee, cap: cpuCapMillis(resources), used, wanted }
    })
    this.#balance.look({ now: now.at, idle, shares })
    await this.#apply()
  }

  #sample(records: readonly VserverRecord[]): Before {
    const used = new Map(
      records.map(({ spec, container }) => [spec.id, this.#c.cgroups.cpuMicros(container)])
    )
    return { at: this.#c.clock.monotonic(), idleMicros: idleMicros(), used }
  }

  /** In thousandths of a core; nobody asks after one that has its guarantee. */
  #wanted(id: string, container: string, missing: number): number {
    if (missing <= 0) {
      this.#ready.delete(id)
      return 0
    }
    const looks = [...(this.#ready.get(id) ?? []), this.#readyTasks(container)].slice(-WAITING_LOOKS)
    this.#ready.set(id, looks)
    return looks.length < WAITING_LOOKS ? 0 : 1000 * Math.min(...looks)
  }

  #readyTasks(container: string): number {
    let ready = 0
    for (const task of this.#c.cgroups.tasks(container).slice(0, TASKS_MAX)) if (isReady(task)) ready++
    return ready
  }

  async #apply(): Promise<void> {
    const { narrowed } = this.#balance
    const records = new Map(this.#c.records().map((record) => [record.spec.id, record]))
    for (const id of new Set([...narrowed.keys(), ...this.#applied.keys()])) {
      const [record, capMillis] = [records.get(id), narrowed.get(id)]
      if (record !== undefined) {
        if (!this.#applied.has(id))
          this.#c.logger.info('a vserver takes what others are guaranteed of the processor', {
            id,
            capMillis
          })
        // Also where it stands already: a resize writes the whole cap.
        await this.#cap(record, capMillis)
      }
      if (record === undefined || capMillis === undefined) this.#applied.delete(id)
      else this.#applied.set(id, capMillis)
    }
  }

  async #cap({ spec: { resources }, container }: VserverRecord, narrowed: number | undefined): Promise<void> {
    const cap = cpuCapMillis(resources)
    const least = Math.min(resources.cpuMillis, cap)
    await this.#c.cgroups.capCpu(
      container,
      narrowed === undefined ? cap : Math.min(Math.max(narrowed, least), cap)
    )
  }
}

function idleMicros(): number {
  const [, , , , idle, waiting] = /^cpu .*/m.exec(readFileSync('/proc/stat', 'utf8'))?.[0].split(/\s+/) ?? []
  return (Number(idle ?? 0) + Number(waiting ?? 0)) * TICK_MICROS
}

/** Whether a thread runs or waits for a processor. */
function isReady(task: number): boolean {
  try {
    const stat = readFileSync(`/proc/${task}/stat`, 'latin1')
    // After the program's name, which may hold anything but ends with the last bracket.
    return stat[stat.lastIndexOf(')') + 2] === 'R'
  } catch {
    return false
  }
}
