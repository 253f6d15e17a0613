/**
 * A whole overlay on one machine, for trying and testing (design §2): each host is a network namespace of its own
 * with its own daemon process and its own state. What it is made of is written in its directory, so that it can be
 * taken down by its name alone, also after a crash.
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdir, open, readFile, rm, writeFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as v from 'valibot'
import { systemClock } from '../base/clock.ts'
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import { HOST_PATH, start } from '../base/host-program.ts'
import { parse } from '../wire/codec.ts'
import { createControlClient, findNodes } from './control-client.ts'
import { devnetLeftovers, type Leftover } from './devnet-leftovers.ts'
import { createDevnetNetwork, devnetNamespaces, type DevnetNetwork } from './devnet-network.ts'
import { devnetPlan, type PlannedHost } from './devnet-plan.ts'
import type { Environment } from './environment.ts'
import { createKey } from './key-file.ts'

const hostSchema = v.strictObject({
  name: v.string(),
  /** `node`, `agent`, `broker`; none for a researcher's peer. */
  roles: v.array(v.string()),
  address: v.string(),
  /** The NAT that it is behind, if any. */
  gateway: v.exactOptional(v.string()),
  principal: v.string(),
  /** Its `SLICENET_HOME`. */
  state: v.string(),
  socketPath: v.string(),
  pid: v.number()
})
const viewSchema = v.strictObject({ name: v.string(), directory: v.string(), hosts: v.array(hostSchema) })
export type DevnetHost = v.InferOutput<typeof hostSchema>
export type DevnetView = v.InferOutput<typeof viewSchema>

export interface DevnetUpInit {
  readonly name: string
  readonly nodes: number
  readonly agents: number
  /** Default none. */
  readonly brokers?: number
  /** Whether there are a node and a researcher behind NATs as well; default not. */
  readonly nat?: boolean
  /** A host more, `administrator`, who may hold administrative slices. */
  readonly administrator?: boolean
  readonly signal: AbortSignal
  readonly onProgress: (message: string) => void
}

export interface Devnet {
  /** Resolves when every node has delegated to every agent and the researcher's peer knows them all. */
  readonly devnetUp: (init: DevnetUpInit) => Promise<DevnetView>
  /** Ends everything; throws `INTERNAL` naming what is left, which is a defect. */
  readonly devnetDown: (init: {
    readonly name: string
    readonly onProgress: (message: string) => void
  }) => Promise<void>
  readonly devnetStatus: (name: string) => Promise<DevnetView & { readonly running: readonly string[] }>
  /** Runs a program on a host with the terminal's streams, and gives its exit code. */
  readonly devnetExec: (init: {
    readonly name: string
    readonly host?: string
    readonly argv: readonly string[]
  }) => Promise<number>
}

const READY_MS = 60_000
const POLL_MS = 150
const CALL_MS = 5_000
const GIVE_UP_MS = 60_000
const SETTLE_MS = 5_000
const RESEARCHER = 'researcher'

