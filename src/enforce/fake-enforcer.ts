/**
 * A monitor that only remembers: for tests and simulations of the rooms above, and for trying slicenet without root.
 * Programs are functions that the caller gives; nothing is contained and no limit holds.
 */
import { constants } from 'node:os'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { portsOverlap } from '../ticket/ports.ts'
import type { ProgramSignal } from '../base/program-signal.ts'
import type { Resources } from '../ticket/resources.ts'
import type {
  Enforcer,
  EnforcerCapacity,
  ExecSession,
  LogChunk,
  ProgramExit,
  ProgramSpec,
  TerminalSize,
  UploadedFile,
  VserverProcess,
  VserverSpec,
  VserverStatus,
  VserverUsage
} from './enforcer.ts'
import {
  checkKeys,
  checkProgram,
  checkResources,
  checkUpload,
  checkVserverSpec,
  frozen,
  isSameSpec,
  requireRoom
} from './enforcer-input.ts'
import type { OutputPiece } from './output.ts'
import { delayMs, startsAgain } from './restarting.ts'

export interface FakeProgramContext {
  readonly spec: VserverSpec
  readonly program: ProgramSpec
  /** Files uploaded so far, by path. */
  readonly files: ReadonlyMap<string, UploadedFile>
  /** Standard input; empty for a launched program. */
  readonly input: AsyncIterable<Uint8Array>
  readonly write: (stream: OutputPiece['stream'], text: string) => void
  /** The size of its terminal now, where it has one. */
  readonly terminal?: () => TerminalSize | undefined
  /** Aborted when the program is to end; it then ends with 143 whatever it returns. */
  readonly signal: AbortSignal
}

/** Gives the exit code. */
export type FakeProgram = (context: FakeProgramContext) => Promise<number>

export interface FakeEnforcerComponents {
  readonly clock: Clock
}

export interface FakeEnforcerInit {
  /** Default: 4 cores, 8 GiB, 100 GB, 100 Mbit/s. */
  readonly resources?: Resources
  readonly attributes?: Readonly<Record<string, string>>
  /** Whether an image is there. Default: every one. */
  readonly hasImage?: (id: string) => boolean
  /** The program of that name; undefined when there is none. Default: every one runs until it is ended. */
  readonly findProgram?: (argv0: string) => FakeProgram | undefined
}

interface Running {
  readonly pid: number
  readonly program: ProgramSpec
  readonly controller: AbortController
  readonly ended: Promise<void>
}

interface FakeVserver {
  spec: VserverSpec
  isFrozen: boolean
  readonly pid: number
  readonly files: Map<string, UploadedFile>
  keys: readonly string[]
  log: LogChunk[]
  launched: Running | undefined
  /** Aborted when the program is not to be started again. */
  waiting: AbortController | undefined
  exit: ProgramExit | undefined
  restarts: number
  readonly execs: Set<Running>
}

const DEFAULT_RESOURCES: Resources = {
  cpuMillis: 4000,
  cpuMillisMax: 4000,
  memoryBytes: 8 * 1024 ** 3,
  diskBytes: 100_000_000_000,
  egressBps: 100_000_000,
  egressBpsMax: 100_000_000,
  egressBytesPerDay: 100_000_000_000,
  pids: 4096
}
const TERMINATED = 143
const ENDING_SIGNALS: readonly ProgramSignal[] = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGKILL']
const FIRST_PID = 1000

export class FakeEnforcer implements Enforcer {
  readonly #clock: Clock
  readonly #init: FakeEnforcerInit
  readonly #vservers = new Map<string, FakeVserver>()
  #nextPid = FIRST_PID

  constructor(components: FakeEnforcerComponents, init: FakeEnforcerInit = {}) {
    this.#clock = components.clock
    this.#init = init
  }

  async start(): Promise<void> {}

  async stop(): Promise<void> {}

