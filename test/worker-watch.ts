/**
 * Ends test files that do not end by themselves, and says what they waited for. Ava's own limit is on the time in which no test
 * ends anywhere, and is lost for good where it passes while any test has asked for longer.
 */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { sweepAndTell } from './linux/dead-runs.ts'

/** The parts of Node's diagnostic report that are shown. */
interface Report {
  readonly javascriptStack?: { readonly stack?: readonly string[] }
  readonly libuv?: readonly (Readonly<Record<string, unknown>> & {
    readonly is_active: boolean
    readonly is_referenced: boolean
  })[]
}

export interface WatchInit {
  /** How long a file may take. */
  readonly limitMs: number
  /** An existing directory, the one that `reportingArguments` was given. */
  readonly reports: string
  /** Default 10 s. */
  readonly lookMs?: number
  /** How long a process has to say what it waits for; default 5 s. */
  readonly reportMs?: number
}

const LOOK_MS = 10_000
const REPORT_MS = 5_000
const GONE_MS = 5_000
const GONE_LOOK_MS = 20
const ARGUMENTS_SHOWN = 200
const HANDLES_SHOWN = 20

/** Arguments for Node with which a test process can be asked what it waits for. */
export function reportingArguments(directory: string): string[] {
  return [
    '--report-on-signal',
    '--report-signal=SIGUSR2',
    '--report-compact',
    `--report-directory=${directory}`
  ]
}

/** Watches the processes that ava starts from this one, each for one test file. */
export function watchWorkers(init: WatchInit): void {
  const seen = new Map<number, number>()
  const look = (): void => {
    const processes = readProcesses()
    const workers = processes.filter(
      ({ parent, args }) => parent === process.pid && args.includes('ava/lib/worker')
    )
    for (const pid of seen.keys()) if (!workers.some((worker) => worker.pid === pid)) seen.delete(pid)
    for (const { pid } of workers) {
      const since = seen.get(pid) ?? performance.now()
      seen.set(pid, since)
      if (performance.now() - since < init.limitMs) continue
      seen.set(pid, Infinity)
      void end(pid, init)
    }
  }
  setInterval(look, init.lookMs ?? LOOK_MS).unref()
}

/** Ava tells which file it was, and fails. What the file started and made goes with it. */
async function end(pid: number, { reports, reportMs = REPORT_MS }: WatchInit): Promise<void> {
  signal(pid, 'SIGUSR2')
  await delay(reportMs)
  const started = below(pid, readProcesses())
  const told = [
    `test process ${pid} does not end; below it run:`,
    ...started.map(
      (each) => `${each.pid} of ${each.parent}, ${each.state}: ${each.args.slice(0, ARGUMENTS_SHOWN)}`
    ),
    ...readReport(reports, pid)
  ]
  process.stderr.write(`${told.join('\n  ')}\n`)
  for (const each of [pid, ...started.map((process) => process.pid)]) signal(each, 'SIGKILL')
  for (let waited = 0; waited < GONE_MS && existsSync(`/proc/${pid}`); waited += GONE_LOOK_MS) {
    await delay(GONE_LOOK_MS)
  }
  await sweepAndTell()
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It ended by itself meanwhile.
  }
}

interface Process {
  readonly pid: number
  readonly parent: number
  readonly state: string
  readonly args: string
}

function readProcesses(): Process[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
        const [state = '', parent = ''] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
        const args = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ')
        return [{ pid: Number(name), parent: Number(parent), state, args }]
      } catch {
        return []
      }
    })
}

function below(pid: number, processes: readonly Process[]): Process[] {
  return processes
    .filter(({ parent }) => parent === pid)
    .flatMap((each) => [each, ...below(each.pid, processes)])
}

/** None where it did not come to write one: it runs without a pause. */
function readReport(directory: string, pid: number): string[] {
  const name = readdirSync(directory).find((file) => file.includes(`.${pid}.`))
  if (name === undefined) return ['it gave no report: it runs without a pause']
  const text = readFileSync(join(directory, name), 'utf8')
  rmSync(join(directory, name))
  let report: Report
  try {
    report = JSON.parse(text) as Report
  } catch {
    return ['it did not come to the end of its report']
  }
  const { javascriptStack, libuv } = report
  const handles = (libuv ?? []).filter(({ is_active, is_referenced }) => is_active && is_referenced)
  return [
    'it is in:',
    ...(javascriptStack?.stack ?? []),
    `it waits for (${handles.length}):`,
    ...handles.slice(0, HANDLES_SHOWN).map((handle) => JSON.stringify(handle))
  ]
}
