/** A devnet for benchmarks, brought up and taken down by the commands that a user types, each seen through to its end. */
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { start } from '../../src/base/host-program.ts'
import { createControlClient, type ControlCaller } from '../../src/daemon/control-client.ts'
import type { DevnetView } from '../../src/daemon/devnet.ts'
import type { BenchContext } from './figure.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
/** Of the environment, what says where state and images are. */
const PASSED_ON = ['HOME', 'SLICENET_HOME', 'SLICENET_IMAGES', 'XDG_STATE_HOME', 'XDG_CONFIG_HOME']

export interface DevnetInit {
  readonly name: string
  readonly nodes: number
  readonly agents: number
}

export interface BenchDevnet {
  /** From the command's start to its end, at which the devnet is ready. */
  readonly upMs: number
  readonly view: DevnetView
  /** Calls the daemon of the researcher's host. */
  readonly researcher: ControlCaller
}

/** Brings a devnet up, hands it to `use`, and takes it down whatever happens. */
export async function withDevnet<T>(
  init: DevnetInit,
  context: BenchContext,
  use: (devnet: BenchDevnet) => Promise<T>
): Promise<T> {
  const { name, nodes, agents } = init
  // What an earlier run that was killed left behind.
  if ((await slicenet(['devnet', 'status', '--name', name])).exitCode === 0) await down(name)
  try {
    const began = performance.now()
    const words = ['devnet', 'up', '--name', name, '--nodes', String(nodes), '--agents', String(agents)]
    const { devnet } = (await must(words, context.signal)) as { devnet: DevnetView }
    const upMs = performance.now() - began
    const researcher = devnet.hosts.find(({ roles }) => roles.length === 0)
    if (researcher === undefined) throw new TypeError('a devnet has a researcher')
    const { socketPath } = researcher
    return await use({ upMs, view: devnet, researcher: createControlClient({ socketPath }) })
  } finally {
    // A start that was interrupted or failed has taken it down by itself.
    if ((await slicenet(['devnet', 'status', '--name', name])).exitCode === 0) await down(name)
  }
}

/** Content id of the image of that name, which is built first if this machine lacks it. */
export async function imageNamed(name: string, context: BenchContext): Promise<string> {
  const find = async (): Promise<string | undefined> => {
    const { images } = (await must(['image', 'list'])) as {
      images: readonly { id: string; names: readonly string[] }[]
    }
    return images.find(({ names }) => names.includes(name))?.id
  }
  const found = await find()
  if (found !== undefined) return found
  context.progress(`building the image ${name}`)
  await must(['image', 'build', name], context.signal)
  const built = await find()
  if (built === undefined) throw new Error(`the image ${name} was built and is not there`)
  return built
}

async function down(name: string): Promise<void> {
  await must(['devnet', 'down', '--name', name])
}

async function must(words: readonly string[], signal?: AbortSignal): Promise<Record<string, unknown>> {
  const { exitCode, stdout } = await slicenet(words, signal)
  signal?.throwIfAborted()
  if (exitCode !== 0) throw new Error(`slicenet ${words.join(' ')} exited with ${exitCode}: ${stdout.trim()}`)
  return JSON.parse(stdout) as Record<string, unknown>
}

/** An abort interrupts the command, which then clears up before it ends. */
async function slicenet(
  words: readonly string[],
  signal?: AbortSignal
): Promise<{ readonly exitCode: number; readonly stdout: string }> {
  signal?.throwIfAborted()
  const env: Record<string, string> = {}
  for (const name of PASSED_ON) {
    const value = process.env[name]
    if (value !== undefined) env[name] = value
  }
  // In a process group of its own: Ctrl-C reaches it once, through the signal.
  const options = { env, detached: true }
  const child = start(process.execPath, [MAIN, ...words, '--json'], ['ignore', 'pipe', 'ignore'], options)
  const onAbort = (): void => void child.kill('SIGINT')
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    const chunks: Buffer[] = []
    child.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk))
    const [code] = (await once(child, 'close')) as [number | null]
    return { exitCode: code ?? 1, stdout: Buffer.concat(chunks).toString('utf8') }
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
}
