/**
 * The keeper of a launched program: a conmon of its own, which outlives the daemon, writes the program's log in bounded files and
 * keeps its exit code.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Socket } from 'node:net'
import type { Clock } from '../base/clock.ts'
import { begin } from '../base/host-program.ts'
import { LIMITS } from '../base/limits.ts'
import { findHostProgram } from './host-requirements.ts'
import { OPEN_FILES_SOFT, type OciRuntime } from './oci-runtime.ts'
import { readProcFile } from './process-list.ts'
import { signalProcess } from './syscall.ts'
import { ORDERS_FD, type OciProcess } from './waiting-start.ts'

const REPORT_DEADLINE_MS = 15_000
const GRACE_MS = 5_000
const POLL_MS = 2
const SIGKILL = 9

export interface KeeperInit {
  /** The vserver's, as the runtime knows it. */
  readonly container: string
  /** Of this vserver's launched program alone. */
  readonly directory: string
  readonly process: OciProcess
  /** Where the program's process id goes. */
  readonly pidFile: string
  /** Whether the program gets a descriptor on which it is told more. Default false. */
  readonly isWaiting?: boolean
}

/** What a keeper said of the program that it was to start. */
export interface KeeperReport {
  /** Negative when it did not start. */
  readonly pid: number
  readonly message: string
  /** Our end of the descriptor of one that waits. */
  readonly orders?: Socket
}

export async function startKeeper(runtime: OciRuntime, init: KeeperInit): Promise<KeeperReport> {
  const { directory, isWaiting = false } = init
  const args = await keeperArgs(runtime, init)
  const written = isWaiting ? (['written'] as const) : []
  const child = begin('conmon', args, ['ignore', 'ignore', 'pipe', ...written, 'pipe'], {
    cwd: directory,
    env: { _OCI_SYNCPIPE: String(ORDERS_FD + written.length) },
    openFiles: OPEN_FILES_SOFT
  })
  const { streams } = child
  const [complaints, pipe] = [streams[2]!, streams.at(-1)!]
  const orders = isWaiting ? streams[ORDERS_FD] : undefined
  // Whoever it is for ends when it will, and holds up nobody.
  orders?.on('error', () => {})
  orders?.unref()
  const timer = setTimeout(() => pipe.destroy(new Error('conmon did not report in time')), REPORT_DEADLINE_MS)
  let said = ''
  complaints.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-2000)))
  try {
    const line = await firstLine(pipe)
    const report = JSON.parse(line === '' ? '{"data":-1}' : line) as { data: number; message?: string }
    const told = { pid: report.data, message: report.message ?? said }
    return orders === undefined ? told : { ...told, orders }
  } catch (error) {
    orders?.destroy()
    throw error
  } finally {
    clearTimeout(timer)
    pipe.destroy()
    complaints.destroy()
  }
}

/** Resolves when the keeper is gone, whose program was ended. */
export async function settleKeeper(clock: Clock, directory: string): Promise<void> {
  const keeper = await readNumber(join(directory, 'keeper'))
  if (keeper === undefined) return
  const deadline = clock.monotonic() + GRACE_MS
  while (await isKeeper(keeper, directory)) {
    if (clock.monotonic() > deadline) {
      signalProcess(keeper, SIGKILL, () => true)
      return
    }
    await clock.sleep(POLL_MS)
  }
}

/** Whether `pid` is the conmon of the program in `directory`, and not a later process with its number. */
export async function isKeeper(pid: number, directory: string): Promise<boolean> {
  const commandLine = await readProcFile(pid, 'cmdline')
  return commandLine.split('\0').includes(join(directory, 'exit'))
}

/** A file that holds one whole number. */
export async function readNumber(path: string): Promise<number | undefined> {
  const content = await readFile(path, 'utf8').catch(() => '')
  return /^\d+$/.test(content.trim()) ? Number(content) : undefined
}

/** Writes down what is to be run, and gives the arguments for who runs it. */
async function keeperArgs(runtime: OciRuntime, init: KeeperInit): Promise<string[]> {
  const { directory, container, process, pidFile } = init
  await mkdir(join(directory, 'exit'), { recursive: true, mode: 0o700 })
  const specification = join(directory, 'process.json')
  await writeFile(specification, JSON.stringify(process), { mode: 0o600 })
  const runtimePath = await findHostProgram(runtime.name)
  const args = ['--api-version', '1', '--exec', '--cid', container, '--cuuid', container]
  args.push('--runtime', runtimePath ?? runtime.name)
  args.push(...runtime.globalArgs.map((arg) => `--runtime-arg=${arg}`))
  args.push('--exec-process-spec', specification)
  args.push('--container-pidfile', pidFile, '--conmon-pidfile', join(directory, 'keeper'))
  args.push('--exit-dir', join(directory, 'exit'), '--no-sync-log')
  args.push('--log-path', `k8s-file:${join(directory, 'log')}`)
  args.push('--log-size-max', String(LIMITS.logBytesPerVserverMax))
  if (init.isWaiting === true) args.push('--runtime-opt', '--preserve-fds', '--runtime-opt', '1')
  return args
}

async function firstLine(stream: Socket): Promise<string> {
  let content = ''
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    content += chunk.toString()
    const end = content.indexOf('\n')
    if (end >= 0) return content.slice(0, end)
  }
  return content
}
