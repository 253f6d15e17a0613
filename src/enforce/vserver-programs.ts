/**
 * The programs in vservers: the launched one, which is looked after across restarts of the daemon, and those attached to
 * callers. Over the records of what was made; the enforcer hands its callers on to it.
 */
import { randomUUID } from 'node:crypto'
import { constants } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import type { Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { ProgramSignal } from '../base/program-signal.ts'
import type { Cgroups } from './cgroup.ts'
import { checkProgram, frozen } from './enforcer-input.ts'
import type { ExecSession, LogChunk, ProgramSpec, TerminalSize } from './enforcer.ts'
import { readLog } from './program-log.ts'
import { inVserverRoot, lookUpProgram } from './program-lookup.ts'
import type { ProgramRunner, ProgramState } from './program-runner.ts'
import { Restarting, startsAgain, type Looked } from './restarting.ts'
import type { Turns } from './turns.ts'
import type { VserverMaker } from './vserver-maker.ts'
import type { Launched, VserverRecord, VserverRecords } from './vserver-records.ts'
import type { VserverRoots } from './vserver-root.ts'
import { fits, orderOf, type OciProcess, type WaitingStart } from './waiting-start.ts'

/** Who leases a vserver launches its program soon after, or later as ever. */
const ADOPTED_MS = 10_000
/** How every program ends that is in a vserver whose init is gone. */
const KILLED = 128 + constants.signals.SIGKILL

export interface VserverProgramsComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly records: VserverRecords
  readonly roots: VserverRoots
  readonly cgroups: Cgroups
  /** Who may do what to a vserver at the same time; the same as the enforcer's. */
  readonly turns: Turns
  readonly maker: VserverMaker
  readonly runner: ProgramRunner
}

interface Waiting {
  readonly start: WaitingStart
  readonly timer: NodeJS.Timeout
}

export interface VserverProgramsInit {
  /** Of one process; as `OciProcessInit` has it. */
  readonly openFilesMax: number
}

export class VserverPrograms implements Startable {
  readonly #c: VserverProgramsComponents
  readonly #openFilesMax: number
  readonly #restarting: Restarting
  readonly #execs = new Map<string, number>()
  readonly #waiting = new Map<string, Waiting>()

