/** Ava is run over a file that does not end, in a project of its own, with the watch and without. */
import { once } from 'node:events'
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { start } from '../src/base/host-program.ts'
import { isAlive } from '../src/enforce/process-list.ts'
import { ownDirectory } from './linux/own-names.ts'

const MODULES = fileURLToPath(new URL('../node_modules', import.meta.url))
const AVA = join(MODULES, '.bin/ava')
const WATCH = new URL('worker-watch.ts', import.meta.url).href
const WATCHED = { limitMs: 1000, lookMs: 100, reportMs: 1000 }
/** What a run without the watch is given from when the file is where it hangs: more than twice what one with it takes. */
const WAITED_MS = 5000
const DEADLINE_MS = 60_000

/** Waits for a timer and a program, for which it asks ten minutes of ava. */
const HANGING = `
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import test from 'ava'
test('hangs', async (t) => {
  t.timeout(600_000)
  mkdirSync(process.env.TMPDIR + '/slicenet-zzthang' + process.pid)
  const program = spawn('sleep', ['613'], { stdio: 'ignore' })
  process.stderr.write('it started ' + program.pid + '\\n')
  await new Promise((resolve) => setTimeout(resolve, 600_000))
})
`

const config = (reports: string, isWatched: boolean): string => `
import { reportingArguments, watchWorkers } from ${JSON.stringify(WATCH)}
const reports = ${JSON.stringify(reports)}
if (${isWatched}) watchWorkers({ ...${JSON.stringify(WATCHED)}, reports })
export default { workerThreads: false, cache: false, timeout: '3m', nodeArguments: reportingArguments(reports) }
`

interface Run {
  /** Undefined where it did not end in time and was ended. */
  readonly exitCode: number | undefined
  readonly output: string
  /** The program that the file started, and whether it goes on. */
  readonly program: number
  readonly isProgramThere: boolean
}

async function runAva(isWatched: boolean): Promise<Run> {
  const directory = await ownDirectory('watch')
  const reports = join(directory, 'reports')
  await mkdir(reports)
  await symlink(MODULES, join(directory, 'node_modules'))
  await writeFile(join(directory, 'package.json'), '{ "type": "module" }')
  await writeFile(join(directory, 'ava.config.js'), config(reports, isWatched))
  await writeFile(join(directory, 'hanging.test.js'), HANGING)
  const env = { HOME: directory, TMPDIR: directory }
  const child = start(process.execPath, [AVA], ['ignore', 'pipe', 'pipe'], {
    cwd: directory,
    env,
    detached: true
  })
  let output = ''
  const hangs = Promise.withResolvers<void>()
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.on('data', (chunk) => {
      output += String(chunk)
      if (output.includes('it started')) hangs.resolve()
    })
  }
  const closed = once(child, 'close')
  const waiting = new AbortController()
  const wait = async (ms: number): Promise<unknown> => delay(ms, 'late', { signal: waiting.signal })
  try {
    const late = Promise.race([
      wait(DEADLINE_MS),
      ...(isWatched ? [] : [hangs.promise.then(async () => wait(WAITED_MS))])
    ])
    late.catch(() => {})
    const isLate = (await Promise.race([closed, late])) === 'late'
    const program = Number(/it started (\d+)/.exec(output)?.[1])
    const exitCode = isLate ? undefined : (child.exitCode ?? -1)
    return { exitCode, output, program, isProgramThere: await staysThere(program) }
  } finally {
    waiting.abort()
    // Ava, the file and the program are in one process group.
    try {
      process.kill(-child.pid!, 'SIGKILL')
    } catch {
      // Nobody is in it any more.
    }
    await closed
    await rm(directory, { recursive: true, force: true })
  }
}

async function staysThere(pid: number): Promise<boolean> {
  for (let round = 0; round < 50 && (await isAlive(pid)); round++) await delay(20)
  return isAlive(pid)
}

test('a file that does not end is ended, and what it waits for is said', async (t) => {
  t.timeout(120_000)
  const watched = await runAva(true)
  t.is(watched.exitCode, 1, watched.output)
  t.regex(watched.output, /^test process \d+ does not end; below it run:$/m)
  t.regex(watched.output, new RegExp(`^ +${watched.program} of \\d+, S: sleep 613 $`, 'm'))
  t.regex(watched.output, /^ +it waits for \(\d+\):$/m)
  t.regex(watched.output, new RegExp(`^ +\\{.*"type":"process".*"pid":${watched.program}\\b.*\\}$`, 'm'))
  t.regex(watched.output, /^ +\{.*"type":"timer".*\}$/m)
  t.regex(watched.output, /hanging\.test\.js exited due to SIGKILL/)
  t.false(watched.isProgramThere, 'it was ended with the file')
  if (process.getuid?.() === 0) t.regex(watched.output, /^removed what ended tests left: .*zzthang\d/m)

  const left = await runAva(false)
  t.is(left.exitCode, undefined, left.output)
  t.true(left.isProgramThere, 'it was as far')
  t.notRegex(left.output, /does not end/)
})
