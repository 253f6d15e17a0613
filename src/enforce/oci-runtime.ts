/**
 * One small wrapper round an OCI runtime's command line (runc and crun take the same): it keeps their state in a
 * directory of this node's, and turns their messages into errors.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { run, runAnyway } from '../base/host-program.ts'

export const OCI_RUNTIMES = ['crun', 'runc'] as const
export type OciRuntimeName = (typeof OCI_RUNTIMES)[number]
const DEADLINE_MS = 30_000
/**
 * A runtime written in Go raises its own limit and sets the old one again as it becomes the program, now before and now after it
 * sets the one that it was told: so both are the same, which is what many programs expect and some use as the end of a loop.
 */
export const OPEN_FILES_SOFT = 1024

export interface OciRuntimeInit {
  readonly name: OciRuntimeName
  /** Where the runtime keeps its state; of this node alone. */
  readonly stateDirectory: string
}

export class OciRuntime {
  readonly name: OciRuntimeName
  readonly #stateDirectory: string

  constructor(init: OciRuntimeInit) {
    this.name = init.name
    this.#stateDirectory = init.stateDirectory
  }

  /** Arguments that go before every command, also for programs that call the runtime for us. */
  get globalArgs(): readonly string[] {
    return ['--root', this.#stateDirectory]
  }

  /**
   * Makes the container's namespaces, mounts and groups; its init waits for `start`. Its process id goes to `pidFile`.
   * Throws `VSERVER_FAILED`.
   */
  async create(id: string, init: { readonly bundle: string; readonly pidFile: string }): Promise<void> {
    const log = join(init.bundle, 'runtime.log')
    const { exitCode } = await runAnyway(
      this.name,
      [...this.globalArgs, '--log', log, 'create', '--bundle', init.bundle, '--pid-file', init.pidFile, id],
      // The container's init keeps the descriptors that the runtime has.
      { silent: true, deadlineMs: DEADLINE_MS, openFiles: OPEN_FILES_SOFT }
    )
    if (exitCode === 0) return
    const said = await readFile(log, 'utf8').catch(() => '')
    throw new SlicenetError('VSERVER_FAILED', `${this.name} create failed: ${lastMessage(said)}`)
  }

  async start(id: string): Promise<void> {
    await this.#command(['start', id])
  }

  /** Keeps every process in it from the processor. */
  async pause(id: string): Promise<void> {
    await this.#command(['pause', id])
  }

  async resume(id: string): Promise<void> {
    await this.#command(['resume', id])
  }

  /** Ends the container if it runs and forgets it. Idempotent. */
  async delete(id: string): Promise<void> {
    const result = await runAnyway(this.name, [...this.globalArgs, 'delete', '--force', id])
    if (result.exitCode === 0 || /does not exist|no such file/i.test(result.stderr)) return
    throw new SlicenetError('VSERVER_FAILED', `${this.name} delete failed: ${lastMessage(result.stderr)}`)
  }

  /** Undefined when the runtime knows no such container. */
  async state(id: string): Promise<{ readonly status: string; readonly pid: number } | undefined> {
    const result = await runAnyway(this.name, [...this.globalArgs, 'state', id])
    if (result.exitCode !== 0) return undefined
    return JSON.parse(result.stdout) as { status: string; pid: number }
  }

  async #command(args: readonly string[]): Promise<void> {
    const result = await runAnyway(this.name, [...this.globalArgs, ...args], { deadlineMs: DEADLINE_MS })
    if (result.exitCode === 0) return
    throw new SlicenetError('VSERVER_FAILED', `${this.name} ${args[0]} failed: ${lastMessage(result.stderr)}`)
  }
}

export interface RuntimeProbeInit {
  /** For what the probe writes; removed again. */
  readonly scratchDirectory: string
  /** Holds only a static init program. */
  readonly rootDirectory: string
  readonly cgroupPath: string
}

export interface WorkingRuntime {
  readonly name: OciRuntimeName
  /** Why those tried before it do not work. */
  readonly failures: ReadonlyMap<OciRuntimeName, string>
}

/**
 * The first of `candidates` that can run a container on this machine: being installed is not enough, since crun refuses
 * machines that have both versions of cgroups. Throws `HOST_PROGRAM_MISSING` when none can.
 */
export async function findWorkingRuntime(
  candidates: readonly OciRuntimeName[],
  init: RuntimeProbeInit
): Promise<WorkingRuntime> {
  const failures = new Map<OciRuntimeName, string>()
  for (const name of candidates) {
    const failure = await probe(name, init)
    if (failure === undefined) return { name, failures }
    failures.set(name, failure)
  }
  const said = [...failures].map(([name, failure]) => `${name}: ${failure}`).join('; ')
  throw new SlicenetError(
    'HOST_PROGRAM_MISSING',
    `no OCI runtime works on this machine (${said || 'none is installed'})`,
    { hint: 'run `slicenet doctor --install`, which installs runc' }
  )
}

async function probe(name: OciRuntimeName, init: RuntimeProbeInit): Promise<string | undefined> {
  const bundle = await mkdtemp(join(init.scratchDirectory, 'probe-'))
  try {
    const state = join(bundle, 'state')
    await mkdir(state)
    await writeFile(
      join(bundle, 'config.json'),
      JSON.stringify(probeConfig(init.rootDirectory, init.cgroupPath))
    )
    await run(name, ['--root', state, 'run', '--bundle', bundle, `slicenet-${process.pid}`], {
      deadlineMs: DEADLINE_MS
    })
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  } finally {
    await rm(bundle, { recursive: true, force: true })
  }
}

function probeConfig(rootDirectory: string, cgroupPath: string): Record<string, unknown> {
  return {
    ociVersion: '1.0.2',
    process: {
      user: { uid: 0, gid: 0 },
      args: ['/.slicenet/init', '--version'],
      cwd: '/',
      env: [],
      noNewPrivileges: true
    },
    root: { path: rootDirectory, readonly: true },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs' }
    ],
    linux: {
      namespaces: ['pid', 'mount', 'uts', 'ipc', 'network'].map((type) => ({ type })),
      cgroupsPath: cgroupPath,
      resources: { pids: { limit: 16 } }
    }
  }
}

/** Runtimes print one line or JSON object a message, the last of which says why. */
function lastMessage(output: string): string {
  const line = output.trim().split('\n').at(-1) ?? ''
  const quoted = /msg="((?:[^"\\]|\\.)*)"/.exec(line)
  return (quoted?.[1]?.replaceAll('\\"', '"') ?? line).slice(0, 2000)
}