/** The program itself, from the source tree or the build alike. */
const MAIN = fileURLToPath(
  new URL(`../cli/main${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
)

export function createDevnet(environment: Environment): Devnet {
  const directoryOf = (name: string): string => join(environment.stateDirectory, 'devnet', name)
  return {
    devnetUp: (init) => up(init, directoryOf(init.name), environment),
    devnetDown: ({ name, onProgress }) => down(name, directoryOf(name), environment, onProgress),
    async devnetStatus(name) {
      const view = await readView(name, directoryOf(name))
      const answers = await Promise.all(
        view.hosts.map(async (host) => ((await isAnswering(host)) ? [host.name] : []))
      )
      return { ...view, running: answers.flat() }
    },
    async devnetExec({ name, host: wanted = RESEARCHER, argv }) {
      const { hosts, directory } = await readView(name, directoryOf(name))
      const host = hosts.find((each) => each.name === wanted)
      if (host === undefined) {
        const names = hosts.map((each) => each.name).join(', ')
        throw new SlicenetError('NOT_FOUND', `the devnet ${name} has no host ${wanted}`, {
          hint: `it has ${names}`
        })
      }
      return execute(networkOf(name, hosts), host, argv, { directory, environment })
    }
  }
}

async function up(init: DevnetUpInit, directory: string, environment: Environment): Promise<DevnetView> {
  const { name, signal, onProgress } = init
  if (process.getuid?.() !== 0) {
    throw new SlicenetError('NOT_ROOT', 'a devnet makes network namespaces, for which you must be root', {
      hint: 'run it again with sudo'
    })
  }
  if ((await devnetNamespaces(name)).length > 0) {
    throw new SlicenetError('NAME_TAKEN', `the devnet ${name} is up`, {
      hint: `run \`slicenet devnet down --name ${name}\``
    })
  }
  const plan = devnetPlan({ brokers: 0, nat: false, administrator: false, ...init })
  const network = networkOf(name, plan)
  // What an earlier devnet of this name left behind would be found again by its nodes.
  await rm(directory, { recursive: true, force: true })
  await mkdir(directory, { recursive: true, mode: 0o700 })
  try {
    await network.up()
    onProgress(`${plan.length} hosts on a network`)
    signal.throwIfAborted()
    const view = await startHosts(name, plan, network, { directory, environment })
    onProgress(`${plan.length} daemons started`)
    await untilReady(view, signal, onProgress)
    return view
  } catch (error) {
    await down(name, directory, environment, () => {}).catch(() => {})
    throw error
  }
}

interface Place {
  readonly directory: string
  readonly environment: Environment
}

async function startHosts(
  name: string,
  plan: readonly PlannedHost[],
  network: DevnetNetwork,
  place: Place
): Promise<DevnetView> {
  const { directory } = place
  await writeLauncher(directory)
  const hosts = await Promise.all(
    plan.map(async (planned) => {
      const state = join(directory, planned.name)
      const { principal } = await createKey(join(state, 'identity.key'))
      const address = network.address(planned.name)
      const { roles, gateway } = planned
      const socketPath = join(state, 'control.sock')
      const host = { name: planned.name, roles: [...roles], address, principal, state, socketPath, pid: 0 }
      return gateway === undefined ? host : { ...host, gateway }
    })
  )
  await Promise.all(
    plan.map(async (planned, index) => {
      const host = hosts[index]
      if (host === undefined) throw new TypeError('one host for each planned')
      // JSON is YAML.
      await writeFile(
        join(host.state, 'slicenet.yaml'),
        `${JSON.stringify(planned.config(host, hosts), null, 2)}\n`
      )
      host.pid = await startDaemon(network, host, place)
    })
  )
  const view = { name, directory, hosts }
  await writeFile(join(directory, 'devnet.json'), `${JSON.stringify(view, null, 2)}\n`)
  return view
}

/** So that `slicenet` typed on a host of the devnet is this program. */
async function writeLauncher(directory: string): Promise<void> {
  await mkdir(join(directory, 'bin'))
  const line = `exec '${process.execPath}' '${MAIN}' "$@"`
  await writeFile(join(directory, 'bin', 'slicenet'), `#!/bin/sh\n${line}\n`, { mode: 0o755 })
}

function hostEnvironment(host: DevnetHost, { directory, environment }: Place): Record<string, string> {
  return {
    PATH: `${join(directory, 'bin')}:${HOST_PATH}`,
    SLICENET_HOME: host.state,
    SLICENET_IMAGES: environment.imagesDirectory
  }
}

async function startDaemon(network: DevnetNetwork, host: DevnetHost, place: Place): Promise<number> {
  const log = await open(join(host.state, 'daemon.log'), 'a', 0o600)
  try {
    const [program, ...args] = [...network.enter(host.name), process.execPath, MAIN, 'daemon']
    if (program === undefined) throw new TypeError('no program')
    const child = start(program, args, ['ignore', log.fd, log.fd], {
      env: { ...hostEnvironment(host, place), SLICENET_LOG: 'info' },
      detached: true
    })
    await once(child, 'spawn')
    child.unref()
    return child.pid ?? 0
  } finally {
    await log.close()
  }
}

