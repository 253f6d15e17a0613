/**
 * Runs programs in vservers. The launched one runs under conmon, so that it outlives the daemon, its log is bounded and
 * its exit code is kept; others run attached to their caller.
 */
import { once } from 'node:events'
import { mkdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { begin } from '../base/host-program.ts'
import type { Child } from '../base/posix-spawn.ts'
import { isProcessInCgroup } from './cgroup.ts'
import type { ExecSession, ProgramExit, TerminalSize } from './enforcer.ts'
import { isKeeper, readNumber, settleKeeper, startKeeper } from './program-keeper.ts'
import { readLog } from './program-log.ts'
import { OPEN_FILES_SOFT, type OciRuntime } from './oci-runtime.ts'
import { mergeOutput } from './output.ts'
import { signalProcess } from './syscall.ts'
import { HostTerminal } from './terminal.ts'
import {
  hasComplained,
  lookAt,
  makeToken,
  shellProcess,
  tell,
  waitingPidFile,
  type OciProcess,
  type WaitingStart
} from './waiting-start.ts'

const START_POLL_MS = 2
const BECOME_POLL_MS = 1
/** After this a start like any other is tried. */
const BECOME_DEADLINE_MS = 5000
const START_DEADLINE_MS = 15_000
const GRACE_MS = 5_000
const GRACE_POLL_MS = 20
const SIGKILL = 9
const SIGTERM = 15

export interface ProgramRunnerComponents {
  readonly clock: Clock
  readonly runtime: OciRuntime
}

export interface LaunchInit {
  /** The vserver's, as the runtime knows it. */
  readonly container: string
  /** Of this vserver's launched program alone. */
  readonly directory: string
  /** The runtime specification's process object. */
  readonly process: OciProcess
}

export interface ExecInit extends LaunchInit {
  /** Path below the top of each cgroup hierarchy. */
  readonly cgroupPath: string
  readonly terminal?: TerminalSize | undefined
}

export type ProgramState =
  | { readonly state: 'none' }
  | { readonly state: 'running'; readonly pid: number }
  | {
      readonly state: 'exited'
      readonly exit: ProgramExit
      /** UTC ms. */
      readonly startedAt: number
    }

export class ProgramRunner {
  readonly #clock: Clock
  readonly #runtime: OciRuntime

  constructor(components: ProgramRunnerComponents) {
    this.#clock = components.clock
    this.#runtime = components.runtime
  }

  logPath(directory: string): string {
    return join(directory, 'log')
  }

  /**
   * Starts the program, in place of one that has ended; with `again` its log goes on. Throws `PROGRAM_NOT_FOUND`,
   * `VSERVER_FAILED`.
   */
  async launch(init: LaunchInit & { readonly again?: boolean }): Promise<void> {
    const { directory } = init
    const past =
      init.again === true ? ['exit', 'pid', 'keeper'].map((name) => join(directory, name)) : [directory]
    await Promise.all(past.map(async (path) => rm(path, { recursive: true, force: true })))
    const report = await startKeeper(this.#runtime, { ...init, pidFile: join(directory, 'pid') })
    if (report.pid > 0) return
    if (init.again !== true) await rm(directory, { recursive: true, force: true })
    throw startFailure(report.message)
  }

  /**
   * Has a shell wait under a keeper, with all that a program like `process` is to have, until `begin` says what it is. Throws
   * `VSERVER_FAILED`.
   */
  async prepare({ directory, container, process }: LaunchInit): Promise<WaitingStart> {
    await rm(directory, { recursive: true, force: true })
    const token = makeToken()
    const { pid, message, orders } = await startKeeper(this.#runtime, {
      directory,
      container,
      process: shellProcess(process, token),
      pidFile: waitingPidFile(directory),
      isWaiting: true
    })
    if (orders !== undefined && pid > 0) {
      const waiting = { directory, process, pid, orders, token }
      // Until then the runtime's own process is under its pid.
      if (await this.#until(async () => (await lookAt(waiting)) !== 'other')) return waiting
    }
    orders?.destroy()
    await settleKeeper(this.#clock, directory)
    throw startFailure(message)
  }

  /** Has the shell that waits become the program; false when it did not, and nothing has happened. */
  async begin(waiting: WaitingStart, order: string): Promise<boolean> {
    const { directory, token } = waiting
    if (!(await tell(waiting, order))) return false
    if (!(await this.#until(async () => (await lookAt(waiting)) !== 'shell'))) return false
    if ((await lookAt(waiting)) === 'other') return true
    // What has ended already may never have been the program.
    await settleKeeper(this.#clock, directory)
    const log = readLog({ clock: this.#clock }, { path: this.logPath(directory), mayGrow: async () => false })
    return !(await hasComplained(log, token))
  }

  /** Whether it came to be so within the time that the shell may take. */
  async #until(isSo: () => Promise<boolean>): Promise<boolean> {
    const deadline = this.#clock.monotonic() + BECOME_DEADLINE_MS
    while (!(await isSo())) {
      if (this.#clock.monotonic() > deadline) return false
      await this.#clock.sleep(BECOME_POLL_MS)
    }
    return true
  }

  /** Ends one that waits and shall become nothing. */
  async dismiss(waiting: WaitingStart, cgroupPath: string): Promise<void> {
    const { directory, orders, pid } = waiting
    orders.destroy()
    // It may have been stopped, and have its orders already.
    if ((await lookAt(waiting)) === 'shell') {
      signalProcess(pid, SIGKILL, () => isProcessInCgroup(pid, cgroupPath))
    }
    await settleKeeper(this.#clock, directory)
  }

  async state(directory: string, container: string): Promise<ProgramState> {
    const pid = await readNumber(join(directory, 'pid'))
    if (pid === undefined) return { state: 'none' }
    const startedAt = await timeOf(join(directory, 'pid'))
    const exit = await readExit(join(directory, 'exit', container))
    if (exit !== undefined) return { state: 'exited', exit, startedAt }
    const keeper = await readNumber(join(directory, 'keeper'))
    if (keeper !== undefined && (await isKeeper(keeper, directory))) return { state: 'running', pid }
    // It may have ended between the two looks.
    const late = await readExit(join(directory, 'exit', container))
    if (late !== undefined) return { state: 'exited', exit: late, startedAt }
    // The keeper went without a word, as at a reboot, and the program with it.
    return { state: 'exited', exit: { exitCode: 128 + SIGKILL, exitedAt: startedAt }, startedAt }
  }

  /** Resolves when the keeper is gone, whose program was ended with its vserver. */
  async settle(directory: string): Promise<void> {
    await settleKeeper(this.#clock, directory)
  }

  /** Sends the launched program a signal; gives whether there is one. */
  async signal(directory: string, container: string, cgroupPath: string, signal: number): Promise<boolean> {
    const now = await this.state(directory, container)
    return (
      now.state === 'running' && signalProcess(now.pid, signal, () => isProcessInCgroup(now.pid, cgroupPath))
    )
  }

  /** SIGTERM, then SIGKILL after 5 s; resolves when the program has ended. Idempotent. */
  async stop(directory: string, container: string, cgroupPath: string): Promise<void> {
    const before = await this.state(directory, container)
    if (before.state !== 'running') return
    await this.#end(
      before.pid,
      cgroupPath,
      async () => (await this.state(directory, container)).state !== 'running'
    )
  }

  /**
   * Runs a program attached to the caller, with `terminal` at a terminal of that size. Throws `PROGRAM_NOT_FOUND`,
   * `VSERVER_FAILED`.
   */
  async exec(init: ExecInit): Promise<ExecSession> {
    const { directory } = init
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const specification = join(directory, 'process.json')
    const pidFile = join(directory, 'pid')
    const process = { ...init.process, ...atTerminal(init.terminal) }
    await writeFile(specification, JSON.stringify(process), { mode: 0o600 })
    const command = [this.#runtime.name, ...this.#runtime.globalArgs, 'exec', '--process', specification]
    command.push('--pid-file', pidFile, init.container)
    const { child, streams } =
      init.terminal === undefined ? startPiped(command) : startAtTerminal(command, init.terminal)
    const exited = child.ended.then(({ exitCode }) => exitCode ?? 128 + SIGKILL)
    let pid: number | undefined
    try {
      pid = await this.#waitForPid(child, pidFile)
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
    // The runtime writes the pid once the program runs, and ends after it.
    if (pid === undefined) throw startFailure(await text(streams.complaints))
    return this.#session(child, streams, exited, pid, init.cgroupPath)
  }

  #session(
    child: Child,
    { output, write, resizeTerminal }: AttachedStreams,
    exitCode: Promise<number>,
    pid: number,
    cgroupPath: string
  ): ExecSession {
    return {
      output,
      exitCode,
      write,
      resizeTerminal,
      kill: async () => {
        await this.#end(pid, cgroupPath, async () => child.hasEnded())
        child.kill('SIGKILL')
        await exitCode
      }
    }
  }

  async #end(pid: number, cgroupPath: string, hasEnded: () => Promise<boolean>): Promise<void> {
    for (const signal of [SIGTERM, SIGKILL]) {
      if (!signalProcess(pid, signal, () => isProcessInCgroup(pid, cgroupPath)) && (await hasEnded())) return
      const deadline = this.#clock.monotonic() + GRACE_MS
      while (this.#clock.monotonic() < deadline) {
        if (await hasEnded()) return
        await this.#clock.sleep(GRACE_POLL_MS)
      }
    }
    throw new SlicenetError('VSERVER_FAILED', `process ${pid} could not be ended`)
  }

  async #waitForPid(child: Child, pidFile: string): Promise<number | undefined> {
    const deadline = this.#clock.monotonic() + START_DEADLINE_MS
    while (!child.hasEnded()) {
      const pid = await readNumber(pidFile)
      if (pid !== undefined) return pid
      if (this.#clock.monotonic() > deadline) {
        child.kill('SIGKILL')
        throw new SlicenetError('VSERVER_FAILED', 'the program did not start in time')
      }
      await this.#clock.sleep(START_POLL_MS)
    }
    return readNumber(pidFile)
  }
}

/** The ends of a program's streams on this side. */
interface AttachedStreams extends Pick<ExecSession, 'output' | 'write' | 'resizeTerminal'> {
  /** Where the runtime says why it could not start the program. */
  readonly complaints: Readable
}

interface Attached {
  readonly child: Child
  readonly streams: AttachedStreams
}

/** What the runtime specification's process object says of a terminal, so that it has its size from the first moment on. */
function atTerminal(size: TerminalSize | undefined): Record<string, unknown> {
  if (size === undefined) return { terminal: false }
  return { terminal: true, consoleSize: { height: size.rows, width: size.columns } }
}

function startPiped([program = '', ...args]: readonly string[]): Attached {
  const child = begin(program, args, ['pipe', 'pipe', 'pipe'], { openFiles: OPEN_FILES_SOFT })
  const [stdin, stdout, stderr] = child.streams as [Socket, Socket, Socket]
  // A program that ended takes no input; its exit code tells.
  stdin.on('error', () => {})
  const write = async (bytes: Uint8Array | undefined): Promise<void> => {
    if (bytes === undefined) stdin.end()
    else if (!stdin.destroyed && !stdin.write(bytes)) {
      await Promise.race([once(stdin, 'drain'), once(stdin, 'close')]).catch(() => {})
    }
  }
  const streams = { output: mergeOutput(stdout, stderr), complaints: stderr, write, resizeTerminal: () => {} }
  return { child, streams }
}

/** The runtime stands between this terminal and one inside; as its session's leader it is told of a new size. */
function startAtTerminal(command: readonly string[], size: TerminalSize): Attached {
  const terminal = new HostTerminal(size)
  const { slave, output } = terminal
  const child = begin('setsid', ['--ctty', ...command], [slave, slave, slave], {
    openFiles: OPEN_FILES_SOFT
  })
  terminal.handOver()
  const streams = {
    output: mergeOutput(output),
    complaints: output,
    write: (bytes: Uint8Array | undefined) => terminal.write(bytes),
    resizeTerminal: (changed: TerminalSize) => terminal.resize(changed)
  }
  return { child, streams }
}

function startFailure(said: string): SlicenetError {
  const message = said.trim().split('\n').at(-1)?.slice(0, 500) ?? ''
  return /not found|no such file|permission denied|exec format|not a directory/i.test(message)
    ? new SlicenetError('PROGRAM_NOT_FOUND', `the program cannot be run: ${message}`)
    : new SlicenetError('VSERVER_FAILED', `the program did not start: ${message}`)
}

/** UTC ms. */
async function timeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ mtimeMs }) => Math.floor(mtimeMs),
    () => 0
  )
}

async function readExit(path: string): Promise<ProgramExit | undefined> {
  const exitCode = await readNumber(path)
  if (exitCode === undefined) return undefined
  return { exitCode, exitedAt: await timeOf(path) }
}

async function text(stream: Readable): Promise<string> {
  let content = ''
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (content.length < 64 * 1024) content += chunk.toString()
  }
  return content
}
