/**
 * Vservers that are deliberately weakened: the configuration of a real one without some of its containment, run by the
 * same OCI runtime. What an attempt cannot do in the real vserver it must do in such a control, or it shows nothing.
 */
import { closeSync, openSync } from 'node:fs'
import { lstat, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SlicenetError } from '../../../src/base/errors.ts'
import { run, runAnyway, start } from '../../../src/base/host-program.ts'
import { IDS_PER_VSERVER } from '../../../src/enforce/id-ranges.ts'
import type { ProgramSpec } from '../../../src/enforce/enforcer.ts'
import { ociConfig, ociProcess } from '../../../src/enforce/oci-config.ts'
import { OciRuntime, type OciRuntimeName } from '../../../src/enforce/oci-runtime.ts'
import type { ContainersSeccomp } from '../../../src/enforce/seccomp.ts'
import { vserverSpec } from '../../enforce/enforcer-contract.ts'
import type { OciNode } from '../oci-node.ts'
import { HIDDEN_FILE, TERMINALS_DIRECTORY, type Weakness } from './attempt.ts'

const SECCOMP_PROFILE = '/usr/share/containers/seccomp.json'
const OPEN_FILES_MAX = 1024
const ROOT_USER = { uid: 0, gid: 0, additionalGids: [], home: '/root' }
/** On a busy machine the moment may be missed. */
const CONSOLE_TRIES = 5
const SWAP_AFTER_MS = 50
/** Has a runtime stop for a while after it handed on a console, which it does between mounting and opening it. */
const SLOW_SENDER = 'strace -f -qq -o /dev/null -e trace=sendmsg -e inject=sendmsg:delay_exit=500000'.split(
  ' '
)
/** Ids of the node's window that no vserver of a test reaches. */
const ID_SLOT = 500

/** By number. */
const CAPABILITIES = (
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE ' +
  'NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN ' +
  'SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE ' +
  'MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'
)
  .split(' ')
  .map((name) => `CAP_${name}`)

/** Namespaces of the runtime's configuration that a control shares with the host. */
const SHARED_NAMESPACES: Readonly<Partial<Record<Weakness, string>>> = {
  users: 'user',
  processes: 'pid',
  network: 'network',
  hostname: 'uts',
  ipc: 'ipc',
  cgroups: 'cgroup'
}

/** The parts of a configuration that are weakened. */
interface Config {
  hostname?: string
  process: Record<string, unknown>
  mounts: { destination: string; type: string; options: string[] }[]
  linux: {
    namespaces: { type: string }[]
    uidMappings?: unknown
    gidMappings?: unknown
    sysctl?: unknown
    seccomp?: unknown
    maskedPaths?: string[]
    readonlyPaths?: string[]
    resources: { devices: unknown[] }
  }
}

export interface ControlsInit {
  readonly node: OciNode
  readonly runtime: OciRuntimeName
  /** The unpacked image of the vservers. */
  readonly imageRoot: string
  /** The same with a /dev made by an attacker. */
  readonly hostileRoot: string
  /** A directory of the host that the weakness `descriptors` leaves open. */
  readonly openDirectory: string
}

export class Controls {
  readonly #init: ControlsInit
  readonly #directory: string
  readonly #runtime: OciRuntime
  /** Ids of the running controls by what they lack. */
  readonly #made = new Map<string, string>()
  #profile: ContainersSeccomp | undefined
  #held: readonly string[] = []

  constructor(init: ControlsInit) {
    this.#init = init
    this.#directory = join(init.node.directory, 'controls')
    this.#runtime = new OciRuntime({ name: init.runtime, stateDirectory: join(this.#directory, 'state') })
  }

