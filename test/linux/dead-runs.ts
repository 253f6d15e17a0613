/**
 * Removes what test processes that were killed left on the machine, found by the names of `own-names.ts`: nothing of a process that
 * is there, nor of anybody who makes no such name. Two that sweep at once may end each other's programs, and then go round again.
 * Who shares directories, namespaces or cgroups must share process ids.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, rmdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { LeftoverKind } from '../../src/daemon/devnet-leftovers.ts'
import { ownerOf, ownersIn, type Owner } from './own-names.ts'

const CGROUPS = '/sys/fs/cgroup'
const NAMESPACES = '/run/netns'
const ROUNDS_MAX = 50
const ROUND_MS = 100

/** What of one dead process is left, by kind; a directory's mounts and what lies in it are of other kinds as well. */
type Remains = Readonly<Record<LeftoverKind | 'directory', readonly string[]>>

export interface Swept {
  /** Names whose things are gone now. */
  readonly removed: readonly string[]
  /** What could not be removed, by what it is and is called. */
  readonly left: readonly string[]
}

/** Does nothing, quickly, where nothing is left; and where it is not root, or /proc is of other processes than its own. */
export async function sweepDeadRuns(): Promise<Swept> {
  const swept = { removed: [] as string[], left: [] as string[] }
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return swept
  if (readlinkSync('/proc/self') !== String(process.pid)) return swept
  for (const owner of deadOwners()) {
    const outcome = await sweepOne(owner)
    if (outcome === 'removed') swept.removed.push(owner.name)
    else swept.left.push(...outcome)
  }
  return swept
}

/** For a test run, which neither waits for anybody to read what it says nor fails by it. */
export async function sweepAndTell(): Promise<void> {
  try {
    const { removed, left } = await sweepDeadRuns()
    if (removed.length > 0) process.stderr.write(`removed what ended tests left: ${removed.join(', ')}\n`)
    if (left.length > 0) process.stderr.write(`ended tests left, and it stays:\n  ${left.join('\n  ')}\n`)
  } catch (error) {
    process.stderr.write(`what ended tests left was not removed: ${String(error)}\n`)
  }
}

/** Those that are named on the machine. A process id that another process has by now keeps its things until that has ended. */
function deadOwners(): Owner[] {
  const named = [
    ...[NAMESPACES, CGROUPS, ...list(CGROUPS).map((each) => join(CGROUPS, each)), ...placesOfDirectories()]
      .flatMap(list)
      .flatMap((component) => ownerOf(component) ?? []),
    ...ownersIn(read('/proc/self/mountinfo')),
    ...list('/sys/block').flatMap((device) => ownersIn(read(`/sys/block/${device}/loop/backing_file`))),
    ...otherProcesses().flatMap(({ says }) => ownersIn(says))
  ]
  const dead = named.filter(({ pid }) => !isAlive(pid))
  return [...new Map(dead.map((owner) => [owner.name, owner])).values()]
}

/** What is left, if not all was removed; nothing where there was nothing to remove. */
async function sweepOne({ name, pid }: Owner): Promise<'removed' | readonly string[]> {
  let left: string[] = []
  for (let round = 0; round < ROUNDS_MAX; round++) {
    // Somebody may have got that id meanwhile.
    if (isAlive(pid)) return []
    try {
      const remains = await remainsOf(name)
      left = Object.entries(remains).flatMap(([kind, names]) => names.map((each) => `${kind} ${each}`))
      if (left.length === 0) return round === 0 ? [] : 'removed'
      await removeOnce(name, remains)
    } catch (error) {
      left.push(String(error))
    }
    await delay(ROUND_MS)
  }
  return left
}

async function remainsOf(name: string): Promise<Remains> {
  const directories = placesOfDirectories().flatMap((place) =>
    list(place)
      .filter((component) => ownerOf(component)?.name === name)
      .map((component) => join(place, component))
  )
  // Loaded by those only that have something to remove.
  const { devnetLeftovers } = await import('../../src/daemon/devnet-leftovers.ts')
  const leftovers = await devnetLeftovers(name, { directories })
  const of = (kind: LeftoverKind): string[] =>
    leftovers.filter((each) => each.kind === kind).map((each) => each.name)
  const naming = otherProcesses().filter(({ says }) => ownersIn(says).some((owner) => owner.name === name))
  const inside = of('process').map((each) => Number.parseInt(each, 10))
  const processes = new Set([...inside, ...naming.map(({ pid }) => pid)])
  for (const pid of thisAndAncestors()) processes.delete(pid)
  return {
    process: [...processes].map(String),
    mount: of('mount'),
    'loop-device': of('loop-device'),
    cgroup: of('cgroup'),
    namespace: of('namespace'),
    directory: directories,
    // Those in the machine's own network are nobody's by name, and no test makes any.
    'nft-table': [],
    qdisc: []
  }
}