async function untilReady(
  view: DevnetView,
  signal: AbortSignal,
  onProgress: (message: string) => void
): Promise<void> {
  const deadline = systemClock.monotonic() + READY_MS
  const nodes = view.hosts.filter(({ roles }) => roles.includes('node')).length
  const agents = view.hosts.filter(({ roles }) => roles.includes('agent')).length
  const until = async (hosts: readonly DevnetHost[]): Promise<unknown> =>
    Promise.all(hosts.map(async (host) => untilHostReady(host)))
  const untilHostReady = async (host: DevnetHost): Promise<void> => {
    while (!(await isReady(host, { nodes, agents }))) {
      signal.throwIfAborted()
      if (!isAlive(host.pid)) throw await diedEarly(host)
      if (systemClock.monotonic() > deadline) {
        throw new SlicenetError('TIMEOUT', `${host.name} is not ready after ${READY_MS / 1000} s`, {
          hint: `see ${join(host.state, 'daemon.log')}`
        })
      }
      await systemClock.sleep(POLL_MS, { signal })
    }
    onProgress(`${host.name} is ready`)
  }
  await until(view.hosts.filter(({ roles }) => roles.length > 0))
  // What a researcher finds is asked of every peer: not while these are still busy with starting.
  await until(view.hosts.filter(({ roles }) => roles.length === 0))
}

async function isReady(
  host: DevnetHost,
  { nodes, agents }: { nodes: number; agents: number }
): Promise<boolean> {
  const call = createControlClient({ socketPath: host.socketPath })
  const signal = AbortSignal.timeout(CALL_MS)
  try {
    if (host.roles.length === 0) {
      const found = await findNodes(call, undefined, { signal })
      const { agentsKnown } = await call('status', {}, { signal })
      return found.length >= nodes && agentsKnown >= agents
    }
    const { delegations, nodesKnown, multiaddrs } = await call('status', {}, { signal })
    if (host.gateway !== undefined && !multiaddrs.some(isRelayed)) return false
    if (host.roles.includes('broker')) return nodesKnown >= nodes
    if (host.roles.includes('node')) return delegations >= agents
    return delegations >= nodes && nodesKnown >= nodes
  } catch {
    // Not listening yet, or it knows nobody yet.
    return false
  }
}

/** Behind a NAT this is how others reach it. */
function isRelayed(address: string): boolean {
  return address.includes('/p2p-circuit/')
}

/** A process that has ended but that its parent has not asked about yet counts as ended. */
function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2))
  } catch {
    return false
  }
}

/** The daemon's last words say why. */
async function diedEarly(host: DevnetHost): Promise<SlicenetError> {
  const log = await readFile(join(host.state, 'daemon.log'), 'utf8').catch(() => '')
  return new SlicenetError(
    'INTERNAL',
    `the daemon of ${host.name} ended: ${log.trim().split('\n').slice(-4).join(' | ')}`,
    {
      hint: `see ${join(host.state, 'daemon.log')}`
    }
  )
}

async function down(
  name: string,
  directory: string,
  environment: Environment,
  onProgress: (message: string) => void
): Promise<void> {
  const view = await readView(name, directory).catch(() => undefined)
  const present = await devnetNamespaces(name)
  if (view === undefined && present.length === 0) {
    throw new SlicenetError('NOT_FOUND', `there is no devnet ${name}`)
  }
  if (view !== undefined) {
    const network = networkOf(name, view.hosts)
    // Nodes whose daemon is gone are started once more to clear up, and they need their network for it.
    if (present.length === 0) await network.up()
    await Promise.all(view.hosts.map((host) => end(host, network, { directory, environment }, onProgress)))
    await network.down()
  } else await networkOf(name, []).down()
  const left = await settledLeftovers(name, directory)
  if (left.length > 0) {
    throw new SlicenetError(
      'INTERNAL',
      `${left.length} things are left: ${left.slice(0, 5).map(describe).join(', ')}`,
      {
        hint: 'this is a defect; the state is kept, so that `devnet down` can be tried again',
        details: { leftovers: left }
      }
    )
  }
  await rm(directory, { recursive: true, force: true })
}

