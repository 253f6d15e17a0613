/**
 * The main job on one machine, with the commands that a user would type: a devnet of 4 nodes and 2 competing agents, a
 * slice of 3 vservers with tickets of both, a program that measures the network between them, and nothing left at the
 * end. With `--json` one document: `{slice, members: [{node, agent, lease, vserver, exitCode, stdout}], steps: [{name,
 * ms}], leftovers: []}`.
 */
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { start } from '../../src/base/host-program.ts'
import { devnetLeftovers } from '../../src/daemon/devnet-leftovers.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const EXAMPLE = fileURLToPath(new URL('../examples/mesh', import.meta.url))
const DEVNET = 'demo'
const SLICE = 'mesh'
const IMAGE = 'debian'
const PROGRAM_MS_MAX = 90_000

interface Member {
  readonly node: string
  readonly nodeName: string
  readonly agent: string
  readonly agentName: string
  readonly lease: string
  readonly vserver: string
  readonly address: string
  readonly notAfter: string
  readonly exitCode?: number
}

interface Outcome {
  readonly exitCode: number
  readonly stdout: string
}

const wantsJson = process.argv.includes('--json')
const steps: { name: string; ms: number }[] = []
const say = (text: string): void => void process.stderr.write(`${text}\n`)

/** Runs a slicenet command and gives what it printed; its progress goes to the terminal. */
async function slicenet(words: readonly string[]): Promise<Outcome> {
  const env: Record<string, string> = {}
  for (const name of ['HOME', 'SLICENET_HOME', 'SLICENET_IMAGES', 'XDG_STATE_HOME', 'XDG_CONFIG_HOME']) {
    const value = process.env[name]
    if (value !== undefined) env[name] = value
  }
  const child = start(process.execPath, [MAIN, ...words], ['ignore', 'pipe', 'inherit'], { env })
  const chunks: Buffer[] = []
  child.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk))
  const [code] = (await once(child, 'close')) as [number | null]
  return { exitCode: code ?? 1, stdout: Buffer.concat(chunks).toString('utf8') }
}

/** A command whose failure ends the demo. Gives its JSON document. */
async function must(words: readonly string[]): Promise<Record<string, unknown>> {
  const { exitCode, stdout } = await slicenet([...words, '--json'])
  if (exitCode !== 0) throw new Error(`slicenet ${words.join(' ')} exited with ${exitCode}: ${stdout.trim()}`)
  return JSON.parse(stdout) as Record<string, unknown>
}

/** The same on the researcher's host. */
const asResearcher = (words: readonly string[]): string[] => [
  'devnet',
  'exec',
  '--name',
  DEVNET,
  '--',
  'slicenet',
  ...words
]

async function mustAsResearcher(words: readonly string[]): Promise<Record<string, unknown>> {
  const { exitCode, stdout } = await slicenet(asResearcher([...words, '--json']))
  if (exitCode !== 0) throw new Error(`slicenet ${words.join(' ')} exited with ${exitCode}: ${stdout.trim()}`)
  return JSON.parse(stdout) as Record<string, unknown>
}

async function step<T>(name: string, title: string, work: () => Promise<T>): Promise<T> {
  say(`\n— ${title}`)
  const began = performance.now()
  try {
    return await work()
  } finally {
    steps.push({ name, ms: Math.round(performance.now() - began) })
  }
}

/** Prints what a command shows a person. */
async function show(words: readonly string[]): Promise<void> {
  say(`$ slicenet ${words.join(' ')}`)
  const { stdout } = await slicenet(asResearcher(words))
  say(stdout.trimEnd())
}

async function ensureImage(): Promise<void> {
  const { images } = (await must(['image', 'list'])) as { images: readonly { names: readonly string[] }[] }
  if (images.some(({ names }) => names.includes(IMAGE))) return
  await must(['image', 'build', IMAGE])
}

async function programEnds(): Promise<readonly Member[]> {
  const deadline = performance.now() + PROGRAM_MS_MAX
  for (;;) {
    const { slice } = (await mustAsResearcher(['slice', 'show', SLICE])) as {
      slice: { members: readonly Member[] }
    }
    if (slice.members.every(({ exitCode }) => exitCode !== undefined)) return slice.members
    if (performance.now() > deadline) throw new Error('the program did not end')
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}

async function outputOf(member: Member): Promise<string> {
  const words = ['slice', 'logs', SLICE, '--member', member.nodeName]
  const { stdout } = await slicenet(asResearcher(words))
  return stdout
}

async function mainJob(): Promise<Record<string, unknown>> {
  await step('find', 'the researcher finds nodes', () => show(['find', 'node.cpu.free >= 200']))
  const file = join(EXAMPLE, 'mesh.yaml')
  await step('create', `a slice of three: tickets, leases, vservers, program (${file})`, () =>
    mustAsResearcher(['slice', 'create', file])
  )
  const members = await step('run', 'the program measures the network between its vservers', programEnds)
  await show(['slice', 'show', SLICE])
  const stdouts = await Promise.all(members.map(outputOf))
  say(`\nwhat ${members[0]?.nodeName} printed:\n${stdouts[0] ?? ''}`)
  await step('delete', 'the slice is deleted', () => mustAsResearcher(['slice', 'delete', SLICE]))
  return {
    slice: SLICE,
    members: members.map(({ node, agent, lease, vserver, exitCode }, index) => ({
      node,
      agent,
      lease,
      vserver,
      exitCode,
      stdout: stdouts[index]
    }))
  }
}

/** Ends early in order when interrupted: the devnet comes down before the process does. */
async function main(): Promise<number> {
  let interrupted = false
  process.on('SIGINT', () => (interrupted = true))
  process.on('SIGTERM', () => (interrupted = true))
  await step('image', 'the reference image', ensureImage)
  // What an earlier demo that was killed left behind.
  if ((await slicenet(['devnet', 'status', '--name', DEVNET, '--json'])).exitCode === 0) {
    await must(['devnet', 'down', '--name', DEVNET])
  }
  let result: Record<string, unknown> | undefined
  let failure: unknown
  try {
    await step('devnet', 'a devnet of 4 nodes, 2 agents of 2 organisations and a researcher', () =>
      must(['devnet', 'up', '--name', DEVNET, '--nodes', '4', '--agents', '2'])
    )
    if (!interrupted) result = await mainJob()
  } catch (error) {
    failure = error
  }
  await step('down', 'the devnet is taken down', () => slicenet(['devnet', 'down', '--name', DEVNET]))
  const leftovers = await devnetLeftovers(DEVNET)
  say(`\nleft on the machine: ${leftovers.length === 0 ? 'nothing' : JSON.stringify(leftovers)}`)
  for (const { name, ms } of steps) say(`${name.padEnd(10)}${String(ms).padStart(7)} ms`)
  if (failure !== undefined) throw failure
  if (result === undefined) throw new Error('interrupted')
  if (wantsJson) process.stdout.write(`${JSON.stringify({ ...result, steps, leftovers }, null, 2)}\n`)
  const members = result['members'] as readonly { agent: string; exitCode: number }[]
  const sound =
    members.length === 3 &&
    members.every(({ exitCode }) => exitCode === 0) &&
    new Set(members.map(({ agent }) => agent)).size === 2 &&
    leftovers.length === 0
  say(sound ? '\nThe demo succeeded.' : '\nThe demo FAILED: see above.')
  return sound ? 0 : 1
}

try {
  process.exitCode = await main()
} catch (error) {
  say(`\nThe demo FAILED: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
