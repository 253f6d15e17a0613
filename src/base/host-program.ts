/**
 * Runs the programs of the host (nft, ip, tc, an OCI runtime, ...). This is the only file that spawns processes, so
 * that every program gets an argument vector (never a shell line), a clean environment, a limit on its output and a
 * deadline.
 */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process'
import { once } from 'node:events'
import { SlicenetError } from './errors.ts'

/** Where host programs are looked for; the caller's PATH is not trusted. */
export const HOST_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024
const DEADLINE_MS = 60_000

export interface RunOptions {
  readonly input?: string | Uint8Array
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Default 60 s, after which the program is killed and `HOST_PROGRAM_FAILED` thrown. */
  readonly deadlineMs?: number
  readonly signal?: AbortSignal
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
  const child = start(program, args, ['pipe', 'pipe', 'pipe'], options)
  const timer = setTimeout(() => child.kill('SIGKILL'), options.deadlineMs ?? DEADLINE_MS)
  const onAbort = (): void => void child.kill('SIGKILL')
  options.signal?.addEventListener('abort', onAbort, { once: true })
  try {
    // A program that ends without reading its input is judged by its exit code.
    child.stdin?.on('error', () => {})
    child.stdin?.end(options.input)
    const [stdout, stderr] = await Promise.all([
      gather(child, 'stdout'),
      gather(child, 'stderr'),
      ended(child, program)
    ])
    options.signal?.throwIfAborted()
    if (child.exitCode === null) {
      throw new SlicenetError(
        'HOST_PROGRAM_FAILED',
        `${program} was killed by ${child.signalCode ?? 'a signal'}`,
        {
          details: { program, args, stderr: stderr.slice(0, 2000) }
        }
      )
    }
    return { exitCode: child.exitCode, stdout, stderr }
  } finally {
    clearTimeout(timer)
    options.signal?.removeEventListener('abort', onAbort)
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
 * Starts a program and leaves its streams to the caller. The caller must wait for its end.
 * A program that does not exist shows as an `error` event on the child.
 */
export function start(
  program: string,
  args: readonly string[],
  stdio: StdioOptions,
  options: {
    readonly env?: Readonly<Record<string, string>>
    readonly cwd?: string
    readonly detached?: boolean
  } = {}
): ChildProcess {
  return spawn(program, args, {
    stdio,
    env: { PATH: HOST_PATH, LC_ALL: 'C.UTF-8', ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    detached: options.detached ?? false
  })
}

async function ended(child: ChildProcess, program: string): Promise<void> {
  try {
    await once(child, 'close')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new SlicenetError('HOST_PROGRAM_MISSING', `the program ${program} is not installed`, {
        hint: 'run `slicenet doctor --install`',
        details: { program },
        cause: error
      })
    }
    throw error
  }
}

async function gather(child: ChildProcess, name: 'stdout' | 'stderr'): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  const stream = child[name]
  if (stream === null) return ''
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > OUTPUT_BYTES_MAX) {
      child.kill('SIGKILL')
      throw new SlicenetError(
        'HOST_PROGRAM_FAILED',
        `${child.spawnfile} printed more than ${OUTPUT_BYTES_MAX} bytes`
      )
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
