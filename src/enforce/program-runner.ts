/**
 * Runs programs in vservers. The launched one runs under conmon, so that it outlives the daemon, its log is bounded and
 * its exit code is kept; others run attached to their caller.
 */
import { once } from 'node:events'
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { begin } from '../base/host-program.ts'
import type { Child } from '../base/posix-spawn.ts'
import { LIMITS } from '../base/limits.ts'
import { isProcessInCgroup } from './cgroup.ts'
import type { ExecSession, ProgramExit, TerminalSize } from './enforcer.ts'
import { findHostProgram } from './host-requirements.ts'
import { OPEN_FILES_SOFT, type OciRuntime } from './oci-runtime.ts'
import { mergeOutput } from './output.ts'
import { signalProcess } from './syscall.ts'
import { HostTerminal } from './terminal.ts'

const START_POLL_MS = 2
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
  /** Path below the top of each cgroup hierarchy. */
  readonly cgroupPath: string
  /** Of this vserver's launched program alone. */
  readonly directory: string
  /** The runtime specification's process object. */
  readonly process: Record<string, unknown>
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
    const { directory, container } = init
    const past =
      init.again === true ? ['exit', 'pid', 'keeper'].map((name) => join(directory, name)) : [directory]
    const [runtimePath] = await Promise.all([
      findHostProgram(this.#runtime.name),
      ...past.map(async (path) => rm(path, { recursive: true, force: true }))
    ])
    await mkdir(join(directory, 'exit'), { recursive: true, mode: 0o700 })
    const specification = join(directory, 'process.json')
    await writeFile(specification, JSON.stringify(init.process), { mode: 0o600 })
    const args = ['--api-version', '1', '--exec', '--cid', container, '--cuuid', container]
    args.push('--runtime', runtimePath ?? this.#runtime.name)
    args.push(...this.#runtime.globalArgs.map((arg) => `--runtime-arg=${arg}`))
    args.push('--exec-process-spec', specification)
    args.push('--container-pidfile', join(directory, 'pid'), '--conmon-pidfile', join(directory, 'keeper'))
    args.push('--exit-dir', join(directory, 'exit'), '--no-sync-log')
    args.push('--log-path', `k8s-file:${this.logPath(directory)}`)
    args.push('--log-size-max', String(LIMITS.logBytesPerVserverMax))
    const report = await this.#startKeeper(args, directory)
    if (report.pid > 0) return
    if (init.again !== true) await rm(directory, { recursive: true, force: true })
    throw startFailure(report.message)
  }

  /** The keeper says the program's pid on a pipe, or a negative number and why it did not start. */
  async #startKeeper(
    args: readonly string[],
    directory: string
  ): Promise<{ readonly pid: number; readonly message: string }> {
    const child = begin('conmon', args, ['ignore', 'ignore', 'pipe', 'pipe'], {
      cwd: directory,
      env: { _OCI_SYNCPIPE: '3' },
      openFiles: OPEN_FILES_SOFT
    })
    const [, , complaints, pipe] = child.streams as [undefined, undefined, Readable, Readable]
    const timer = setTimeout(
      () => pipe.destroy(new Error('conmon did not report in time')),
      START_DEADLINE_MS
    )
    let said = ''
    complaints.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-2000)))
    try {
      const line = await firstLine(pipe)
      const report = JSON.parse(line === '' ? '{"data":-1}' : line) as { data: number; message?: string }
      return { pid: report.data, message: report.message ?? said }
    } finally {
      clearTimeout(timer)
      pipe.destroy()
      complaints.destroy()
    }
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
    const keeper = await readNumber(join(directory, 'keeper'))
    if (keeper === undefined) return
    const deadline = this.#clock.monotonic() + GRACE_MS
    while (await isKeeper(keeper, directory)) {
      if (this.#clock.monotonic() > deadline) {
        signalProcess(keeper, SIGKILL, () => true)
        return
      }
      await this.#clock.sleep(START_POLL_MS)
    }
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
  async exec(init: LaunchInit & { readonly terminal?: TerminalSize | undefined }): Promise<ExecSession> {
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

/** Whether `pid` is the conmon of the program in `directory`, and not a later process with its number. */
async function isKeeper(pid: number, directory: string): Promise<boolean> {
  const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return commandLine.split('\0').includes(join(directory, 'exit'))
}

async function readNumber(path: string): Promise<number | undefined> {
  const content = await readFile(path, 'utf8').catch(() => '')
  return /^\d+$/.test(content.trim()) ? Number(content) : undefined
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

async function firstLine(stream: Readable): Promise<string> {
  let content = ''
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    content += chunk.toString()
    const end = content.indexOf('\n')
    if (end >= 0) return content.slice(0, end)
  }
  return content
}

async function text(stream: Readable): Promise<string> {
  let content = ''
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (content.length < 64 * 1024) content += chunk.toString()
  }
  return content
}
