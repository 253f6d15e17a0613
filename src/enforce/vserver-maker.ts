/**
 * Makes vservers and takes them away again: the order of the steps, which of them go side by side, and how a step that
 * fails unwinds those before it.
 */
import { randomBytes } from 'node:crypto'
import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { together } from '../base/together.ts'
import type { Resources } from '../ticket/resources.ts'
import { isAdministrative } from '../ticket/rights.ts'
import { prepareAccounts, prepareRoot } from './account.ts'
import { isInCgroup, isProcessInCgroup, type Cgroups } from './cgroup.ts'
import type { VserverSpec } from './enforcer.ts'
import { IDS_PER_VSERVER, type IdRanges } from './id-ranges.ts'
import type { ImageStore } from './image-store.ts'
import type { VserverNetwork } from './network.ts'
import { ociConfig } from './oci-config.ts'
import type { OciRuntime } from './oci-runtime.ts'
import { isAlive, readProcFile } from './process-list.ts'
import type { ProgramRunner } from './program-runner.ts'
import { withRoot } from './root-files.ts'
import type { ContainersSeccomp } from './seccomp.ts'
import { setHostName, signalProcess } from './syscall.ts'
import type { VserverRecord, VserverRecords } from './vserver-records.ts'
import type { WaitingStart } from './waiting-start.ts'
import type { MakeRootInit, VserverRoots } from './vserver-root.ts'
import type { Volume } from './volume.ts'

const SIGKILL = 9
const END_DEADLINE_MS = 10_000
const END_POLL_MS = 2
/** Runtimes start processes under smaller numbers only, where no user namespace maps them. */
const UNMAPPED_IDS_MAX = 2 ** 31

/** Names of containers made ahead; no vserver is called so. */
const SPARE_PREFIX = 'spare-'
const MIB = 1024 ** 2
/** Of one that waits: enough for its init, which sleeps. */
const SPARE_RESOURCES: Resources = {
  cpuMillis: 10,
  cpuMillisMax: 1000,
  memoryBytes: 32 * MIB,
  diskBytes: 16 * MIB,
  egressBps: 0,
  egressBpsMax: 16_000,
  egressBytesPerDay: MIB,
  pids: 32
}

export interface VserverMakerComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly images: ImageStore
  readonly network: VserverNetwork
  readonly volume: Volume
  readonly idRanges: IdRanges
  readonly roots: VserverRoots
  readonly cgroups: Cgroups
  readonly records: VserverRecords
  readonly runtime: OciRuntime
  readonly programs: ProgramRunner
  readonly seccompProfile: ContainersSeccomp
}

export interface VserverMakerInit {
  /** Where logs and exit codes of launched programs are kept. */
  readonly programsDir: string
  /** Of one process in a vserver; as `OciProcessInit` has it. */
  readonly openFilesMax: number
}

/** A vserver that was made ahead and is nobody's yet. */
export interface Spare {
  /** Its spec is that of no lease. */
  readonly record: VserverRecord
  /** Tells the image that it stands on from one that took its place. */
  readonly imageInode: number
  /** Of a program such as was launched last. */
  readonly start?: WaitingStart
}

/** Milliseconds that each step took; some run side by side. */
export type StepTimes = Record<string, number>

export class VserverMaker {
  readonly #c: VserverMakerComponents
  readonly #init: VserverMakerInit

  constructor(components: VserverMakerComponents, init: VserverMakerInit) {
    this.#c = components
    this.#init = init
  }