  /** A root directory that belongs to the host's root. */
  get root(): string {
    return join(this.#directory, 'root')
  }

  async start(): Promise<void> {
    await mkdir(join(this.#directory, 'state'), { recursive: true })
    const { imageRoot, hostileRoot } = this.#init
    await run('cp', ['--archive', imageRoot, this.root])
    // Perl wants it, and a root that `chroot` made gets no fresh /dev.
    await run('mknod', [join(this.root, 'dev/null'), 'c', '1', '3'])
    await run('cp', ['--archive', imageRoot, this.#shiftedRoot])
    await run('cp', ['--archive', hostileRoot, this.#hostileRoot])
    await run('chown', ['--recursive', `${this.#uidBase}:${this.#uidBase}`, this.#shiftedRoot])
    this.#profile = JSON.parse(await readFile(SECCOMP_PROFILE, 'utf8')) as ContainersSeccomp
    const bits = /^CapBnd:\s*(\w+)/m.exec(await readFile('/proc/self/status', 'utf8'))?.[1] ?? '0'
    const held = BigInt(`0x${bits}`)
    this.#held = CAPABILITIES.filter((_, bit) => (held >> BigInt(bit)) & 1n)
  }

  async stop(): Promise<void> {
    for (const id of this.#made.values()) await this.#runtime.delete(id)
    this.#made.clear()
  }

  /** Runs a program in the control that lacks just that, and gives what it printed. */
  async run(without: readonly Weakness[], program: ProgramSpec): Promise<string> {
    if (without.includes('root')) return this.#runInChroot(program)
    if (without.includes('console')) return this.#runAtConsole(without, program)
    const id = await this.#make(without.filter((weakness) => !isOfDescriptors(weakness)))
    const specification = join(this.#directory, 'process.json')
    await writeFile(specification, JSON.stringify(this.#process(without, program)))
    const args = [...this.#runtime.globalArgs, 'exec', '--process', specification]
    if (without.includes('terminal')) {
      // Its descriptor 3 is the terminal that `script` makes.
      const line = [this.#init.runtime, ...args, '--preserve-fds', '1', id].join(' ')
      return (await runAnyway('script', ['--quiet', '--return', '--command', `${line} 3<&0`, '/dev/null']))
        .stdout
    }
    if (without.includes('descriptors')) {
      const line = [this.#init.runtime, ...args, '--preserve-fds', '1', id]
      return runWithDirectory(line, this.#init.openDirectory)
    }
    const { stdout, stderr } = await runAnyway(this.#init.runtime, [...args, id])
    return stdout + stderr
  }

  /** The process id of the init of the control that lacks just that. */
  async initPid(without: readonly Weakness[]): Promise<number> {
    const state = await this.#runtime.state(await this.#make(without))
    if (state === undefined) throw new Error('the control is gone')
    return state.pid
  }

  async #runInChroot(program: ProgramSpec): Promise<string> {
    const { stdout, stderr } = await runAnyway('chroot', [this.root, ...program.argv], { env: program.env })
    return stdout + stderr
  }

  /**
   * Runs a program in a container with a console, while somebody puts the terminal that the runtime made in the place of the
   * image's file of that name: after the runtime mounted it, and before it opens it.
   */
  async #runAtConsole(without: readonly Weakness[], program: ProgramSpec): Promise<string> {
    const id = `${this.#init.node.nodeShort}-console`
    const bundle = join(this.#directory, id)
    await mkdir(bundle)
    const config = this.#config(id, without)
    config.process = { ...this.#process(without, program), terminal: true }
    await writeFile(join(bundle, 'config.json'), JSON.stringify(config))
    const devices = join(this.#hostileRoot, 'dev')
    const runtime = [this.#init.runtime, ...this.#runtime.globalArgs, 'run', '--bundle', bundle, id]
    const line = [...SLOW_SENDER, ...runtime].join(' ')
    let said = ''
    for (let tries = 0; tries < CONSOLE_TRIES && !said.includes('reached:'); tries++) {
      await putLink(HIDDEN_FILE, join(devices, 'pts/0'))
      await rm(join(devices, 'console'), { force: true })
      const running = runAnyway('script', ['--quiet', '--return', '--command', line, '/dev/null'])
      const ended = running.then(() => false)
      const isThere = async (): Promise<boolean> =>
        lstat(join(devices, 'console')).then(
          () => true,
          () => false
        )
      while (!(await isThere()) && (await Promise.race([ended, delay(2, true)])));
      await delay(SWAP_AFTER_MS)
      await putLink(join(TERMINALS_DIRECTORY, '0'), join(devices, 'pts/0'))
      said = (await running).stdout
    }
    await this.#runtime.delete(id)
    if (/^(?:reached|refused|absent):/m.test(said)) return said
    throw new SlicenetError('VSERVER_FAILED', `no container with such a console: ${said}`)
  }

  async #make(without: readonly Weakness[]): Promise<string> {
    const key = [...without].sort().join(' ')
    const made = this.#made.get(key)
    if (made !== undefined) return made
    const id = `${this.#init.node.nodeShort}-control${this.#made.size}`
    const bundle = join(this.#directory, id)
    await mkdir(bundle)
    await writeFile(join(bundle, 'config.json'), JSON.stringify(this.#config(id, without)))
    this.#made.set(key, id)
    await this.#runtime.create(id, { bundle, pidFile: join(bundle, 'pid') })
    await this.#runtime.start(id)
    return id
  }

  #config(id: string, without: readonly Weakness[]): Config {
    const lacks = new Set(without)
    const config = ociConfig({
      spec: vserverSpec(this.#init.node.image, { id }),
      uidBase: this.#uidBase,
      rootPath: this.#rootOf(lacks),
      cgroupPath: `/slicenet-${id}`,
      seccompProfile: this.#profile!,
      openFilesMax: OPEN_FILES_MAX,
      arch: process.arch
    }) as unknown as Config
    config.process = this.#process(without, { argv: ['sleep', '1000'], env: {} })
    const shared = new Set(without.map((weakness) => SHARED_NAMESPACES[weakness]))
    config.linux.namespaces = config.linux.namespaces.filter(({ type }) => !shared.has(type))
    if (lacks.has('users')) {
      delete config.linux.uidMappings
      delete config.linux.gidMappings
    }
    // The runtime refuses to set what belongs to the host.
    if (lacks.has('network')) delete config.linux.sysctl
    if (lacks.has('hostname')) delete config.hostname
    if (lacks.has('seccomp')) delete config.linux.seccomp
    if (lacks.has('devices')) config.linux.resources.devices = [{ allow: true, access: 'rwm' }]
    if (lacks.has('dev')) weakenDevices(config, lacks.has('console'))
    if (lacks.has('paths')) {
      config.linux.maskedPaths = []
      config.linux.readonlyPaths = []
      for (const mount of config.mounts) mount.options = mount.options.filter((option) => option !== 'ro')
    }
    return config
  }

  #process(without: readonly Weakness[], program: ProgramSpec): Record<string, unknown> {
    const made = ociProcess({
      spec: vserverSpec(this.#init.node.image),
      uidBase: this.#uidBase,
      program,
      user: ROOT_USER,
      openFilesMax: OPEN_FILES_MAX
    })
    if (!without.includes('capabilities')) return made
    const held = this.#held
    return {
      ...made,
      capabilities: { bounding: held, effective: held, permitted: held, inheritable: [], ambient: [] }
    }
  }

  get #uidBase(): number {
    return this.#init.node.uidBase + ID_SLOT * IDS_PER_VSERVER
  }

  #rootOf(lacks: ReadonlySet<Weakness>): string {
    if (lacks.has('dev')) return this.#hostileRoot
    return lacks.has('users') ? this.root : this.#shiftedRoot
  }

  get #shiftedRoot(): string {
    return join(this.#directory, 'shifted')
  }

  get #hostileRoot(): string {
    return join(this.#directory, 'hostile')
  }
}

/** Runs a program to its end whose descriptor 3 is a directory of the host; gives what it printed. */
export async function runWithDirectory(argv: readonly string[], directory: string): Promise<string> {
  const fd = openSync(directory, 'r')
  try {
    const [program = '', ...args] = argv
    const child = start(program, args, ['ignore', 'pipe', 'ignore', fd])
    const ended = once(child, 'close')
    let said = ''
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) said += chunk.toString()
    await ended
    return said
  } finally {
    closeSync(fd)
  }
}

async function putLink(target: string, path: string): Promise<void> {
  await symlink(target, `${path}.new`)
  await rename(`${path}.new`, path)
}

/** Only what is mounted below the image's own /dev. */
function weakenDevices(config: Config, withConsole: boolean): void {
  config.mounts = config.mounts.filter(
    ({ destination, type }) =>
      !destination.startsWith('/dev') || destination === '/dev/shm' || (withConsole && type === 'devpts')
  )
  for (const mount of config.mounts) if (mount.type === 'devpts') mount.destination = TERMINALS_DIRECTORY
}

/** What is no property of the control but of how a program is started in it. */
function isOfDescriptors(weakness: Weakness): boolean {
  return weakness === 'descriptors' || weakness === 'terminal'
}
