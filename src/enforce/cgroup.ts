/**
 * The node's own control groups, one below the top of each hierarchy with one vserver's each in it, under cgroups v2,
 * v1 or both at once. The OCI runtime makes the vservers' groups; this reads them, changes their limits, and removes what
 * is left.
 */
import { availableParallelism } from 'node:os'
import { readFileSync } from 'node:fs'
import { mkdir, readFile, readdir, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import type { Startable } from '../base/lifecycle.ts'
import type { Resources } from '../ticket/resources.ts'
import { cpuCapMillis, cpuQuota, cpuShares } from './oci-config.ts'

const BUSY_ATTEMPTS_MAX = 200
const FREEZE_ATTEMPTS_MAX = 100
const FREEZE_POLL_MS = 5

interface Hierarchy {
  readonly directory: string
  /** Empty for the v2 tree. */
  readonly controllers: readonly string[]
}

export interface CgroupUsage {
  readonly cpuMicros: number
  readonly memoryBytes: number
  readonly pids: number
}

export interface CgroupsComponents {
  readonly clock: Clock
}

export interface CgroupsInit {
  /** The node's group, such as `/slicenet-ab12`. */
  readonly parent: string
}

export class Cgroups implements Startable {
  readonly #components: CgroupsComponents
  readonly #parent: string
  #hierarchies: readonly Hierarchy[] = []

  constructor(components: CgroupsComponents, init: CgroupsInit) {
    this.#components = components
    this.#parent = init.parent
  }

  /** Finds the hierarchies and changes nothing yet. */
  async find(): Promise<void> {
    this.#hierarchies = findHierarchies(await readFile('/proc/self/mountinfo', 'utf8'))
    if (this.#hierarchies.length === 0) {
      throw new SlicenetError('KERNEL_FEATURE_MISSING', 'no cgroup hierarchy is mounted on this machine')
    }
  }

  /** Finds the hierarchies and gives the node's group the weight of the whole machine among the host's programs. */
  async start(): Promise<void> {
    await this.find()
    const cores = availableParallelism()
    const v1 = this.#controller('cpu')
    if (v1 !== undefined) {
      const directory = join(v1, this.#parent)
      await mkdir(directory, { recursive: true })
      await writeFile(join(directory, 'cpu.shares'), String(1024 * cores))
    } else if (this.unified) {
      const top = this.#hierarchies[0]!.directory
      await writeFile(join(top, 'cgroup.subtree_control'), '+cpu +memory +pids')
      await mkdir(join(top, this.#parent), { recursive: true })
      await writeFile(join(top, this.#parent, 'cpu.weight'), String(Math.min(10_000, 100 * cores)))
    }
  }

  /** Removes the node's groups if no vserver is in them. */
  async stop(): Promise<void> {
    await Promise.all(
      this.#hierarchies.map(({ directory }) => rmdir(join(directory, this.#parent)).catch(() => {}))
    )
  }

  /** Whether all controllers are in the v2 tree. */
  get unified(): boolean {
    return this.#hierarchies.every((hierarchy) => hierarchy.controllers.length === 0)
  }

  /** The path of a vserver's group below the top of each hierarchy. */
  path(id: string): string {
    return `${this.#parent}/${id}`
  }

  async usage(id: string): Promise<CgroupUsage> {
    const path = this.path(id)
    if (this.unified) {
      const directory = join(this.#hierarchies[0]!.directory, path)
      const [memory, stat, pids] = await Promise.all(
        ['memory.current', 'memory.stat', 'pids.current'].map((file) => read(directory, file))
      )
      return {
        cpuMicros: this.cpuMicros(id),
        memoryBytes: Math.max(0, Number(memory) - field(stat, 'inactive_file')),
        pids: Number(pids)
      }
    }
    const [memory, stat, pids] = await Promise.all([
      this.#read('memory', path, 'memory.usage_in_bytes'),
      this.#read('memory', path, 'memory.stat'),
      this.#read('pids', path, 'pids.current')
    ])
    return {
      cpuMicros: this.cpuMicros(id),
      memoryBytes: Math.max(0, Number(memory) - field(stat, 'total_inactive_file')),
      pids: Number(pids)
    }
  }

  /** What a vserver has used; 0 when it has no group. */
  cpuMicros(id: string): number {
    const v1 = this.#controller('cpuacct')
    if (v1 !== undefined) return Math.floor(Number(readNow(join(v1, this.path(id)), 'cpuacct.usage')) / 1000)
    return field(readNow(join(this.#hierarchies[0]!.directory, this.path(id)), 'cpu.stat'), 'usage_usec')
  }

  /** Threads in a vserver's group. */
  tasks(id: string): number[] {
    const v1 = this.#controller('cpuacct')
    const directory = join(v1 ?? this.#hierarchies[0]!.directory, this.path(id))
    return numbers(readNow(directory, v1 === undefined ? 'cgroup.threads' : 'tasks'))
  }

  /** Holds a vserver that has its groups to other limits. Throws `VSERVER_FAILED` where the kernel takes one of them not. */
  async limit(id: string, resources: Resources): Promise<void> {
    const { memoryBytes, pids } = resources
    const [shares, memory] = [cpuShares(resources), String(memoryBytes)]
    try {
      await this.capCpu(id, cpuCapMillis(resources))
      if (this.unified) {
        const directory = join(this.#hierarchies[0]!.directory, this.path(id))
        await writeFile(join(directory, 'cpu.weight'), String(weightOf(shares)))
        await writeFile(join(directory, 'memory.max'), memory)
        await writeFile(join(directory, 'pids.max'), String(pids))
        return
      }
      await this.#write('cpu', id, 'cpu.shares', String(shares))
      await this.#limitMemory(id, memory)
      await this.#write('pids', id, 'pids.max', String(pids))
    } catch (error) {
      const { message } = error as Error
      throw new SlicenetError('VSERVER_FAILED', `a limit of vserver ${id} cannot be changed: ${message}`, {
        cause: error
      })
    }
  }

  /** Memory and swap together may never be less than memory alone: so what grows grows first, and what shrinks last. */
  async #limitMemory(id: string, bytes: string): Promise<void> {
    const [alone, together] = ['memory.limit_in_bytes', 'memory.memsw.limit_in_bytes']
    const before = Number(await this.#read('memory', this.path(id), alone))
    const order = Number(bytes) > before ? [together, alone] : [alone, together]
    for (const file of order) {
      await this.#write('memory', id, file, bytes).catch((error: NodeJS.ErrnoException) => {
        // A kernel that does not count swap has no such file, and where it may not be made one says so otherwise.
        if (file === alone || !['ENOENT', 'EACCES', 'EPERM'].includes(error.code ?? '')) throw error
      })
    }
  }

  async #write(controller: string, id: string, file: string, value: string): Promise<void> {
    const directory = this.#controller(controller)
    if (directory !== undefined) await writeFile(join(directory, this.path(id), file), value)
  }

  /** Changes how much of the processor a vserver may use, in thousandths of a core. One without a group is passed over. */
  async capCpu(id: string, capMillis: number): Promise<void> {
    const { quota, period } = cpuQuota(capMillis)
    const v1 = this.#controller('cpu')
    const [directory, file, value] =
      v1 === undefined
        ? [this.#hierarchies[0]!.directory, 'cpu.max', `${quota} ${period}`]
        : [v1, 'cpu.cfs_quota_us', String(quota)]
    const group = join(directory, this.path(id))
    // Each writing gives it another period's worth at once.
    if ((await read(group, file)).trim() === value) return
    await writeFile(join(group, file), value).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT' && error.code !== 'ENODEV') throw error
    })
  }

  /** Whether a vserver's processes are kept from the processor. */
  async isFrozen(id: string): Promise<boolean> {
    const directory = this.#controller('freezer')
    if (directory !== undefined)
      return (await read(join(directory, this.path(id)), 'freezer.state')).trim() === 'FROZEN'
    if (!this.unified) return false
    return (await read(join(this.#hierarchies[0]!.directory, this.path(id)), 'cgroup.freeze')).trim() === '1'
  }

  /** So that no process of a vserver can make another; after a while whether or not all stand still. Idempotent. */
  async freeze(id: string): Promise<void> {
    await this.#setFrozen(id, true)
    for (let attempt = 0; attempt < FREEZE_ATTEMPTS_MAX; attempt++) {
      if ((await this.#standsStill(id)) || (await this.processes(id)).length === 0) return
      await this.#components.clock.sleep(FREEZE_POLL_MS)
    }
  }

  /** So that a vserver's processes can end. Idempotent. */
  async thaw(id: string): Promise<void> {
    await this.#setFrozen(id, false)
  }

  async #setFrozen(id: string, isFrozen: boolean): Promise<void> {
    const v1 = this.#controller('freezer')
    const [directory, file, value] =
      v1 === undefined
        ? [this.#hierarchies[0]!.directory, 'cgroup.freeze', isFrozen ? '1' : '0']
        : [v1, 'freezer.state', isFrozen ? 'FROZEN' : 'THAWED']
    // There may be no such group any more, and in a v2 tree beside others no such file.
    await writeFile(join(directory, this.path(id), file), value).catch((error: NodeJS.ErrnoException) => {
      if (!['ENOENT', 'EACCES', 'EPERM'].includes(error.code ?? '')) throw error
    })
  }

  async #standsStill(id: string): Promise<boolean> {
    if (this.#controller('freezer') !== undefined || !this.unified) return this.isFrozen(id)
    const events = await read(join(this.#hierarchies[0]!.directory, this.path(id)), 'cgroup.events')
    return events === '' || field(events, 'frozen') === 1
  }

  /** Processes in a vserver's group. */
  async processes(id: string): Promise<number[]> {
    const directory = this.#controller('pids') ?? this.#hierarchies[0]!.directory
    return numbers(await read(join(directory, this.path(id)), 'cgroup.procs'))
  }

  /** Vservers that have a group in any hierarchy. */
  async list(): Promise<string[]> {
    const found = new Set<string>()
    for (const { directory } of this.#hierarchies) {
      const entries = await readdir(join(directory, this.#parent), { withFileTypes: true }).catch(() => [])
      for (const entry of entries) if (entry.isDirectory()) found.add(entry.name)
    }
    return [...found]
  }

  /** Removes a vserver's groups, whose processes have ended. Idempotent. */
  async remove(id: string): Promise<void> {
    await Promise.all(
      this.#hierarchies.map(({ directory }) => this.#removeGroup(join(directory, this.path(id))))
    )
  }

  /** A group may hold groups that programs inside made; ended processes leave a moment after they were killed. */
  async #removeGroup(directory: string): Promise<void> {
    const children = await readdir(directory, { withFileTypes: true }).catch(() => [])
    for (const child of children) {
      if (child.isDirectory()) await this.#removeGroup(join(directory, child.name))
    }
    for (let attempt = 0; ; attempt++) {
      try {
        await rmdir(directory)
        return
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code
        if (code === 'ENOENT') return
        if (code !== 'EBUSY' || attempt === BUSY_ATTEMPTS_MAX) throw error
        await this.#components.clock.sleep(10)
      }
    }
  }

  #controller(name: string): string | undefined {
    return this.#hierarchies.find((hierarchy) => hierarchy.controllers.includes(name))?.directory
  }

  async #read(controller: string, path: string, file: string): Promise<string> {
    const directory = this.#controller(controller)
    return directory === undefined ? '' : read(join(directory, path), file)
  }
}

/** Whether `pid` is in the group at `path`, given the text of its /proc/…/cgroup. */
export function isInCgroup(cgroupText: string, path: string): boolean {
  return cgroupText.split('\n').some((line) => {
    const group = line.split(':').slice(2).join(':')
    return group === path || group.startsWith(`${path}/`)
  })
}

/** Whether `pid` is in the group at `path` now; to be asked when the process is pinned. */
export function isProcessInCgroup(pid: number, path: string): boolean {
  try {
    return isInCgroup(readFileSync(`/proc/${pid}/cgroup`, 'utf8'), path)
  } catch {
    return false
  }
}

/** Mount points of the cgroup file systems, in the order they are mounted; later ones of one controller are bind mounts. */
export function findHierarchies(mountinfo: string): Hierarchy[] {
  const found: Hierarchy[] = []
  const seen = new Set<string>()
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ')
    const fields = before?.split(' ') ?? []
    const [type, , options] = after?.split(' ') ?? []
    const directory = fields[4]
    if (directory === undefined || options === undefined || fields[3] !== '/') continue
    if (type !== 'cgroup' && type !== 'cgroup2') continue
    const controllers =
      type === 'cgroup2' ? [] : options.split(',').filter((option) => option !== 'rw' && option !== 'ro')
    const key = controllers.join(',')
    if (seen.has(key)) continue
    seen.add(key)
    found.push({ directory, controllers })
  }
  return found
}

async function read(directory: string, file: string): Promise<string> {
  return readFile(join(directory, file), 'utf8').catch(() => '')
}

function readNow(directory: string, file: string): string {
  try {
    return readFileSync(join(directory, file), 'utf8')
  } catch {
    return ''
  }
}

function numbers(lines: string): number[] {
  return lines
    .split('\n')
    .filter((line) => line !== '')
    .map(Number)
}

/** What cgroups v1 count from 2 to 2^18 as v2 count it, from 1 to 10^4: as OCI runtimes convert it. */
function weightOf(shares: number): number {
  return 1 + Math.floor(((shares - 2) * 9999) / 262_142)
}

/** One number of a `name value` table; 0 when it is not there. */
function field(table: string | undefined, name: string): number {
  const line = table?.split('\n').find((row) => row.startsWith(`${name} `))
  return line === undefined ? 0 : Number(line.slice(name.length + 1))
}
