/**
 * The protection interface (paper §2.1): what a node manager needs of a virtual machine monitor, and nothing about
 * how it does it. The OCI backend and the fake one pass the same contract suite; a microVM can come behind it.
 */
import type { Startable } from '../base/lifecycle.ts'
import type { ProgramSignal } from '../base/program-signal.ts'
import type { PortRange } from '../ticket/ports.ts'
import type { Resources } from '../ticket/resources.ts'
import type { Shaping } from '../ticket/shaping.ts'

/** Everything a monitor must know to make one virtual machine. */
export interface VserverSpec {
  /** Names the virtual machine on this node: 1 to 40 characters of `[a-z0-9-]`, derived from the lease. */
  readonly id: string
  /** The slice's name, which is also the host name and the account inside. */
  readonly slice: string
  /** Image by content: `sha256:<64 hex digits>`. */
  readonly image: string
  readonly resources: Resources
  /** Ports of the node's own address that lead to this virtual machine, exclusively. */
  readonly ports: readonly PortRange[]
  readonly rights: readonly string[]
  /** What it is held to beyond the node's policy, and its share; default: the policy alone, and the usual share. */
  readonly shaping?: Shaping
  /** Lines of the account's `authorized_keys`. */
  readonly keys: readonly string[]
}

export type RestartPolicy = 'never' | 'on-failure' | 'always'

/** A program to run in a virtual machine. */
export interface ProgramSpec {
  /** `argv[0]` is looked up in the virtual machine's PATH. Never empty. */
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** Default `/`. */
  readonly cwd?: string
  /** Account or `uid[:gid]` inside; default root of the virtual machine. */
  readonly user?: string
  /**
   * Of a launched one: whether it is started again when it has ended, or ended with another exit code than 0; after 1 s,
   * each time twice as long, at most a minute. Default `never`.
   */
  readonly restart?: RestartPolicy
}

export interface UploadedFile {
  /** Absolute path inside the virtual machine. */
  readonly path: string
  readonly content: Uint8Array
  /** Permission bits, such as 0o755. */
  readonly mode: number
}

export type VserverState = 'created' | 'running' | 'exited' | 'failed'

/** How a launched program ended: its exit code, or 128 + the signal's number. */
export interface ProgramExit {
  readonly exitCode: number
  /** UTC milliseconds. */
  readonly exitedAt: number
}

export interface VserverStatus {
  readonly id: string
  /** `created`: the virtual machine runs, no program was launched. `exited`: the program ended, the machine runs on. */
  readonly state: VserverState
  readonly image: string
  /** Process id of its init on the host. */
  readonly pid?: number
  /** Address inside, behind the node's. */
  readonly address?: string
  readonly exit?: ProgramExit
  /** How often the launched program was started again; absent when never. */
  readonly restarts?: number
  /** No process in it gets the processor until it is thawed. */
  readonly isFrozen?: true
  /** It has nearly or wholly used the bytes that it may send in a day, and sends more slowly until the day (UTC) is over. */
  readonly isEgressNarrowed?: true
}

/** A process in a virtual machine. */
export interface VserverProcess {
  /** On the host. */
  readonly pid: number
  /** When it began, in ticks of the host: tells it from a later process of the same number. */
  readonly startedTicks: number
  /** Inside. */
  readonly uid: number
  /** Its command line now, cut where it is very long; its name in brackets where it has none. */
  readonly argv: readonly string[]
}

export interface VserverUsage {
  readonly cpuMicros: number
  readonly memoryBytes: number
  readonly pids: number
  readonly diskBytes: number
  readonly egressBytes: number
}

export interface LogChunk {
  readonly stream: 'stdout' | 'stderr'
  /** UTC milliseconds. */
  readonly time: number
  readonly bytes: Uint8Array
}

/** In characters. */
export interface TerminalSize {
  readonly columns: number
  readonly rows: number
}

