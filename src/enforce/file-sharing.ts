/**
 * Keeps one copy on the disk, and in memory, of the files that images have in common: a new root gets hard links to those
 * of other roots that are the same in content, place and attributes. Roots are never changed, so none can change another.
 */
import { randomBytes } from 'node:crypto'
import { link, lstat, open, readdir, rename, rm, utimes } from 'node:fs/promises'
import type { Stats } from 'node:fs'
import { dirname, join } from 'node:path'
import { together } from '../base/together.ts'

/** Files that are compared at a time, and how much of each. */
const AT_ONCE = 8
const COMPARE_BYTES = 256 * 1024

export interface Shared {
  readonly files: number
  readonly bytes: number
}

/**
 * Links what it can. `root` is not visible to anybody yet. Names and attributes stay as they are, and no two names of one
 * root come to be one file that were not before, since that would make another image of it.
 */
export async function shareFiles(root: string, others: readonly string[]): Promise<Shared> {
  let files = 0
  let bytes = 0
  /** Of other roots: a file that they have under two names stays one name's here. */
  const taken = new Set<string>()
  const buffers = Array.from({ length: AT_ONCE }, () => [
    Buffer.alloc(COMPARE_BYTES),
    Buffer.alloc(COMPARE_BYTES)
  ])
  const left: Place[] = [{ path: root, others }]
  for (let next; (next = left.pop()) !== undefined;) {
    const before = await lstat(next.path)
    const { directories, plain } = await placesIn(next)
    left.push(...directories)
    let isChanged = false
    const work = async (pair: readonly Buffer[]): Promise<void> => {
      for (let place; (place = plain.pop()) !== undefined;) {
        const size = await shareFile(place, taken, pair)
        if (size === 0) continue
        isChanged = true
        files += 1
        bytes += size
      }
    }
    await together(buffers.map(work))
    if (isChanged) await utimes(next.path, before.atime, before.mtime)
  }
  return { files, bytes }
}

/** A file or directory of the new root, and what other roots have in its place. */
interface Place {
  readonly path: string
  readonly others: readonly string[]
}

async function placesIn({
  path,
  others
}: Place): Promise<{ readonly directories: Place[]; readonly plain: Place[] }> {
  const directories: Place[] = []
  const plain: Place[] = []
  for (const entry of await readdir(path, { withFileTypes: true, encoding: 'buffer' })) {
    const name = entry.name.toString('latin1')
    // A name that is no ASCII is left as it is: paths are texts here.
    if (!/^[\x20-\x7e]+$/.test(name)) continue
    const candidates = others.map((other) => join(other, name))
    if (entry.isFile()) plain.push({ path: join(path, name), others: candidates })
    else if (entry.isDirectory()) {
      // A link in another root could lead out of it.
      const same = await found(candidates, (stats) => stats.isDirectory())
      if (same.length > 0) directories.push({ path: join(path, name), others: same.map(({ path }) => path) })
    }
  }
  return { directories, plain }
}

/** Gives how large the file is that is shared from now on; 0 where none is. */
async function shareFile(
  { path, others }: Place,
  taken: Set<string>,
  buffers: readonly Buffer[]
): Promise<number> {
  const own = await lstat(path)
  if (own.size === 0 || own.nlink > 1) return 0
  for (const { path: other, stats } of await found(others, (stats) => isAlike(own, stats))) {
    if (!(await isSameContent(path, other, buffers))) continue
    const inode = inodeOf(stats)
    if (taken.has(inode)) continue
    taken.add(inode)
    const temporary = join(dirname(path), `.sharing-${randomBytes(6).toString('hex')}`)
    try {
      await link(other, temporary)
      await rename(temporary, path)
      return own.size
    } catch {
      // The other image was removed meanwhile, or the file has as many names as it can.
      await rm(temporary, { force: true })
    }
  }
  return 0
}

async function found(
  paths: readonly string[],
  test: (stats: Stats) => boolean
): Promise<{ readonly path: string; readonly stats: Stats }[]> {
  const looked = paths.map(async (path) => ({ path, stats: await lstat(path).catch(() => undefined) }))
  return (await Promise.all(looked)).flatMap(({ path, stats }) =>
    stats !== undefined && test(stats) ? [{ path, stats }] : []
  )
}

/** Whole seconds are all that an image has of a time. */
function isAlike(a: Stats, b: Stats): boolean {
  const second = (stats: Stats): number => Math.floor(stats.mtimeMs / 1000)
  return (
    b.isFile() &&
    a.dev === b.dev &&
    a.size === b.size &&
    a.mode === b.mode &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    second(a) === second(b)
  )
}

function inodeOf({ dev, ino }: Stats): string {
  return `${dev}:${ino}`
}

async function isSameContent(one: string, other: string, buffers: readonly Buffer[]): Promise<boolean> {
  const [mine, theirs] = buffers as [Buffer, Buffer]
  try {
    await using a = await open(one)
    await using b = await open(other)
    for (let at = 0; ; at += COMPARE_BYTES) {
      const [{ bytesRead: n }, { bytesRead: m }] = await Promise.all([
        a.read(mine, 0, COMPARE_BYTES, at),
        b.read(theirs, 0, COMPARE_BYTES, at)
      ])
      if (n !== m || !mine.subarray(0, n).equals(theirs.subarray(0, m))) return false
      if (n < COMPARE_BYTES) return true
    }
  } catch {
    // The other image was removed meanwhile.
    return false
  }
}
