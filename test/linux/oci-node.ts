/** A node's enforcer in directories of its own, for tests as root, and the probes that show what it left on the host. */
import { existsSync } from 'node:fs'
import { chmod, readFile, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock as clock } from '../../src/base/clock.ts'
import { run } from '../../src/base/host-program.ts'
import { createLogger } from '../../src/base/log.ts'
import { findHierarchies } from '../../src/enforce/cgroup.ts'
import { nodeUidBase } from '../../src/enforce/id-ranges.ts'
import { buildImage } from '../../src/enforce/image-build.ts'
import { ImageStore } from '../../src/enforce/image-store.ts'
import { OciEnforcer } from '../../src/enforce/oci-enforcer.ts'
import type { VserverRecord } from '../../src/enforce/vserver-records.ts'
import { LoopbackNetwork } from '../enforce/loopback-network.ts'
import { ownDirectory, ownName } from './own-names.ts'

/** Devnets take ranges from the lower end; administrative slices must lie in the lower half. */
const UID_INDEX = 42 + (process.pid % 20)
const VOLUME_BYTES = 2 * 1024 ** 3
/** Of cgroups v1, then of v2. */
const LIMIT_FILES = [
  'cpu.shares',
  'cpu.cfs_quota_us',
  'memory.limit_in_bytes',
  'memory.memsw.limit_in_bytes',
  'cpu.weight',
  'cpu.max',
  'memory.max',
  'pids.max'
]

/** Of this process. */
let made = 0

export class OciNode {
  readonly nodeShort = `${ownName('oci')}-${++made}`
  readonly network = new LoopbackNetwork()
  readonly uidBase = nodeUidBase(UID_INDEX)
  readonly directory: string
  readonly images: ImageStore
  image = ''
  enforcer: OciEnforcer

  readonly #spares: number

  private constructor(directory: string, spares: number) {
    this.directory = directory
    this.#spares = spares
    this.images = new ImageStore({ clock }, { directory: join(directory, 'images') })
    this.enforcer = this.#newEnforcer()
  }

  static async start({ spares = 0 }: { readonly spares?: number } = {}): Promise<OciNode> {
    const directory = await ownDirectory('oci')
    // The roots of vservers lie below it.
    await chmod(directory, 0o711)
    const node = new OciNode(directory, spares)
    try {
      await node.images.start()
      node.image = (await buildImage('busybox', { images: node.images })).id
      await node.enforcer.start()
      return node
    } catch (error) {
      await node.stop()
      throw error
    }
  }

  async restart(): Promise<void> {
    await this.enforcer.stop()
    await this.takeOver()
  }

  /** Another enforcer of the same node, as after a crash of the daemon that had the one before. */
  async takeOver(): Promise<void> {
    this.enforcer = this.#newEnforcer()
    await this.enforcer.start()
  }

  /** Takes everything away, whatever a test left. */
  async stop(): Promise<void> {
    await this.enforcer.start()
    for (const { id } of await this.enforcer.list()) await this.enforcer.destroy(id)
    await this.enforcer.stop()
    await this.enforcer.close()
    await rm(this.directory, { recursive: true, force: true })
  }

  /** What of vserver `id` is on the host, of each kind of thing that must not outlive it. */
  async remains(id: string): Promise<Record<string, string[]>> {
    const mountinfo = await readFile('/proc/self/mountinfo', 'utf8')
    const groups: string[] = []
    const processes = new Set<string>()
    for (const { directory } of findHierarchies(mountinfo)) {
      const group = join(directory, `slicenet-${this.nodeShort}`, id)
      const text = await readFile(join(group, 'cgroup.procs'), 'utf8').catch(() => undefined)
      if (text === undefined) continue
      groups.push(group)
      for (const pid of text.split('\n').filter((line) => line !== '')) processes.add(pid)
    }
    const files = await run('find', [this.directory, '-name', `${id}*`, '-not', '-path', '*/images/*'])
    return {
      processes: [...processes],
      keepers: await this.#processesNaming(`programs/${id}`),
      mounts: mountinfo
        .split('\n')
        .filter((line) => line.includes(this.directory) && line.includes(`/${id}/`)),
      groups,
      files: files.split('\n').filter((line) => line !== ''),
      links: (await this.network.list()).filter((link) => link === id)
    }
  }