/** The kernel lets go of a loop device a moment after the file system on it is unmounted. */
async function settledLeftovers(name: string, directory: string): Promise<Leftover[]> {
  const deadline = systemClock.monotonic() + SETTLE_MS
  for (;;) {
    const left = await devnetLeftovers(name, { directories: [directory] })
    if (left.length === 0 || systemClock.monotonic() > deadline) return left
    await systemClock.sleep(POLL_MS)
  }
}

/** Ends a host. A node whose daemon crashed is started once more: it alone knows what it has on the machine. */
async function end(
  host: DevnetHost,
  network: DevnetNetwork,
  place: Place,
  onProgress: (message: string) => void
): Promise<void> {
  let { pid } = host
  if (!(await isAnswering(host))) {
    if (isAlive(pid)) process.kill(pid, 'SIGKILL')
    if (!host.roles.includes('node')) return
    pid = await startDaemon(network, host, place)
    await waitUntil(async () => !isAlive(pid) || (await isAnswering(host)))
  }
  const call = createControlClient({ socketPath: host.socketPath })
  try {
    await call('shutdown', { giveUpNode: true }, { signal: AbortSignal.timeout(GIVE_UP_MS) })
  } catch (error) {
    onProgress(`${host.name} did not end in order: ${asSlicenetError(error).message}`)
  }
  await waitUntil(async () => !isAlive(pid))
  if (isAlive(pid)) process.kill(pid, 'SIGKILL')
}

async function waitUntil(condition: () => Promise<boolean>): Promise<void> {
  const deadline = systemClock.monotonic() + 2 * CALL_MS
  while (systemClock.monotonic() < deadline && !(await condition())) await systemClock.sleep(POLL_MS / 3)
}

async function isAnswering(host: DevnetHost): Promise<boolean> {
  try {
    const call = createControlClient({ socketPath: host.socketPath })
    await call('status', {}, { signal: AbortSignal.timeout(CALL_MS) })
    return true
  } catch {
    return false
  }
}

async function readView(name: string, directory: string): Promise<DevnetView> {
  try {
    const text = await readFile(join(directory, 'devnet.json'), 'utf8')
    return parse(viewSchema, JSON.parse(text), 'CONFIG_INVALID', 'devnet.json')
  } catch (error) {
    throw new SlicenetError('NOT_FOUND', `there is no devnet ${name}`, {
      hint: 'make one with `slicenet devnet up`',
      cause: error
    })
  }
}

function networkOf(
  name: string,
  hosts: readonly { readonly name: string; readonly gateway?: string }[]
): DevnetNetwork {
  const byGateway = Map.groupBy(hosts, ({ gateway }) => gateway)
  const names = (some: typeof hosts = []): string[] => some.map((host) => host.name)
  const lans = [...byGateway].flatMap(([gateway, members]) =>
    gateway === undefined ? [] : { gateway, hosts: names(members) }
  )
  return createDevnetNetwork({ name, hosts: names(byGateway.get(undefined)), lans })
}

async function execute(
  network: DevnetNetwork,
  host: DevnetHost,
  argv: readonly string[],
  place: Place
): Promise<number> {
  const [program, ...args] = [...network.enter(host.name), ...argv]
  if (program === undefined) throw new TypeError('no program')
  const env = {
    ...hostEnvironment(host, place),
    ...(place.environment.color ? { TERM: 'xterm-256color' } : { NO_COLOR: '1' })
  }
  const child = start(program, args, 'inherit', { env })
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal])
}

function describe({ kind, name }: Leftover): string {
  return `${kind} ${name}`
}