/** A running `exec`: its streams are bounded by back-pressure. At a terminal everything comes as `stdout`. */
export interface ExecSession {
  readonly output: AsyncIterable<{ readonly stream: 'stdout' | 'stderr'; readonly bytes: Uint8Array }>
  /** Feeds standard input; resolves when it was taken. `undefined` closes it, except at a terminal, which has no end. */
  write(bytes: Uint8Array | undefined): Promise<void>
  /** Another size of the program's terminal, if it has one. */
  resizeTerminal(size: TerminalSize): void
  /** The program's exit code, or 128 + the signal's number. */
  readonly exitCode: Promise<number>
  /** Ends the program (SIGTERM, then SIGKILL). Idempotent. */
  kill(): Promise<void>
}

export interface EnforcerCapacity {
  readonly resources: Resources
  /** Facts for the advert: kernel, architecture, OS, monitor. */
  readonly attributes: Readonly<Record<string, string>>
}

/**
 * A virtual machine monitor. All calls are idempotent where the word makes sense: creating what exists with the same
 * spec and destroying what does not exist succeed. A call that fails leaves nothing half-made behind.
 */
export interface Enforcer extends Startable {
  /** What this machine can give, measured at start and capped by the node's policy. */
  capacity(): Promise<EnforcerCapacity>
  /**
   * Makes the virtual machine and brings it to run with nothing but its init in it: containment, root file system,
   * limits, network with the source check, shaping, owned ports. One that lost its processes, as at a reboot, comes back with
   * its files, and what was launched in it and ended with it is launched again.
   * Throws `IMAGE_MISSING`, `PORT_IN_USE`, `VSERVER_FAILED`.
   */
  create(spec: VserverSpec, options?: { readonly signal?: AbortSignal }): Promise<VserverStatus>
  /** Copies files into it; parent directories are made, owned by its root. */
  upload(id: string, files: readonly UploadedFile[]): Promise<void>
  /**
   * Starts the slice's program, whose output is kept (bounded) for `logs` and whose end shows in `status`, across a
   * restart of the daemon. Throws `PROGRAM_NOT_FOUND`, `NOT_FOUND`; `BUSY` while the one before still runs or the
   * virtual machine is frozen, as do `stopProgram` and `exec`.
   */
  launch(id: string, program: ProgramSpec): Promise<void>
  /** Ends the launched program, for good whatever its policy; the virtual machine runs on. */
  stopProgram(id: string): Promise<void>
  /** Sends the launched program a signal. Throws `NOT_FOUND` also when none runs. */
  signal(id: string, signal: ProgramSignal): Promise<void>
  /** Stops the time for all that runs in it: no process gets the processor, memory and files stay. Idempotent. */
  freeze(id: string): Promise<void>
  /** Lets it go on after `freeze`. Idempotent. */
  thaw(id: string): Promise<void>
  /**
   * Changes what it may use while it runs: all of it, or nothing where one part fails. Throws `IN_USE` when it uses more
   * than it is to have.
   */
  resize(id: string, resources: Resources): Promise<void>
  /**
   * Runs another program beside it, attached to the caller; with `terminal`, at a terminal of its own of that size. Throws
   * `PROGRAM_NOT_FOUND`, `NOT_FOUND`.
   */
  exec(id: string, program: ProgramSpec, options?: { readonly terminal?: TerminalSize }): Promise<ExecSession>
  /** The launched program's output from the oldest kept byte; with `follow` until the program ends. */
  logs(
    id: string,
    options?: { readonly follow?: boolean; readonly signal?: AbortSignal }
  ): AsyncIterable<LogChunk>
  /** Replaces the lines of `authorized_keys`. */
  setKeys(id: string, keys: readonly string[]): Promise<void>
  status(id: string): Promise<VserverStatus | undefined>
  usage(id: string): Promise<VserverUsage>
  /** Packets that the network's checks dropped of what it sent, by reason; without the reasons that nothing was for. */
  dropped(id: string): Promise<Readonly<Record<string, number>>>
  /** What runs in it now. Throws `NOT_FOUND`. */
  processes(id: string): Promise<readonly VserverProcess[]>
  list(): Promise<VserverStatus[]>
  /** Ends every process in it and removes all of it: namespaces, mounts, cgroups, devices, rules, files. */
  destroy(id: string): Promise<void>
}