/** Each kind before what it uses; processes, which use everything and may start others, until there are none. */
async function removeOnce(name: string, remains: Remains): Promise<void> {
  if (remains.process.length > 0) {
    remains.cgroup.forEach(thaw)
    for (const pid of remains.process) end(Number(pid))
    return
  }
  const { runAnyway } = await import('../../src/base/host-program.ts')
  if (remains.mount.length > 0) {
    const { unmount } = await import('../../src/enforce/syscall.ts')
    // The table is in the order in which they were mounted.
    for (const mount of remains.mount.toReversed()) unmount(mount)
  }
  for (const device of remains['loop-device'])
    await runAnyway('losetup', ['--detach', device.split(' ')[0] ?? ''])
  remains.cgroup.forEach(removeCgroup)
  if (remains.namespace.length > 0) {
    const { createDevnetNetwork } = await import('../../src/daemon/devnet-network.ts')
    await createDevnetNetwork({ name, hosts: [] }).down()
  }
  const mounts = read('/proc/self/mountinfo')
  for (const directory of remains.directory) {
    // What is mounted in it may be somebody else's.
    if (mounts.includes(` ${directory.replaceAll(' ', '\\040')}`)) continue
    await runAnyway('rm', ['--recursive', '--force', '--one-file-system', '--', directory])
  }
}

/** Where directories of such names are made. */
function placesOfDirectories(): string[] {
  return [tmpdir(), '/run']
}

interface OtherProcess {
  readonly pid: number
  /**
   * Its arguments, but for texts, such as a script that speaks of something, and of the environment that it was started with
   * what tests set: a shell's, of where it has been, goes on to all that it starts.
   */
  readonly says: string
}

function otherProcesses(): OtherProcess[] {
  const own = new Set(thisAndAncestors().map(String))
  const world = pidNamespaceOf('self')
  return list('/proc')
    .filter((name) => /^\d+$/.test(name) && !own.has(name) && pidNamespaceOf(name) === world)
    .map((name) => {
      const words = (file: string): string[] => read(`/proc/${name}/${file}`).split('\0')
      const set = words('environ').filter((word) => /^(?:HOME|TMPDIR|SLICENET_\w+)=/.test(word))
      const says = [...words('cmdline'), ...set].filter((word) => !/\s/.test(word)).join('\0')
      return { pid: Number(name), says }
    })
}

/** In another one process ids mean others. */
function pidNamespaceOf(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`)
  } catch {
    return ''
  }
}

/** Whoever began this may have been told to look at what is left. */
function thisAndAncestors(): number[] {
  const found: number[] = []
  for (let pid = process.pid; pid > 0;) {
    found.push(pid)
    const stat = read(`/proc/${pid}/stat`)
    pid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1] ?? 0)
  }
  return found
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended by itself meanwhile.
  }
}

/** Under cgroups v1 a process that is frozen does not end. */
function thaw(cgroup: string): void {
  for (const below of list(cgroup)) thaw(join(cgroup, below))
  const file = join(cgroup, 'freezer.state')
  try {
    if (existsSync(file)) writeFileSync(file, 'THAWED')
  } catch {
    // It went away meanwhile.
  }
}

/** With those in it. One that still holds somebody stays, and is tried again. */
function removeCgroup(cgroup: string): void {
  for (const below of list(cgroup)) removeCgroup(join(cgroup, below))
  try {
    rmdirSync(cgroup)
  } catch {
    // It is a file of a group, has somebody in it yet, or somebody else has removed it.
  }
}

/** One that has ended holds nothing any more, though its parent was not told yet. */
function isAlive(pid: number): boolean {
  const stat = read(`/proc/${pid}/stat`)
  return stat !== '' && !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2))
}

/** Empty where there is no such directory. */
function list(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

/** Empty where there is no such file, or it is not ours to read. */
function read(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}