  /** Of the launched program of a vserver, by its container. */
  programDir(container: string): string {
    return join(this.#init.programsDir, container)
  }

  /**
   * Makes what `spec` says and starts its init. A vserver that was made before and whose processes are gone, as after
   * a reboot, comes back with its files.
   */
  async make(spec: VserverSpec, options: { readonly signal?: AbortSignal } = {}): Promise<VserverRecord> {
    const { images, idRanges, records } = this.#c
    const before = records.get(spec.id)
    const imageRoot = await images.open(spec.image)
    if (before !== undefined) await this.#takeDown(before, { keepFiles: before.phase === 'made' })
    const uidBase = before?.uidBase ?? idRanges.take()
    idRanges.claim(uidBase)
    const record: VserverRecord = {
      spec,
      container: before?.container ?? spec.id,
      uidBase,
      phase: before?.phase ?? 'making',
      ...(before?.launched === undefined ? {} : { launched: before.launched })
    }
    try {
      await records.put(record)
      const { slice, keys } = spec
      const prepare = (rootFd: number): void => prepareRoot(rootFd, { slice, keys, uidBase })
      const made = await this.#steps(record, { imageRoot, prepare }, options.signal)
      await records.put(made)
      return made
    } catch (error) {
      const keepFiles = before?.phase === 'made'
      await this.#cleared(spec.id, this.#takeDown(record, { keepFiles }))
      if (!keepFiles) await this.#forget(record)
      options.signal?.throwIfAborted()
      throw asVserverFailure(error)
    }
  }

  /**
   * Makes a vserver for nobody yet, of an image and with rights that somebody may lease: all but what a lease says of it, and
   * with next to no resources. Nothing is written down of it: after a crash it is a container that no record speaks of.
   */
  async makeSpare({ image, rights }: Pick<VserverSpec, 'image' | 'rights'>): Promise<Spare> {
    const { idRanges, images } = this.#c
    const imageRoot = await images.open(image)
    const container = `${SPARE_PREFIX}${randomBytes(6).toString('hex')}`
    const spec = {
      id: container,
      slice: 'spare',
      image,
      resources: SPARE_RESOURCES,
      ports: [],
      rights,
      keys: []
    }
    const record: VserverRecord = { spec, container, uidBase: idRanges.take(), phase: 'making' }
    idRanges.claim(record.uidBase)
    try {
      const { ino: imageInode } = await stat(imageRoot)
      const prepare = (rootFd: number): void => void prepareAccounts(rootFd, record.uidBase)
      return { record: await this.#steps(record, { imageRoot, prepare }), imageInode }
    } catch (error) {
      await this.#cleared(container, this.#discard(record))
      throw asVserverFailure(error)
    }
  }

  /** Whether it runs, over its image as that is now. */
  async isUsable({ record, imageInode }: Spare): Promise<boolean> {
    const image = await this.#c.images
      .open(record.spec.image)
      .then(stat)
      .catch(() => undefined)
    return image?.ino === imageInode && (await this.isRunning(record))
  }

  /** Has a spare one be the vserver that `spec` says, which differs in what is the lease's alone. */
  async claim(
    { record: spare }: Spare,
    spec: VserverSpec,
    { signal }: { readonly signal?: AbortSignal } = {}
  ): Promise<VserverRecord> {
    const { clock, logger, network, records } = this.#c
    const began = clock.monotonic()
    const { container } = spare
    const record: VserverRecord = { ...spare, spec, phase: 'making' }
    try {
      await records.put(record)
      await network.rename(container, spec.id)
      await together([this.#limit(record), this.#name(record)])
      signal?.throwIfAborted()
      if (!(await this.isRunning(record))) throw new Error('the one made ahead has ended')
      const made: VserverRecord = { ...record, phase: 'made' }
      await records.put(made)
      const milliseconds = Math.round((clock.monotonic() - began) * 10) / 10
      logger.info('spare vserver taken', { id: spec.id, slice: spec.slice, container, milliseconds })
      return made
    } catch (error) {
      await this.#cleared(spec.id, this.unmake(spec.id))
      signal?.throwIfAborted()
      throw asVserverFailure(error)
    }
  }

  /** Removes a spare one. */
  async discardSpare({ record, start }: Spare): Promise<void> {
    start?.orders.destroy()
    await this.#discard(record)
  }

  /** Changes the limits of a running vserver: all of them, or none where one fails. */
  async resize(record: VserverRecord, resources: Resources): Promise<void> {
    const resized = { ...record, spec: { ...record.spec, resources } }
    try {
      await this.#limit(resized)
      await this.#c.records.put(resized)
    } catch (error) {
      await this.#limit(record).catch((undoError: unknown) =>
        this.#c.logger.error('limits that could not be changed were not put back', {
          id: record.spec.id,
          error: undoError
        })
      )
      throw asVserverFailure(error)
    }
  }

  /** Removes all of it, also of one that was only begun or is known by its remains alone. Idempotent. */
  async unmake(id: string): Promise<void> {
    const record = this.#c.records.get(id)
    await this.#takeDown(record ?? id, { keepFiles: false })
    if (record !== undefined) await this.#forget(record)
  }

  /** Throws `NOT_FOUND` for one that there is not, `VSERVER_FAILED` for one that does not run. */
  async requireRunning(id: string): Promise<VserverRecord> {
    const record = this.#c.records.require(id)
    if (await this.isRunning(record)) return record
    throw new SlicenetError('VSERVER_FAILED', `vserver ${id} does not run`)
  }

  /** Whether the vserver's init runs. */
  async isRunning(record: VserverRecord): Promise<boolean> {
    if (record.pid === undefined) return false
    const [group, runs] = await Promise.all([readProcFile(record.pid, 'cgroup'), isAlive(record.pid)])
    return runs && isInCgroup(group, this.#c.cgroups.path(record.container))
  }

  async #steps(
    record: VserverRecord,
    content: Pick<MakeRootInit, 'imageRoot' | 'prepare'>,
    signal?: AbortSignal
  ): Promise<VserverRecord> {
    const { spec, container, uidBase } = record
    const { clock, cgroups, logger, roots, runtime, volume } = this.#c
    const times: StepTimes = {}
    const timed = async <T>(step: string, work: Promise<T>): Promise<T> => {
      const began = clock.monotonic()
      const result = await work
      times[step] = Math.round((clock.monotonic() - began) * 10) / 10
      signal?.throwIfAborted()
      return result
    }
    if (isAdministrative(spec.rights) && uidBase + IDS_PER_VSERVER > UNMAPPED_IDS_MAX) {
      const message = 'a node with so high an index on its machine can have no administrative slices'
      throw new SlicenetError('VSERVER_FAILED', message, { hint: 'give it an `index` of 62 at most' })
    }
    const bundle = roots.bundle(container)
    const disk = timed('disk', volume.create(container, spec.resources.diskBytes))
    const root = timed('root', roots.make({ id: container, uidBase, disk, ...content }))
    await together<unknown>([disk, root])
    const config = ociConfig({
      spec,
      uidBase,
      rootPath: roots.rootPath(container),
      cgroupPath: cgroups.path(container),
      seccompProfile: this.#c.seccompProfile,
      openFilesMax: this.#init.openFilesMax,
      arch: process.arch
    })
    await writeFile(join(bundle, 'config.json'), JSON.stringify(config), { mode: 0o600 })
    const pidFile = join(bundle, 'init.pid')
    const created = timed('runtime create', runtime.create(container, { bundle, pidFile })).then(async () =>
      Number(await readFile(pidFile, 'utf8'))
    )
    const attached = timed('network', this.#attach(record, created))
    // Nothing but the init runs yet, which needs no network; who launches programs waits for both.
    const started = created.then(() => timed('runtime start', runtime.start(container)))
    await together<unknown>([created, attached, started])
    const [pid, { address }] = await Promise.all([created, attached])
    logger.info('vserver made', { id: spec.id, slice: spec.slice, pid, address, milliseconds: times })
    return { ...record, phase: 'made', pid, address }
  }

  async #limit(record: VserverRecord): Promise<void> {
    const { cgroups, volume } = this.#c
    const { container, spec } = record
    volume.limit(container, spec.resources.diskBytes)
    await together<unknown>([
      cgroups.limit(container, spec.resources),
      ...(record.pid === undefined ? [] : [this.#attach(record, record.pid)])
    ])
  }

  /** A link of its own, or a share of the node's for the programs with its ids. */
  async #attach(
    { spec, uidBase }: VserverRecord,
    pid: number | Promise<number>
  ): Promise<{ readonly address: string }> {
    const { network } = this.#c
    const { id, ports, resources, rights, shaping } = spec
    if (!isAdministrative(rights)) {
      return network.attach({ id, pid, ports, rawSockets: rights.includes('raw-socket'), resources, shaping })
    }
    return network.attachIds({
      id,
      firstId: uidBase,
      lastId: uidBase + IDS_PER_VSERVER - 1,
      resources,
      shaping
    })
  }

  async #takeDown(
    recordOrId: VserverRecord | string,
    options: { readonly keepFiles: boolean }
  ): Promise<void> {
    const record = typeof recordOrId === 'string' ? undefined : recordOrId
    const id = typeof recordOrId === 'string' ? recordOrId : recordOrId.spec.id
    const container = record?.container ?? id
    const { cgroups, network, programs, roots, runtime, volume } = this.#c
    await cgroups.thaw(container)
    // What shares the node's network is held to its rules to the end.
    const processes = this.#endProcesses(container, record)
    if (!isApart(record)) await processes
    // A spare one that was being taken has its link under the one name or the other.
    const links = [...new Set([id, container])]
    await Promise.all([processes, ...links.map(async (link) => network.detach(link))])
    await Promise.all([programs.settle(this.programDir(container)), runtime.delete(container)])
    await roots.remove(container)
    await cgroups.remove(container)
    if (options.keepFiles) return
    await Promise.all([
      volume.destroy(container),
      rm(this.programDir(container), { recursive: true, force: true })
    ])
  }

  /**
   * Ends everything in the vserver: by its init where that has a process namespace, which the kernel then empties; else, and
   * where nothing is known of it, all of it while it stands still, so that nothing forks faster than it is ended.
   */
  async #endProcesses(container: string, record: VserverRecord | undefined): Promise<void> {
    const { cgroups, clock } = this.#c
    const path = cgroups.path(container)
    const deadline = clock.monotonic() + END_DEADLINE_MS
    for (;;) {
      const left = await cgroups.processes(container)
      if (left.length === 0) return
      if (clock.monotonic() > deadline) {
        throw new SlicenetError(
          'VSERVER_FAILED',
          `processes of vserver ${container} do not end: ${left.join(', ')}`
        )
      }
      const kill = (pid: number): boolean => signalProcess(pid, SIGKILL, () => isProcessInCgroup(pid, path))
      if (isApart(record)) {
        // The init first: one signal instead of one a process.
        const first = record.pid !== undefined && left.includes(record.pid) ? [record.pid] : left
        for (const pid of first) kill(pid)
      } else {
        await cgroups.freeze(container)
        for (const pid of await cgroups.processes(container)) kill(pid)
        await cgroups.thaw(container)
      }
      await clock.sleep(END_POLL_MS)
    }
  }

