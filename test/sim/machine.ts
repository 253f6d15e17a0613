/**
 * A simulated machine and the monitor of virtual machines on it. They outlive the daemon, but not the machine. Nothing
 * is checked that a node manager must see to: two of them may own one port here.
 */
import { SlicenetError } from '../../src/base/errors.ts'
import type {
  Enforcer,
  EnforcerCapacity,
  ExecSession,
  LogChunk,
  ProgramSpec,
  UploadedFile,
  VserverProcess,
  VserverSpec,
  VserverStatus,
  VserverUsage
} from '../../src/enforce/enforcer.ts'
import {
  checkKeys,
  checkProgram,
  checkUpload,
  checkVserverSpec,
  isSameSpec
} from '../../src/enforce/enforcer-input.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import type { Process } from './host.ts'
import { note } from './world.ts'

export interface Vserver {
  readonly spec: VserverSpec
  isRunning: boolean
}

/** What outlives the daemon. */
export class Machine {
  readonly vservers = new Map<string, Vserver>()
  /** When the monitor failed last, ms since the simulation began. */
  lastFailureAt = 0
  /** Calls that it works on now. */
  inWork = 0
  /** Those that it could not make when it was asked last. */
  readonly notMade = new Set<string>()
}

export class SimulatedEnforcer implements Enforcer {
  readonly #process: Process
  readonly #machine: Machine
  readonly #resources: Resources

  constructor(process: Process, machine: Machine, resources: Resources) {
    this.#process = process
    this.#machine = machine
    this.#resources = resources
    machine.inWork = 0
  }

  async start(): Promise<void> {}

  async stop(): Promise<void> {}

  async capacity(): Promise<EnforcerCapacity> {
    return { resources: this.#resources, attributes: {} }
  }

  async create(spec: VserverSpec): Promise<VserverStatus> {
    checkVserverSpec(spec)
    this.#machine.notMade.add(spec.id)
    return this.#work(`makes ${spec.id}`, [20, 120], () => {
      const before = this.#machine.vservers.get(spec.id)
      if (before !== undefined && !isSameSpec(before.spec, spec)) {
        throw new SlicenetError('VSERVER_FAILED', `vserver ${spec.id} exists with another specification`)
      }
      const made = before ?? { spec, isRunning: false }
      this.#machine.vservers.set(spec.id, made)
      this.#machine.notMade.delete(spec.id)
      return describe(made)
    })
  }

  async upload(id: string, files: readonly UploadedFile[]): Promise<void> {
    checkUpload(files)
    await this.#work(`uploads to ${id}`, [1, 10], () => void this.#get(id))
  }

  async launch(id: string, program: ProgramSpec): Promise<void> {
    checkProgram(program)
    await this.#work(`launches in ${id}`, [5, 30], () => {
      const vserver = this.#get(id)
      if (vserver.isRunning) throw new SlicenetError('BUSY', `a program runs in vserver ${id} already`)
      vserver.isRunning = true
    })
  }

  async stopProgram(id: string): Promise<void> {
    await this.#work(`stops in ${id}`, [5, 30], () => {
      this.#get(id).isRunning = false
    })
  }

  async signal(): Promise<void> {}

  async freeze(): Promise<void> {}

  async thaw(): Promise<void> {}

  async resize(): Promise<void> {}

  async exec(): Promise<ExecSession> {
    throw new SlicenetError('PROGRAM_NOT_FOUND', 'nothing is attached to in a simulation')
  }

  async processes(): Promise<readonly VserverProcess[]> {
    return []
  }

  async *logs(): AsyncIterable<LogChunk> {}

  async setKeys(id: string, keys: readonly string[]): Promise<void> {
    checkKeys(keys)
    await this.#work(`sets keys of ${id}`, [1, 10], () => void this.#get(id))
  }

  async status(id: string): Promise<VserverStatus | undefined> {
    return this.#work(`looks at ${id}`, [1, 5], () => {
      const vserver = this.#machine.vservers.get(id)
      return vserver === undefined ? undefined : describe(vserver)
    })
  }

  async usage(id: string): Promise<VserverUsage> {
    this.#get(id)
    return { cpuMicros: 0, memoryBytes: 0, pids: 1, diskBytes: 0, egressBytes: 0 }
  }

  async dropped(id: string): Promise<Record<string, number>> {
    this.#get(id)
    return {}
  }

  async list(): Promise<VserverStatus[]> {
    return this.#work('lists', [1, 20], () => [...this.#machine.vservers.values()].map(describe))
  }

  async destroy(id: string): Promise<void> {
    await this.#work(`destroys ${id}`, [10, 80], () => void this.#machine.vservers.delete(id))
  }

  /** A call that fails has done nothing; when the daemon dies, one that is under way comes to its end or not. */
  async #work<T>(what: string, [least, most]: readonly [number, number], effect: () => T): Promise<T> {
    const { host } = this.#process
    const { chance, faults, scheduler } = host.world
    const fails = faults.strikes('monitor-failure')
    let isOpen = true
    this.#machine.inWork += 1
    this.#process.onDeath(() => {
      if (isOpen && !fails && chance.happens(500)) attempt(effect)
    })
    await this.#pass(chance.between(least, most))
    isOpen = false
    host.isChanged = true
    if (fails) {
      this.#machine.lastFailureAt = scheduler.now
      this.#machine.inWork -= 1
      note(host.world, host.name, `monitor fails: ${what}`)
      throw new SlicenetError('HOST_PROGRAM_FAILED', 'the monitor failed')
    }
    note(host.world, host.name, `monitor ${what}`)
    const outcome = attempt(effect)
    await this.#pass(chance.between(0, 3))
    this.#machine.inWork -= 1
    if ('error' in outcome) throw outcome.error
    return outcome.value
  }

  async #pass(ms: number): Promise<void> {
    await new Promise<void>((resolve) => this.#process.after(ms, resolve))
  }

  #get(id: string): Vserver {
    const vserver = this.#machine.vservers.get(id)
    if (vserver === undefined) throw new SlicenetError('NOT_FOUND', `there is no vserver ${id} on this node`)
    return vserver
  }
}

function attempt<T>(effect: () => T): { readonly value: T } | { readonly error: unknown } {
  try {
    return { value: effect() }
  } catch (error) {
    return { error }
  }
}

function describe({ spec, isRunning }: Vserver): VserverStatus {
  return { id: spec.id, image: spec.image, state: isRunning ? 'running' : 'created' }
}