  async capacity(): Promise<EnforcerCapacity> {
    return {
      resources: this.#init.resources ?? DEFAULT_RESOURCES,
      attributes: { os: 'linux', kernel: '0.0.0', arch: 'x64', monitor: 'fake', ...this.#init.attributes }
    }
  }

  async create(spec: VserverSpec, options: { readonly signal?: AbortSignal } = {}): Promise<VserverStatus> {
    options.signal?.throwIfAborted()
    checkVserverSpec(spec)
    const before = this.#vservers.get(spec.id)
    if (before !== undefined) {
      if (isSameSpec(before.spec, spec)) return describe(before)
      throw new SlicenetError('VSERVER_FAILED', `vserver ${spec.id} exists with another specification`)
    }
    if (this.#init.hasImage?.(spec.image) === false) {
      throw new SlicenetError('IMAGE_MISSING', `there is no image ${spec.image} on this node`)
    }
    for (const other of this.#vservers.values()) {
      if (!portsOverlap(spec.ports, other.spec.ports)) continue
      throw new SlicenetError('PORT_IN_USE', `a port is owned by vserver ${other.spec.id}`)
    }
    if (this.#vservers.size >= LIMITS.vserversPerNodeMax) {
      throw new SlicenetError('BUSY', `this node holds ${LIMITS.vserversPerNodeMax} virtual machines already`)
    }
    const made: FakeVserver = {
      spec,
      isFrozen: false,
      pid: this.#nextPid++,
      files: new Map(),
      keys: spec.keys,
      log: [],
      launched: undefined,
      waiting: undefined,
      exit: undefined,
      restarts: 0,
      execs: new Set()
    }
    this.#vservers.set(spec.id, made)
    return describe(made)
  }

  async upload(id: string, files: readonly UploadedFile[]): Promise<void> {
    checkUpload(files)
    const vserver = this.#get(id)
    for (const file of files) vserver.files.set(file.path, file)
  }

  async launch(id: string, program: ProgramSpec): Promise<void> {
    checkProgram(program)
    const vserver = this.#thawed(id)
    if (vserver.launched !== undefined) {
      throw new SlicenetError('BUSY', `a program runs in vserver ${id} already`, { hint: 'stop it first' })
    }
    const run = this.#find(id, program)
    vserver.log = []
    vserver.restarts = 0
    this.#start(vserver, program, run)
  }

  #start(vserver: FakeVserver, program: ProgramSpec, run: FakeProgram): void {
    vserver.exit = undefined
    const write = (stream: OutputPiece['stream'], text: string): void => {
      vserver.log.push({ stream, time: this.#clock.now(), bytes: new TextEncoder().encode(text) })
      let kept = vserver.log.reduce((sum, chunk) => sum + chunk.bytes.length, 0)
      while (kept > LIMITS.logBytesPerVserverMax) kept -= vserver.log.shift()!.bytes.length
    }
    const { running, exitCode } = runFake(run, { spec: vserver.spec, program, files: vserver.files, write })
    vserver.launched = {
      pid: this.#nextPid++,
      program,
      controller: running,
      ended: exitCode.then((code) => {
        vserver.exit = { exitCode: code, exitedAt: this.#clock.now() }
        vserver.launched = undefined
        if (!running.signal.aborted && startsAgain(program.restart, code))
          void this.#startAgain(vserver, program, run)
      })
    }
  }

  async #startAgain(vserver: FakeVserver, program: ProgramSpec, run: FakeProgram): Promise<void> {
    const waiting = new AbortController()
    vserver.waiting = waiting
    await this.#clock.sleep(delayMs(vserver.restarts), { signal: waiting.signal }).catch(() => {})
    if (waiting.signal.aborted) return
    vserver.waiting = undefined
    vserver.restarts += 1
    this.#start(vserver, program, run)
  }

  async stopProgram(id: string): Promise<void> {
    const { launched, waiting } = this.#thawed(id)
    waiting?.abort()
    launched?.controller.abort()
    await launched?.ended
  }

  /** Only of signals that end a program is anything seen; one that it handles is lost. */
  async signal(id: string, signal: ProgramSignal): Promise<void> {
    const { launched } = this.#get(id)
    if (launched === undefined) throw new SlicenetError('NOT_FOUND', `no program runs in vserver ${id}`)
    if (!ENDING_SIGNALS.includes(signal)) return
    launched.controller.abort(signal)
    await launched.ended
  }

  async freeze(id: string): Promise<void> {
    this.#get(id).isFrozen = true
  }

  async thaw(id: string): Promise<void> {
    this.#get(id).isFrozen = false
  }

  async resize(id: string, resources: Resources): Promise<void> {
    checkResources(resources)
    const vserver = this.#get(id)
    requireRoom(id, await this.usage(id), resources)
    vserver.spec = { ...vserver.spec, resources }
  }

  async exec(
    id: string,
    program: ProgramSpec,
    options: { readonly terminal?: TerminalSize } = {}
  ): Promise<ExecSession> {
    checkProgram(program)
    const vserver = this.#thawed(id)
    if (vserver.execs.size >= LIMITS.execsPerVserverMax) {
      throw new SlicenetError('BUSY', `${vserver.execs.size} programs are attached to vserver ${id} already`)
    }
    const run = this.#find(id, program)
    let { terminal } = options
    const output = new Channel<OutputPiece>()
    const input = new Channel<Uint8Array>()
    const write = (stream: OutputPiece['stream'], text: string): void =>
      output.push({ stream, bytes: new TextEncoder().encode(text) })
    const { running, exitCode } = runFake(run, {
      spec: vserver.spec,
      program,
      files: vserver.files,
      write,
      input,
      terminal: () => terminal
    })
    const session: Running = {
      pid: this.#nextPid++,
      program,
      controller: running,
      ended: exitCode.then(() => {
        output.end()
        vserver.execs.delete(session)
      })
    }
    vserver.execs.add(session)
    return {
      output,
      exitCode,
      write: async (bytes) => {
        if (bytes !== undefined) input.push(bytes)
        else if (terminal === undefined) input.end()
      },
      resizeTerminal: (size) => {
        if (terminal !== undefined) terminal = size
      },
      kill: async () => {
        running.abort()
        await session.ended
      }
    }
  }

  async *logs(
    id: string,
    options: { readonly follow?: boolean; readonly signal?: AbortSignal } = {}
  ): AsyncIterable<LogChunk> {
    const vserver = this.#get(id)
    for (let next = 0; ;) {
      options.signal?.throwIfAborted()
      const running = vserver.launched !== undefined || vserver.waiting !== undefined
      while (next < vserver.log.length) yield vserver.log[next++]!
      if (options.follow !== true || !running) return
      await this.#clock.sleep(10, options.signal === undefined ? {} : { signal: options.signal })
    }
  }

  async setKeys(id: string, keys: readonly string[]): Promise<void> {
    checkKeys(keys)
    this.#get(id).keys = keys
  }

  /** The keys of a vserver, which only a test can see here. */
  keysOf(id: string): readonly string[] {
    return this.#get(id).keys
  }

  async status(id: string): Promise<VserverStatus | undefined> {
    const vserver = this.#vservers.get(id)
    return vserver === undefined ? undefined : describe(vserver)
  }

  async usage(id: string): Promise<VserverUsage> {
    const { files, launched } = this.#get(id)
    const diskBytes = [...files.values()].reduce((sum, file) => sum + file.content.length, 0)
    const pids = launched === undefined ? 1 : 2
    return { cpuMicros: 0, memoryBytes: 0, pids, diskBytes, egressBytes: 0 }
  }

  async dropped(id: string): Promise<Readonly<Record<string, number>>> {
    this.#get(id)
    return {}
  }

  async processes(id: string): Promise<readonly VserverProcess[]> {
    const { pid, launched, execs } = this.#get(id)
    const running = [...(launched === undefined ? [] : [launched]), ...execs]
    const others = running.map((one) => ({ pid: one.pid, startedTicks: 0, uid: 0, argv: one.program.argv }))
    return [{ pid, startedTicks: 0, uid: 0, argv: ['init'] }, ...others]
  }

  async list(): Promise<VserverStatus[]> {
    return [...this.#vservers.values()].map(describe)
  }

  async destroy(id: string): Promise<void> {
    const vserver = this.#vservers.get(id)
    if (vserver === undefined) return
    this.#vservers.delete(id)
    vserver.waiting?.abort()
    const running = [...vserver.execs, ...(vserver.launched === undefined ? [] : [vserver.launched])]
    for (const { controller } of running) controller.abort()
    await Promise.all(running.map(({ ended }) => ended))
  }

  #get(id: string): FakeVserver {
    const vserver = this.#vservers.get(id)
    if (vserver === undefined) throw new SlicenetError('NOT_FOUND', `there is no vserver ${id} on this node`)
    return vserver
  }

  #thawed(id: string): FakeVserver {
    const vserver = this.#get(id)
    if (vserver.isFrozen) throw frozen(id)
    return vserver
  }

  #find(id: string, program: ProgramSpec): FakeProgram {
    const argv0 = program.argv[0]!
    const found = this.#init.findProgram === undefined ? runUntilEnded : this.#init.findProgram(argv0)
    if (found !== undefined) return found
    throw new SlicenetError('PROGRAM_NOT_FOUND', `vserver ${id} has no program ${JSON.stringify(argv0)}`)
  }
}