  /** What a vserver's groups, disk and bundle are called. */
  async container(id: string): Promise<string> {
    const record = await readFile(join(this.directory, 'state/vservers', `${id}.json`), 'utf8')
    return (JSON.parse(record) as VserverRecord).container
  }

  /** Containers that are there, whoever's they are, by their groups. */
  async containers(): Promise<string[]> {
    const found = new Set<string>()
    for (const { directory } of findHierarchies(await readFile('/proc/self/mountinfo', 'utf8'))) {
      const groups = join(directory, `slicenet-${this.nodeShort}`)
      const entries = await readdir(groups, { withFileTypes: true }).catch(() => [])
      for (const entry of entries) if (entry.isDirectory()) found.add(entry.name)
    }
    return [...found]
  }

  /** A file as programs of the vserver see it. */
  async readInside(id: string, path: string): Promise<string> {
    return readFile(join(this.directory, 'run/vservers', await this.container(id), 'root', path), 'utf8')
  }

  /** Has the disk's accounts up to date with what was written. */
  async settle(): Promise<void> {
    await run('sync', ['--file-system', join(this.directory, 'state/volume')])
  }

  /** What the kernel holds the vserver to, by the names of its files. */
  async limits(id: string): Promise<Record<string, string>> {
    const limits: Record<string, string> = {}
    const container = await this.container(id)
    for (const { directory } of findHierarchies(await readFile('/proc/self/mountinfo', 'utf8'))) {
      for (const file of LIMIT_FILES) {
        const path = join(directory, `slicenet-${this.nodeShort}`, container, file)
        const value = await readFile(path, 'utf8').catch(() => undefined)
        if (value !== undefined) limits[file] = value.trim()
      }
    }
    const disk = join(this.directory, 'state/volume', container)
    const table = await run('btrfs', ['qgroup', 'show', '-r', '-f', '--raw', disk])
    const [, , , most = ''] = /^\d+\/\d+ .*$/m.exec(table)?.[0].split(/\s+/) ?? []
    limits.disk = most
    return limits
  }

  /** The files of that name of a vserver's groups, of cgroups v1 or v2: those of `names` that there are, in that order. */
  async groupFiles(id: string, ...names: readonly string[]): Promise<string[]> {
    const hierarchies = findHierarchies(await readFile('/proc/self/mountinfo', 'utf8'))
    return names
      .flatMap((name) =>
        hierarchies.map(({ directory }) => join(directory, `slicenet-${this.nodeShort}`, id, name))
      )
      .filter((file) => existsSync(file))
  }

  /** What a vserver has used of the processor, also while the enforcer is stopped; CPU µs. */
  async cpuMicros(id: string): Promise<number> {
    const [file] = await this.groupFiles(id, 'cpuacct.usage', 'cpu.stat')
    const text = await readFile(file!, 'utf8')
    return file!.endsWith('stat') ? Number(/usage_usec (\d+)/.exec(text)?.[1]) : Number(text) / 1000
  }

  async #processesNaming(text: string): Promise<string[]> {
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
    const lines = await Promise.all(
      pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''))
    )
    return pids.filter((_, index) => lines[index]!.includes(join(this.directory, 'state', text)))
  }

  #newEnforcer(): OciEnforcer {
    const logger = createLogger({
      level: process.env.SLICENET_TEST_LOG === undefined ? 'error' : 'debug',
      write: (line) => process.stderr.write(line),
      clock
    })
    return new OciEnforcer(
      { clock, logger, images: this.images, network: this.network },
      {
        stateDirectory: join(this.directory, 'state'),
        runDirectory: join(this.directory, 'run'),
        nodeShort: this.nodeShort,
        uidBase: this.uidBase,
        volumeBytes: VOLUME_BYTES,
        spares: this.#spares
      }
    )
  }
}
