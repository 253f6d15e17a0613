/**
 * Names for what the tests of this directory and benchmarks make on the machine: cgroups, namespaces, mounts, directories, devnets.
 * Each tells which process it is of, so that two runs never meet and what a killed one left can be found and removed.
 */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * Begins the name of a devnet or node. What bears it is removed once its process is gone, so it is one that no user gives to a
 * devnet of theirs by accident; it is short because such a name has at most 16 letters and digits, and a node's 24.
 */
const PREFIX = 'zzt'
const NAME = String.raw`(?:slicenet|sn)-(${PREFIX}[a-z]{1,6}(\d{1,7}))`
const COMPONENT = new RegExp(`^${NAME}(?:-.*)?$`, 's')
const MENTION = new RegExp(String.raw`(?<![\w-])${NAME}(?![a-z0-9])`, 'g')

/** Whose a thing is. */
export interface Owner {
  /** As `ownName` gave it. */
  readonly name: string
  readonly pid: number
}

/** Of this process: for a devnet, or a node on this machine, also with `-…` behind. `letters` are 1 to 6 of a to z. */
export function ownName(letters: string): string {
  if (!/^[a-z]{1,6}$/.test(letters)) throw new TypeError(`1 to 6 letters, not ${letters}`)
  return `${PREFIX}${letters}${process.pid}`
}

/** Makes a directory in that for temporary files; `what` may be said of it in its name. */
export async function ownDirectory(letters: string, what = ''): Promise<string> {
  return mkdtemp(join(tmpdir(), `slicenet-${ownName(letters)}-${what}`))
}

/** The same for the state of daemons: of a shorter name, since the path of a Unix socket has at most 107 bytes. */
export async function ownHome(letters: string): Promise<string> {
  return mkdtemp(join(tmpdir(), `sn-${ownName(letters)}-`))
}

/** The owner that a file's, a cgroup's or a namespace's name, without its directory, tells of. */
export function ownerOf(component: string): Owner | undefined {
  const [, name, pid] = COMPONENT.exec(component) ?? []
  return name === undefined ? undefined : { name, pid: Number(pid) }
}

/** The owners of all that a text names. */
export function ownersIn(text: string): Owner[] {
  return [...text.matchAll(MENTION)].map(([, name = '', pid]) => ({ name, pid: Number(pid) }))
}