async function runUntilEnded(context: FakeProgramContext): Promise<number> {
  await new Promise<void>((resolve) => {
    context.signal.addEventListener('abort', () => resolve(), { once: true })
  })
  return TERMINATED
}

function runFake(
  run: FakeProgram,
  context: Omit<FakeProgramContext, 'signal' | 'input'> & { readonly input?: AsyncIterable<Uint8Array> }
): { readonly running: AbortController; readonly exitCode: Promise<number> } {
  const running = new AbortController()
  const input = context.input ?? ended()
  const aborted = runUntilEnded({ ...context, input, signal: running.signal })
  // A function cannot be killed: one that does not heed the signal is left behind.
  const exitCode = Promise.race([
    aborted,
    run({ ...context, input, signal: running.signal }).catch(() => 1)
  ]).then((code) => (running.signal.aborted ? endedBy(running.signal.reason) : code))
  return { running, exitCode }
}

async function* ended(): AsyncGenerator<Uint8Array> {}

function endedBy(reason: unknown): number {
  const signal = ENDING_SIGNALS.find((name) => name === reason)
  return signal === undefined ? TERMINATED : 128 + constants.signals[signal]
}

function describe(vserver: FakeVserver): VserverStatus {
  const { spec, pid, launched, exit, isFrozen, restarts } = vserver
  const still = { ...(restarts > 0 ? { restarts } : {}), ...(isFrozen ? { isFrozen } : {}) }
  const about = { id: spec.id, image: spec.image, pid, address: '127.0.0.1', ...still }
  if (launched !== undefined) return { ...about, state: 'running' }
  return exit === undefined ? { ...about, state: 'created' } : { ...about, state: 'exited', exit }
}

/** A queue that is written at one end and iterated at the other. */
class Channel<T> implements AsyncIterable<T> {
  readonly #items: T[] = []
  #ended = false
  #wake: (() => void) | undefined

  push(item: T): void {
    if (this.#ended) return
    this.#items.push(item)
    this.#wake?.()
  }

  end(): void {
    this.#ended = true
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const item = this.#items.shift()
      if (item !== undefined) yield item
      else if (this.#ended) return
      else await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }
}