  constructor(components: VserverProgramsComponents, init: VserverProgramsInit) {
    this.#c = components
    this.#openFilesMax = init.openFilesMax
    this.#restarting = new Restarting({
      ...components,
      records: () => components.records.all(),
      stateOf: async (id) => this.state(id),
      relaunch: async (id, launched, looked) => this.#startAgain(id, launched, looked)
    })
  }

  async start(): Promise<void> {
    await this.#restarting.start()
  }

  /** Programs run on. */
  async stop(): Promise<void> {
    await this.#restarting.stop()
    for (const { start } of this.#waiting.values()) start.orders.destroy()
    this.#waiting.clear()
  }

  /** Of the launched one. */
  async state(id: string): Promise<ProgramState> {
    const container = this.#c.records.get(id)?.container ?? id
    return this.#c.runner.state(this.#c.maker.programDir(container), container)
  }

  /** Gives what it was started with. */
  async launch(id: string, program: ProgramSpec): Promise<OciProcess> {
    checkProgram(program)
    return this.#c.turns.take(id, async () => {
      const record = await this.#thawed(id)
      if ((await this.state(id)).state === 'running') {
        throw new SlicenetError('BUSY', `a program runs in vserver ${id} already`, { hint: 'stop it first' })
      }
      return this.#start(record, { program, restarts: 0, streak: 0 })
    })
  }

  /**
   * Launches once more, as it was, what ended with a vserver that has been made again. Whoever calls has the vserver's turn. A
   * program that cannot be launched leaves the vserver as it is.
   */
  async resume(record: VserverRecord): Promise<void> {
    const { launched, spec } = record
    if (launched === undefined) return
    const now = await this.state(spec.id)
    if (now.state === 'running' || (now.state === 'exited' && now.exit.exitCode !== KILLED)) return
    try {
      await this.#start(record, { ...launched, restarts: launched.restarts + 1 })
    } catch (error) {
      this.#c.logger.warn('a program was not launched again with its vserver', { id: spec.id, error })
    }
  }

  async stopLaunched(id: string): Promise<void> {
    const { cgroups, maker, records, runner, turns } = this.#c
    records.require(id)
    await turns.take(id, async () => {
      const { launched: _launched, ...record } = records.require(id)
      if (await cgroups.isFrozen(record.container)) throw frozen(id)
      await records.put(record)
      await runner.stop(maker.programDir(record.container), record.container, cgroups.path(record.container))
    })
  }

  async signal(id: string, signal: ProgramSignal): Promise<void> {
    const { cgroups, maker, records, runner } = this.#c
    const { container } = records.require(id)
    const path = cgroups.path(container)
    const sent = await runner.signal(maker.programDir(container), container, path, constants.signals[signal])
    if (!sent) throw new SlicenetError('NOT_FOUND', `no program runs in vserver ${id}`)
  }

  async exec(
    id: string,
    program: ProgramSpec,
    { terminal }: { readonly terminal?: TerminalSize }
  ): Promise<ExecSession> {
    const { cgroups, roots, runner } = this.#c
    checkProgram(program)
    const record = await this.#thawed(id)
    const { container } = record
    const process = this.#process(record, program)
    const others = this.#execs.get(id) ?? 0
    if (others >= LIMITS.execsPerVserverMax) {
      throw new SlicenetError('BUSY', `${others} programs are attached to vserver ${id} already`)
    }
    this.#execs.set(id, others + 1)
    try {
      const directory = join(roots.bundle(container), `exec-${randomUUID()}`)
      const cgroupPath = cgroups.path(container)
      const session = await runner.exec({ container, cgroupPath, directory, process, terminal })
      const release = (): void => this.#releaseExec(id)
      session.exitCode.then(release, release)
      return session
    } catch (error) {
      this.#releaseExec(id)
      throw error
    }
  }

  async *logs(
    id: string,
    options: { readonly follow?: boolean; readonly signal?: AbortSignal }
  ): AsyncIterable<LogChunk> {
    const { maker, records, runner } = this.#c
    const { container } = records.require(id)
    const mayGrow = async (): Promise<boolean> => {
      if (options.follow !== true) return false
      const state = await this.state(id)
      const { restart = 'never' } = records.get(id)?.launched?.program ?? {}
      // Between two runs there is nothing for a moment.
      if (state.state === 'none') return restart !== 'never'
      return state.state === 'running' || startsAgain(restart, state.exit.exitCode)
    }
    yield* readLog(this.#c, {
      path: runner.logPath(maker.programDir(container)),
      mayGrow,
      ...(options.signal === undefined ? {} : { signal: options.signal })
    })
  }

  /** Has a shell wait in a vserver to become a program like `process`, in place of another; undefined where there can be none. */
  async prepare(
    { container }: VserverRecord,
    process: OciProcess,
    before?: WaitingStart
  ): Promise<WaitingStart | undefined> {
    const { maker, roots, runner } = this.#c
    if (before !== undefined) await runner.dismiss(before, this.#c.cgroups.path(container))
    if (!roots.hasShell) return undefined
    return runner.prepare({ container, directory: maker.programDir(container), process })
  }

  /** Keeps what waits in a vserver for the program that is launched there next, if that is soon. */
  adopt(id: string, start: WaitingStart): void {
    // Whoever has the vserver's turn may be about to launch something.
    const dismiss = (): void =>
      void this.#c.turns
        .take(id, async () => this.#dismiss(id))
        .catch((error: unknown) =>
          this.#c.logger.warn('what waits for a program was not ended', { id, error })
        )
    const timer = setTimeout(dismiss, ADOPTED_MS).unref()
    this.#waiting.set(id, { start, timer })
  }

  /** The process id of what waits in a vserver. */
  waitingPid(id: string): number | undefined {
    return this.#waiting.get(id)?.start.pid
  }

  /** Of a vserver that is taken away. */
  forget(id: string): void {
    this.#takeWaiting(id)?.orders.destroy()
  }

  async #dismiss(id: string): Promise<void> {
    const start = this.#takeWaiting(id)
    const { cgroups, records, runner } = this.#c
    const record = records.get(id)
    if (start === undefined) return
    if (record === undefined) start.orders.destroy()
    else await runner.dismiss(start, cgroups.path(record.container))
  }

  #takeWaiting(id: string): WaitingStart | undefined {
    const waiting = this.#waiting.get(id)
    this.#waiting.delete(id)
    clearTimeout(waiting?.timer)
    return waiting?.start
  }

  /** Whether what waits there has become the program. */
  async #become(record: VserverRecord, process: OciProcess): Promise<boolean> {
    const start = this.#takeWaiting(record.spec.id)
    if (start === undefined) return false
    const { cgroups, roots, runner } = this.#c
    const { container, spec } = record
    const root = roots.rootPath(container)
    let hasBecome = false
    try {
      const order = fits(start, process)
        ? inVserverRoot(spec.id, root, (rootFd) => orderOf(rootFd, process))
        : undefined
      hasBecome = order !== undefined && (await runner.begin(start, order))
    } finally {
      if (!hasBecome) await runner.dismiss(start, cgroups.path(container))
    }
    return hasBecome
  }

  /** Nothing of a program that cannot be started is kept. */
  async #start(record: VserverRecord, launched: Launched): Promise<OciProcess> {
    const { maker, records, runner } = this.#c
    const { container } = record
    const process = this.#process(record, launched.program)
    // Before it: should the daemon end now, what runs is known.
    await records.put({ ...record, launched })
    try {
      const again = launched.restarts > 0
      if (!again && (await this.#become(record, process))) return process
      await runner.launch({ container, directory: maker.programDir(container), process, again })
      return process
    } catch (error) {
      const { launched: before, ...rest } = record
      // Of one that is launched anew, what was before it is gone: nothing of that may come back.
      await records.put(before === undefined || launched.restarts === 0 ? rest : record)
      throw error
    }
  }

  async #startAgain(id: string, launched: Launched, looked: Looked): Promise<void> {
    const { cgroups, maker, records, turns } = this.#c
    await turns.take(id, async () => {
      const record = records.get(id)
      if (
        record === undefined ||
        !(await maker.isRunning(record)) ||
        (await cgroups.isFrozen(record.container))
      )
        return
      // Whoever had the turn before may have launched something, which may have ended since, or stopped it.
      if (!isDeepStrictEqual({ launched: record.launched, state: await this.state(id) }, looked)) return
      await this.#start(record, launched)
    })
  }

  async #thawed(id: string): Promise<VserverRecord> {
    const record = await this.#c.maker.requireRunning(id)
    if (await this.#c.cgroups.isFrozen(record.container)) throw frozen(id)
    return record
  }

  #process({ spec, uidBase, container }: VserverRecord, program: ProgramSpec): OciProcess {
    const openFilesMax = this.#openFilesMax
    const rootPath = this.#c.roots.rootPath(container)
    return inVserverRoot(spec.id, rootPath, (rootFd) =>
      lookUpProgram(rootFd, { spec, uidBase, program, openFilesMax })
    )
  }

  #releaseExec(id: string): void {
    const count = (this.#execs.get(id) ?? 1) - 1
    if (count === 0) this.#execs.delete(id)
    else this.#execs.set(id, count)
  }
}
