/**
 * The protection interface over containers of an OCI runtime (design §5). It composes volume, image store, root file
 * system, runtime and network, and keeps to itself only who may do what to a vserver at the same time.
 */
import { chmod, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { Lifecycle } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { ProgramSignal } from '../base/program-signal.ts'
import type { Resources } from '../ticket/resources.ts'
import { writeKeys } from './account.ts'
import { measureCapacity } from './capacity.ts'
import { Cgroups } from './cgroup.ts'
import { CpuKeeper } from './cpu-keeper.ts'
import type {
  Enforcer,
  EnforcerCapacity,
  ExecSession,
  LogChunk,
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
  checkResources,
  checkUpload,
  checkVserverSpec,
  isSameSpec,
  requireRoom
} from './enforcer-input.ts'
import { requireHostPrograms } from './host-requirements.ts'
import { IdRanges } from './id-ranges.ts'
import type { ImageStore } from './image-store.ts'
import type { VserverNetwork } from './network.ts'
import { assembleParts, type OciParts } from './oci-parts.ts'
import type { OciRuntimeName } from './oci-runtime.ts'
import { readProcesses } from './process-list.ts'
import { inVserverRoot } from './program-lookup.ts'
import { writeFileBeneath } from './root-files.ts'
import { Turns } from './turns.ts'
import type { VserverMaker } from './vserver-maker.ts'
import { VserverRecords, type VserverRecord } from './vserver-records.ts'
import { VserverRoots } from './vserver-root.ts'
import { Volume } from './volume.ts'

export interface OciEnforcerComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly images: ImageStore
  readonly network: VserverNetwork
}

export interface OciEnforcerInit {
  /** This node's own directory for disks and records. */
  readonly stateDirectory: string
  /** Names the node on this machine: up to 24 characters of `[a-z0-9-]`, the first no dash. */
  readonly nodeShort: string
  /** First host id of this node's window; see `nodeUidBase`. */
  readonly uidBase: number
  /** Size of the volume for the disks of vservers, when there is none yet. */
  readonly volumeBytes: number
  /** For what is lost at a reboot; host accounts must be able to pass. Default `/run/slicenet/<nodeShort>`. */
  readonly runDirectory?: string
  /** Default: the one that works. */
  readonly runtime?: OciRuntimeName
  readonly policy?: Partial<Resources>
  /** How many vservers like the last are made ahead. Default 0. */
  readonly spares?: number
}

