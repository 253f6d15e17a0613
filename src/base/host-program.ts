/**
 * Runs the programs of the host (nft, ip, tc, an OCI runtime, ...). This is the only file that spawns processes, so
 * that every program gets an argument vector (never a shell line), a clean environment, a limit on its output and a
 * deadline.
 */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process'
import { channel } from 'node:diagnostics_channel'
import { accessSync, constants } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { SlicenetError } from './errors.ts'
import { posixSpawn, SpawnError, type Child, type ChildDescriptor } from './posix-spawn.ts'

/** Where host programs are looked for; the caller's PATH is not trusted. */
export const HOST_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024
const DEADLINE_MS = 60_000
const ENOENT = 2

/** Where each program that this process runs is told of, for whoever watches it: `HostProgramEvent`. */
export const HOST_PROGRAM_CHANNEL = 'slicenet:host-program'

export interface HostProgramEvent {
  readonly program: string
  readonly args: readonly string[]
  /** `ended` comes before whoever waits for it goes on. */
  readonly moment: 'begun' | 'ended'
}

const watchers = channel(HOST_PROGRAM_CHANNEL)

export interface ProgramOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** How many files it may have open unless it raises that itself (RLIMIT_NOFILE); default what this process may. */
  readonly openFiles?: number | undefined
}

export interface RunOptions extends ProgramOptions {
  readonly input?: string | Uint8Array
  /** Default 60 s, after which the program is killed and `HOST_PROGRAM_FAILED` thrown. */
  readonly deadlineMs?: number
  readonly signal?: AbortSignal
  /** For one that leaves a child behind, which would keep our ends of its descriptors open: it is given none. */
  readonly silent?: boolean
}

export interface RunResult {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * Runs a program to its end and gives what it printed, whatever its exit code.
 * Throws `HOST_PROGRAM_MISSING`, or `HOST_PROGRAM_FAILED` when it was killed or printed more than 16 MiB.
 */
export async function runAnyway(
  program: string,
  args: readonly string[],
  options: RunOptions = {}
): Promise<RunResult> {
  options.signal?.throwIfAborted()
  const descriptor: ChildDescriptor = options.silent === true ? 'ignore' : 'pipe'
  const child = begin(program, args, [descriptor, descriptor, descriptor], options)
  const [stdin, ...streams] = child.streams
  const outputs = streams.map((stream) => new Output(stream, program))
  const kill = (): void => {
    child.kill('SIGKILL')
    // Whoever it leaves behind may keep them open for good.
    for (const output of outputs) output.giveUp()
  }
  const timer = setTimeout(kill, options.deadlineMs ?? DEADLINE_MS)
  options.signal?.addEventListener('abort', kill, { once: true })
  try {
    // A program that ends without reading its input is judged by its exit code.
    stdin?.on('error', () => {})
    stdin?.end(options.input ?? '')
    const [end, stdout = '', stderr = ''] = await Promise.all([
      child.ended,
      ...outputs.map(async (output) => output.gather(kill))
    ])
    options.signal?.throwIfAborted()
    if (end.exitCode === undefined) {
      throw new SlicenetError('HOST_PROGRAM_FAILED', `${program} was killed by ${end.signal ?? 'a signal'}`, {
        details: { program, args, stderr: stderr.slice(0, 2000) }
      })
    }
    return { exitCode: end.exitCode, stdout, stderr }
  } finally {
    clearTimeout(timer)
    options.signal?.removeEventListener('abort', kill)
  }
}

/** Runs a program to its end and gives its standard output. Throws `HOST_PROGRAM_FAILED` unless it exits with 0. */
export async function run(
  program: string,
  args: readonly string[],
  options: RunOptions = {}
): Promise<string> {
  const result = await runAnyway(program, args, options)
  if (result.exitCode !== 0) {
    const said = (result.stderr || result.stdout).trim().slice(0, 2000)
    throw new SlicenetError('HOST_PROGRAM_FAILED', `${program} exited with ${result.exitCode}: ${said}`, {
      details: { program, args, exitCode: result.exitCode }
    })
  }
  return result.stdout
}

/**
 * Starts a program and leaves its descriptors to the caller, who must wait for its end and read what it says.
 * Throws `HOST_PROGRAM_MISSING`.
 */
export function begin(
  program: string,
  args: readonly string[],
  descriptors: readonly ChildDescriptor[],
  options: ProgramOptions = {}
): Child {
  const env = environment(options)
  const file = findProgram(program, env['PATH'] ?? HOST_PATH)
  try {
    if (file === undefined) throw new SpawnError('posix_spawn', ENOENT, program)
    const child = posixSpawn({ ...limited(file, args, options), env, descriptors, cwd: options.cwd })
    watchers.publish({ program, args, moment: 'begun' } satisfies HostProgramEvent)
    const ended = child.ended.then((end) => {
      watchers.publish({ program, args, moment: 'ended' } satisfies HostProgramEvent)
      return end
    })
    return { ...child, ended }
  } catch (error) {
    if (!(error instanceof SpawnError) || error.code !== 'ENOENT') throw error
    throw new SlicenetError('HOST_PROGRAM_MISSING', `the program ${program} is not installed`, {
      hint: 'run `slicenet doctor --install`',
      details: { program },
      cause: error
    })
  }
}

/**
 * As `begin`, with Node's own child process: for what is read piece by piece for long. A program that does not exist shows as an
 * `error` event on the child.
 */
export function start(
  program: string,
  args: readonly string[],
  stdio: StdioOptions,
  options: ProgramOptions & { readonly detached?: boolean } = {}
): ChildProcess {
  return spawn(program, args, {
    stdio,
    env: environment(options),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    detached: options.detached ?? false
  })
}

function limited(
  file: string,
  args: readonly string[],
  { openFiles }: ProgramOptions
): { readonly file: string; readonly argv: readonly string[] } {
  if (openFiles === undefined) return { file, argv: [file, ...args] }
  return { file: '/usr/bin/prlimit', argv: ['prlimit', `--nofile=${openFiles}:`, file, ...args] }
}

function environment({ env }: ProgramOptions): Record<string, string> {
  return { PATH: HOST_PATH, LC_ALL: 'C.UTF-8', ...env }
}

function findProgram(program: string, path: string): string | undefined {
  if (program.includes('/')) return program
  return path
    .split(':')
    .map((directory) => join(directory, program))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

/** What a program prints on one of its descriptors. */
class Output {
  readonly #stream: Socket | undefined
  readonly #program: string
  #isGivenUp = false

  constructor(stream: Socket | undefined, program: string) {
    this.#stream = stream
    this.#program = program
  }

  giveUp(): void {
    this.#isGivenUp = true
    this.#stream?.destroy()
  }

  /** Until nobody has the other end any more, or it is given up. `kill` ends a program that prints too much. */
  async gather(kill: () => void): Promise<string> {
    const chunks: Buffer[] = []
    let size = 0
    try {
      for await (const chunk of (this.#stream ?? []) as AsyncIterable<Buffer>) {
        size += chunk.length
        chunks.push(chunk)
        if (size <= OUTPUT_BYTES_MAX) continue
        kill()
        const message = `${this.#program} printed more than ${OUTPUT_BYTES_MAX} bytes`
        throw new SlicenetError('HOST_PROGRAM_FAILED', message)
      }
    } catch (error) {
      if (!this.#isGivenUp || error instanceof SlicenetError) throw error
    }
    return Buffer.concat(chunks).toString('utf8')
  }
}
