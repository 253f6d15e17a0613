/**
 * Lists what slicenet has left on the machine (security invariant I5): what `devnet down` and the tests' teardown must
 * find empty. It only looks.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../base/errors.ts'
import { run } from '../base/host-program.ts'
import { devnetNamespaces, NAMESPACES_DIRECTORY, processesIn } from './devnet-network.ts'

export type LeftoverKind =
  | 'process'
  | 'namespace'
  | 'mount'
  | 'cgroup'
  | 'nft-table'
  | 'qdisc'
  | 'loop-device'

export interface Leftover {
  readonly kind: LeftoverKind
  readonly name: string
}

const CGROUP_ROOT = '/sys/fs/cgroup'
const CGROUP_DEPTH_MAX = 4
/** The handle that slicenet gives its root qdisc, as tc prints it. */
const QDISC_HANDLE = '51ce:'

/**
 * What is left of the devnet `name`: processes, namespaces, mounts, cgroups and loop devices of which a path component is
 * `slicenet-<name>` or begins with `slicenet-<name>-`, or which lie under one of `directories` (the devnet's state); nft
 * tables and qdiscs of slicenet's in the machine's own network namespace, where a devnet has none at all.
 */
export async function devnetLeftovers(
  name: string,
  options: { readonly directories?: readonly string[] } = {}
): Promise<Leftover[]> {
  const directories = options.directories ?? []
  const ours = (path: string): boolean =>
    path.split('/').some((part) => part === `slicenet-${name}` || part.startsWith(`slicenet-${name}-`)) ||
    directories.some((directory) => path === directory || path.startsWith(`${directory}/`))
  const namespaces = await devnetNamespaces(name)
  const [processes, cgroups, mounts, loops, tables, qdiscs] = await Promise.all([
    leftProcesses(namespaces, ours),
    leftCgroups(ours),
    leftMounts(ours),
    leftLoopDevices(ours),
    leftTables(),
    leftQdiscs()
  ])
  return [
    ...processes.map((name) => ({ kind: 'process' as const, name })),
    ...namespaces.map((name) => ({ kind: 'namespace' as const, name })),
    ...mounts.map((name) => ({ kind: 'mount' as const, name })),
    ...cgroups.map((name) => ({ kind: 'cgroup' as const, name })),
    ...tables.map((name) => ({ kind: 'nft-table' as const, name })),
    ...qdiscs.map((name) => ({ kind: 'qdisc' as const, name })),
    ...loops.map((name) => ({ kind: 'loop-device' as const, name }))
  ]
}

/** Processes in the devnet's namespaces, and those in cgroups of its name, such as a vserver's. */
async function leftProcesses(
  namespaces: readonly string[],
  ours: (path: string) => boolean
): Promise<string[]> {
  const pids = new Set(await processesIn(namespaces))
  for (const entry of await readdir('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    const groups = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '')
    if (groups.split('\n').some((line) => ours(line.slice(line.lastIndexOf(':') + 1)))) pids.add(pid)
  }
  const names: string[] = []
  for (const pid of pids) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    names.push(`${pid} ${command.replaceAll('\0', ' ').trim().slice(0, 200)}`.trim())
  }
  return names
}

async function leftCgroups(ours: (path: string) => boolean): Promise<string[]> {
  const found: string[] = []
  const walk = async (directory: string, depth: number): Promise<void> => {
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => [])
    for (const entry of entries) {
      if (!entry.isDirectory()) continue
      const path = join(directory, entry.name)
      // What is below one of ours goes with it.
      if (ours(path)) found.push(path)
      else if (depth < CGROUP_DEPTH_MAX) await walk(path, depth + 1)
    }
  }
  await walk(CGROUP_ROOT, 1)
  return found
}

async function leftMounts(ours: (path: string) => boolean): Promise<string[]> {
  const table = await readFile('/proc/self/mountinfo', 'utf8')
  const points = table.split('\n').map((line) => (line.split(' ')[4] ?? '').replaceAll('\\040', ' '))
  // A namespace's name is a mount as well, and is listed as a namespace.
  return points.filter((point) => ours(point) && !point.startsWith(`${NAMESPACES_DIRECTORY}/`))
}

async function leftLoopDevices(ours: (path: string) => boolean): Promise<string[]> {
  const found: string[] = []
  for (const device of await readdir('/sys/block').catch(() => [])) {
    if (!device.startsWith('loop')) continue
    const file = await readFile(`/sys/block/${device}/loop/backing_file`, 'utf8').catch(() => '')
    if (ours(file.trim().replace(/ \(deleted\)$/, ''))) found.push(`/dev/${device} ${file.trim()}`)
  }
  return found
}

async function leftTables(): Promise<string[]> {
  const tables = await runIfInstalled('nft', ['list', 'tables'])
  return tables.split('\n').filter((line) => /\bslicenet/.test(line))
}

async function leftQdiscs(): Promise<string[]> {
  const qdiscs = await runIfInstalled('tc', ['qdisc', 'show'])
  return qdiscs.split('\n').filter((line) => line.includes(` ${QDISC_HANDLE} root`))
}

/** A machine without the program cannot have what it would have made. */
async function runIfInstalled(program: string, args: readonly string[]): Promise<string> {
  try {
    return await run(program, args)
  } catch (error) {
    if (error instanceof SlicenetError && error.code === 'HOST_PROGRAM_MISSING') return ''
    throw error
  }
}