export class OciEnforcer implements Enforcer {
  readonly #components: OciEnforcerComponents
  readonly #init: OciEnforcerInit
  readonly #runDirectory: string
  readonly #volume: Volume
  readonly #idRanges: IdRanges
  readonly #roots: VserverRoots
  readonly #cgroups: Cgroups
  readonly #records: VserverRecords
  readonly #cpuKeeper: CpuKeeper
  readonly #parts: Lifecycle
  readonly #turns = new Turns({
    atOnceMax: LIMITS.vserversInWorkMax,
    callersMax: 2 * LIMITS.vserversPerNodeMax
  })
  #started: OciParts | undefined

  constructor(components: OciEnforcerComponents, init: OciEnforcerInit) {
    if (!/^[a-z0-9][a-z0-9-]{0,23}$/.test(init.nodeShort))
      throw new TypeError('nodeShort is 1 to 24 of [a-z0-9-]')
    this.#components = components
    this.#init = init
    this.#runDirectory = init.runDirectory ?? join('/run/slicenet', init.nodeShort)
    this.#volume = new Volume(components, {
      stateDirectory: init.stateDirectory,
      sizeBytes: init.volumeBytes
    })
    this.#idRanges = new IdRanges({ uidBase: init.uidBase })
    this.#roots = new VserverRoots({ idRanges: this.#idRanges }, { runDirectory: this.#runDirectory })
    this.#cgroups = new Cgroups(components, { parent: `/slicenet-${init.nodeShort}` })
    this.#records = new VserverRecords({ directory: join(init.stateDirectory, 'vservers') })
    this.#cpuKeeper = new CpuKeeper({
      clock: components.clock,
      logger: components.logger,
      cgroups: this.#cgroups,
      records: () => this.#records.all()
    })
    this.#parts = new Lifecycle([
      components.images,
      this.#records,
      this.#volume,
      this.#roots,
      this.#cgroups,
      components.network,
      this.#cpuKeeper
    ])
  }

  async start(): Promise<void> {
    if (this.#started !== undefined) return
    await requireHostPrograms()
    await mkdir(this.#init.stateDirectory, { recursive: true, mode: 0o700 })
    if (this.#init.runDirectory === undefined) {
      await mkdir('/run/slicenet', { recursive: true })
      await chmod('/run/slicenet', 0o711)
    }
    await this.#parts.start()
    try {
      await this.#components.images.users.register(join(this.#init.stateDirectory, 'vservers'))
      for (const record of this.#records.all()) this.#idRanges.claim(record.uidBase)
      this.#idRanges.start()
      this.#started = await assembleParts(
        {
          ...this.#components,
          volume: this.#volume,
          idRanges: this.#idRanges,
          roots: this.#roots,
          cgroups: this.#cgroups,
          records: this.#records,
          turns: this.#turns
        },
        { ...this.#init, runDirectory: this.#runDirectory }
      )
      await this.#sweep(this.#started.maker)
      await this.#started.programs.start()
      await this.#started.spares.start()
    } catch (error) {
      await this.stop()
      // With vservers running the disks must stay; without any, a start that failed leaves the machine as it was.
      if (this.#records.all().length === 0) await this.close()
      throw error
    }
  }

  /** Vservers run on; what was begun is finished first. Of those that nobody has yet nothing is left. */
  async stop(): Promise<void> {
    await this.discardSpares()
    await this.#started?.programs.stop()
    await this.#turns.idle()
    this.#started = undefined
    await this.#idRanges.stop()
    await this.#parts.stop()
  }

  /** Removes the vservers that nobody has yet; none is made ahead from here on. */
  async discardSpares(): Promise<void> {
    await this.#started?.spares.stop()
  }

  /**
   * After `stop`, once every vserver was destroyed: unmounts the volume, which lets go of its loop device, and removes
   * what is kept for the time that the machine is up.
   */
  async close(): Promise<void> {
    await this.#volume.close()
    await rm(this.#runDirectory, { recursive: true, force: true })
  }

  /** What is worse on this machine than an administrator may think, for people; none before it was started. */
  get warnings(): readonly string[] {
    return this.#started?.warnings ?? []
  }

  async capacity(): Promise<EnforcerCapacity> {
    return measureCapacity({
      policy: this.#init.policy ?? {},
      diskBytes: await this.#volume.capacityBytes(),
      monitor: `oci/${this.#running().runtime.name}`
    })
  }

  async create(spec: VserverSpec, options: { readonly signal?: AbortSignal } = {}): Promise<VserverStatus> {
    const { maker, programs, spares } = this.#running()
    checkVserverSpec(spec)
    return this.#turns.takeCostly(spec.id, async () => {
      options.signal?.throwIfAborted()
      const before = this.#records.get(spec.id)
      if (before !== undefined && !isSameSpec(before.spec, spec)) {
        throw new SlicenetError('VSERVER_FAILED', `vserver ${spec.id} exists with another specification`)
      }
      if (before?.phase === 'made' && (await maker.isRunning(before))) return this.#describe(before)
      spares.postpone()
      const spare = before === undefined ? await this.#claim(spec, options) : undefined
      const made = spare ?? (await this.#make(spec, options))
      spares.expect(spec)
      await programs.resume(made)
      return this.#describe(this.#records.require(spec.id))
    })
  }

  async destroy(id: string): Promise<void> {
    const { maker, programs } = this.#running()
    if (this.#records.get(id) === undefined) return
    await this.#turns.takeCostly(id, async () => {
      programs.forget(id)
      if (this.#records.get(id) !== undefined) await maker.unmake(id)
    })
  }

  async upload(id: string, files: readonly UploadedFile[]): Promise<void> {
    checkUpload(files)
    await this.#turns.take(id, async () => {
      const record = await this.#running().maker.requireRunning(id)
      const owner = { uid: record.uidBase, gid: record.uidBase }
      this.#inRoot(record, (rootFd) => {
        for (const { path, content, mode } of files) {
          writeFileBeneath(rootFd, path, content, { ...owner, mode, directories: { ...owner, mode: 0o755 } })
        }
      })
    })
  }

  async setKeys(id: string, keys: readonly string[]): Promise<void> {
    checkKeys(keys)
    await this.#turns.take(id, async () => {
      const record = await this.#running().maker.requireRunning(id)
      const { spec, uidBase } = record
      this.#inRoot(record, (rootFd) => writeKeys(rootFd, { slice: spec.slice, keys, uidBase }))
    })
  }

  async launch(id: string, program: ProgramSpec): Promise<void> {
    const { programs, spares } = this.#running()
    spares.postpone()
    const process = await programs.launch(id, program)
    const { spec } = this.#records.require(id)
    spares.expectProgram(spec, process)
  }

  async stopProgram(id: string): Promise<void> {
    await this.#running().programs.stopLaunched(id)
  }

  async signal(id: string, signal: ProgramSignal): Promise<void> {
    await this.#running().programs.signal(id, signal)
  }

  async exec(
    id: string,
    program: ProgramSpec,
    options: { readonly terminal?: TerminalSize } = {}
  ): Promise<ExecSession> {
    return this.#running().programs.exec(id, program, options)
  }

  async *logs(
    id: string,
    options: { readonly follow?: boolean; readonly signal?: AbortSignal } = {}
  ): AsyncIterable<LogChunk> {
    yield* this.#running().programs.logs(id, options)
  }

  async freeze(id: string): Promise<void> {
    const { maker, runtime } = this.#running()
    this.#records.require(id)
    await this.#turns.take(id, async () => {
      const { container } = await maker.requireRunning(id)
      if (!(await this.#cgroups.isFrozen(container))) await runtime.pause(container)
    })
  }

  async thaw(id: string): Promise<void> {
    const { runtime } = this.#running()
    const { container } = this.#records.require(id)
    await this.#turns.take(id, async () => {
      if (await this.#cgroups.isFrozen(container)) await runtime.resume(container)
    })
  }

  async resize(id: string, resources: Resources): Promise<void> {
    const { maker } = this.#running()
    checkResources(resources)
    this.#records.require(id)
    await this.#turns.take(id, async () => {
      const record = await maker.requireRunning(id)
      requireRoom(id, await this.usage(id), resources)
      await maker.resize(record, resources)
    })
  }

  async status(id: string): Promise<VserverStatus | undefined> {
    this.#running()
    const record = this.#records.get(id)
    return record === undefined ? undefined : this.#describe(record)
  }

  async list(): Promise<VserverStatus[]> {
    this.#running()
    return Promise.all(this.#records.all().map((record) => this.#describe(record)))
  }

  async usage(id: string): Promise<VserverUsage> {
    const { container } = this.#records.require(id)
    const [group, diskBytes, egressBytes] = await Promise.all([
      this.#cgroups.usage(container),
      this.#volume.usedBytes(container),
      this.#components.network.egressBytes(id)
    ])
    // What waits to become its program takes a place only once it has.
    const waiting = this.#running().programs.waitingPid(id) === undefined ? 0 : 1
    return { ...group, pids: Math.max(0, group.pids - waiting), diskBytes, egressBytes }
  }

  async dropped(id: string): Promise<Readonly<Record<string, number>>> {
    this.#records.require(id)
    return this.#components.network.dropped(id)
  }

  async processes(id: string): Promise<readonly VserverProcess[]> {
    const { uidBase, container } = this.#records.require(id)
    // What waits to become its program is none of the slice's yet.
    const waiting = this.#running().programs.waitingPid(id)
    const pids = (await this.#cgroups.processes(container)).filter((pid) => pid !== waiting)
    return readProcesses(pids, uidBase)
  }

  /** One made ahead, if there is one and nothing is amiss with it: it may end at any moment. */
  async #claim(
    spec: VserverSpec,
    options: { readonly signal?: AbortSignal }
  ): Promise<VserverRecord | undefined> {
    const { maker, programs, spares } = this.#running()
    const spare = await spares.take(spec)
    if (spare === undefined) return undefined
    try {
      const record = await maker.claim(spare, spec, options)
      if (spare.start !== undefined) programs.adopt(spec.id, spare.start)
      return record
    } catch (error) {
      spare.start?.orders.destroy()
      options.signal?.throwIfAborted()
      // What the lease asks for and cannot have, another one cannot have either.
      if (!(error instanceof SlicenetError && error.code === 'VSERVER_FAILED')) throw error
      this.#components.logger.warn('a spare vserver was of no use', { id: spec.id, error })
      return undefined
    }
  }

  /** What waits for nobody yet makes room. */
  async #make(spec: VserverSpec, options: { readonly signal?: AbortSignal }): Promise<VserverRecord> {
    const { maker, spares } = this.#running()
    try {
      return await maker.make(spec, options)
    } catch (error) {
      const isFull = error instanceof SlicenetError && error.code === 'BUSY'
      if (!isFull || (await spares.discard()) === 0) throw error
      return maker.make(spec, options)
    }
  }

  /** Takes away what is left of vservers that no record speaks of. */
  async #sweep(maker: VserverMaker): Promise<void> {
    const [groups, disks, links] = await Promise.all([
      this.#cgroups.list(),
      this.#volume.list(),
      this.#components.network.list()
    ])
    const known = new Set(this.#records.all().flatMap(({ spec, container }) => [spec.id, container]))
    for (const id of new Set([...groups, ...disks, ...links])) {
      if (known.has(id)) continue
      this.#components.logger.warn('removing what is left of an unknown vserver', { id })
      await maker.unmake(id)
    }
    await this.#volume.sweepQuotas()
  }

  async #describe(record: VserverRecord): Promise<VserverStatus> {
    const { maker, programs } = this.#running()
    const { id, image } = record.spec
    const about = { id, image, ...(record.address === undefined ? {} : { address: record.address }) }
    const [runs, program, isFrozen, isEgressNarrowed] = await Promise.all([
      maker.isRunning(record),
      programs.state(id),
      this.#cgroups.isFrozen(record.container),
      this.#components.network.isEgressNarrowed(id)
    ])
    const exit = program.state === 'exited' ? { exit: program.exit } : {}
    const restarts = record.launched?.restarts ?? 0
    if (!runs) return { ...about, state: 'failed', ...exit }
    const running = {
      ...about,
      ...(record.pid === undefined ? {} : { pid: record.pid }),
      ...(restarts > 0 ? { restarts } : {}),
      ...(isFrozen ? { isFrozen } : {}),
      ...(isEgressNarrowed ? { isEgressNarrowed } : {})
    }
    // Between two runs there is nothing for a moment.
    if (program.state === 'none') return { ...running, state: restarts > 0 ? 'running' : 'created' }
    return { ...running, state: program.state, ...exit }
  }

  #inRoot<T>({ spec, container }: VserverRecord, use: (rootFd: number) => T): T {
    return inVserverRoot(spec.id, this.#roots.rootPath(container), use)
  }

  #running(): OciParts {
    if (this.#started === undefined) throw new TypeError('the enforcer was not started')
    return this.#started
  }
}