  /** What a failure left is cleared away before that is told; nobody is told of a failure to do so but the log. */
  async #cleared(id: string, work: Promise<void>): Promise<void> {
    await work.catch((error: unknown) =>
      this.#c.logger.error('a half-made vserver could not be removed', { id, error })
    )
  }

  async #discard(record: VserverRecord): Promise<void> {
    await this.#takeDown(record, { keepFiles: false })
    this.#c.idRanges.giveBack(record.uidBase)
  }

  /** Writes into its root, and tells its kernel, what is the slice's. */
  async #name({ spec: { slice, keys }, container, uidBase, pid }: VserverRecord): Promise<void> {
    const root = this.#c.roots.rootPath(container)
    withRoot(root, (rootFd) => prepareRoot(rootFd, { slice, keys, uidBase }))
    if (pid !== undefined) setHostName(pid, slice)
  }

  async #forget(record: VserverRecord): Promise<void> {
    await this.#c.records.remove(record.spec.id)
    this.#c.idRanges.giveBack(record.uidBase)
  }
}

/** Whether a vserver is known to have processes and a network of its own. */
function isApart(record: VserverRecord | undefined): record is VserverRecord {
  return record !== undefined && !isAdministrative(record.spec.rights)
}

/** A refusal of the network or an image keeps its code; what a host program or the kernel said is the monitor's failure. */
function asVserverFailure(error: unknown): SlicenetError {
  const isRefusal =
    error instanceof SlicenetError && error.code !== 'HOST_PROGRAM_FAILED' && error.code !== 'KERNEL_REFUSED'
  if (isRefusal) return error
  const message = error instanceof Error ? error.message : String(error)
  return new SlicenetError('VSERVER_FAILED', `the virtual machine could not be made: ${message}`, {
    cause: error
  })
}
