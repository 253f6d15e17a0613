/**
 * Starts launched programs again that have ended, as their policy says. What was launched is in the records, so that this goes
 * on after a restart of the daemon or the machine.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { RestartPolicy } from './enforcer.ts'
import type { ProgramState } from './program-runner.ts'
import type { Launched, VserverRecord } from './vserver-records.ts'

const LOOK_MS = 1000
const FIRST_DELAY_MS = 1000
const DELAY_MS_MAX = 60_000
/** Whoever ran so long begins with the first delay again. */
const LONG_RUN_MS = 10 * 60_000

/** What a decision to start a program again rests on. */
export interface Looked {
  readonly launched: Launched
  readonly state: ProgramState
}

export interface RestartingComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly records: () => readonly VserverRecord[]
  readonly stateOf: (id: string) => Promise<ProgramState>
  /**
   * Starts the program once more and notes it. Nothing happens where anything is not as it was looked at any more: it was
   * being launched then, say, or has been stopped since.
   */
  readonly relaunch: (id: string, launched: Launched, looked: Looked) => Promise<void>
}

export class Restarting implements Startable {
  readonly #components: RestartingComponents
  /** When those that could not be started are tried again, by the monotonic clock. */
  readonly #failed = new Map<string, number>()
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: RestartingComponents) {
    this.#components = components
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async start(): Promise<void> {
    const { clock, logger } = this.#components
    this.#loop ??= repeat(
      async (signal) => this.#look(signal),
      { clock, onError: (error) => logger.error('programs were not looked after', { error }) },
      { intervalMs: LOOK_MS, initialDelayMs: LOOK_MS }
    )
  }

  async stop(): Promise<void> {
    await this.#loop?.stop()
    this.#loop = undefined
    this.#failed.clear()
  }

  async #look(signal: AbortSignal): Promise<void> {
    const records = this.#components.records()
    const ids = new Set(records.map(({ spec }) => spec.id))
    for (const id of this.#failed.keys()) if (!ids.has(id)) this.#failed.delete(id)
    const due = records.filter(
      ({ launched, pid }) => pid !== undefined && (launched?.program.restart ?? 'never') !== 'never'
    )
    for (const { spec, launched } of due) {
      if (signal.aborted) return
      if (launched !== undefined) await this.#tend(spec.id, launched)
    }
  }

  async #tend(id: string, launched: Launched): Promise<void> {
    const { clock, logger, relaunch, stateOf } = this.#components
    const state = await stateOf(id)
    if (state.state === 'running' || clock.monotonic() < (this.#failed.get(id) ?? -Infinity)) return
    let streak = launched.streak
    // Otherwise it was noted and never begun, as when the daemon was killed then.
    if (state.state === 'exited') {
      const { exitCode, exitedAt } = state.exit
      if (exitedAt - state.startedAt >= LONG_RUN_MS) streak = 0
      if (!startsAgain(launched.program.restart, exitCode) || clock.now() < exitedAt + delayMs(streak)) return
    }
    try {
      const next = { ...launched, restarts: launched.restarts + 1, streak: streak + 1 }
      await relaunch(id, next, { launched, state })
      this.#failed.delete(id)
    } catch (error) {
      logger.warn('a program could not be started again', { id, error })
      this.#failed.set(id, clock.monotonic() + DELAY_MS_MAX)
    }
  }
}

/** Whether a program that ended so is started again. */
export function startsAgain(policy: RestartPolicy | undefined, exitCode: number): boolean {
  return policy === 'always' || (policy === 'on-failure' && exitCode !== 0)
}

/** Until the next start, after so many in a row. */
export function delayMs(streak: number): number {
  return Math.min(FIRST_DELAY_MS * 2 ** streak, DELAY_MS_MAX)
}
