/**
 * What the layers of an image come to, as a tree in memory: upper layers cover, replace and take away what lower ones
 * have. Links are followed within the tree alone, so no layer can reach what is not part of the image. Pure.
 */
import { LIMITS } from '../base/limits.ts'
import { invalidEntry, tooLarge } from './image-archive.ts'
import type { TarEntry } from './tar-reader.ts'

const WHITEOUT = '.wh.'
const OPAQUE = '.wh..wh..opq'
/** What the file system that whiteouts come from kept for itself. */
const INTERNAL = '.wh..wh.'
/** As the kernel has it. */
const LINKS_MAX = 40
const NAME_BYTES_MAX = 255
const PATH_BYTES_MAX = 4095
/** Names looked up on the way to all entries together; links could make it a thousand an entry. */
const STEPS_MAX = 64 * LIMITS.imageEntriesMax

export interface Inode {
  readonly type: 'file' | 'directory' | 'symlink' | 'fifo'
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: number
  readonly size: number
  readonly target: string
  /** Which layer has its bytes, and where. */
  readonly layer: number
  readonly offset: number
}

interface Directory {
  inode: Inode
  readonly children: Map<string, Place>
}

/** What a name stands for: several names may stand for one inode. */
type Place = Inode | Directory

/** Where layers name no directory that they have things in. */
const UNNAMED: Inode = {
  type: 'directory',
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: 0,
  size: 0,
  target: '',
  layer: 0,
  offset: 0
}

export class LayerTree {
  readonly #root: Directory = { inode: UNNAMED, children: new Map() }
  #made = 0
  #steps = 0

  /** Takes away what an entry says that its layer hides of the lower ones; all of a layer before any is added. */
  hide({ name }: Pick<TarEntry, 'name'>): void {
    const parts = partsOf(name)
    const last = parts.pop()
    if (last === undefined || !last.startsWith(WHITEOUT)) return
    const hidden = last.slice(WHITEOUT.length)
    if (hidden === '' || hidden === '.' || hidden === '..') throw invalidEntry('a whiteout of nothing', name)
    const directory = this.#find(parts)
    if (last === OPAQUE) directory?.children.clear()
    else if (!last.startsWith(INTERNAL)) directory?.children.delete(hidden)
  }

  /** Adds an entry of a layer over what is there. Throws `IMAGE_INVALID`, `TOO_LARGE`. */
  add(entry: TarEntry, layer: number): void {
    const parts = partsOf(entry.name)
    const last = parts.pop()
    if (last?.startsWith(WHITEOUT) === true) return
    if (last === undefined) {
      if (entry.type !== 'directory') throw invalidEntry('a root that is no directory', entry.name)
      this.#root.inode = inodeOf(entry, 'directory', layer)
      return
    }
    const { children } = this.#make(parts, entry.name)
    const before = children.get(last)
    if (entry.type === 'hardlink') {
      children.set(last, this.#linked(entry))
    } else if (entry.type !== 'directory') {
      children.set(last, inodeOf(entry, entry.type, layer))
    } else if (before !== undefined && isDirectory(before)) {
      before.inode = inodeOf(entry, 'directory', layer)
      return
    } else {
      children.set(last, { inode: inodeOf(entry, 'directory', layer), children: new Map() })
    }
    if (before === undefined) this.#count()
  }

  /** Every name with its inode, directories before what is in them, in the order of names. Throws `IMAGE_INVALID`. */
  *walk(): Generator<{ readonly path: string; readonly inode: Inode }> {
    const left: { path: string; place: Place }[] = [{ path: '.', place: this.#root }]
    for (let next; (next = left.pop()) !== undefined;) {
      const { path, place } = next
      if (path.length > PATH_BYTES_MAX) throw invalidEntry('a path that is too long', path)
      if (!isDirectory(place)) {
        yield { path, inode: place }
        continue
      }
      yield { path: `${path}/`, inode: place.inode }
      const names = [...place.children.keys()].sort().reverse()
      for (const name of names) left.push({ path: `${path}/${name}`, place: place.children.get(name)! })
    }
  }

  #linked(entry: TarEntry): Inode {
    const parts = partsOf(entry.target)
    const last = parts.pop()
    const target = last === undefined ? undefined : this.#find(parts)?.children.get(last)
    if (target === undefined) throw invalidEntry('a hard link to nothing', entry.name)
    if (isDirectory(target)) throw invalidEntry('a hard link to a directory', entry.name)
    return target
  }

  #find(parts: readonly string[]): Directory | undefined {
    return this.#walkTo(parts, () => undefined)
  }

  #make(parts: readonly string[], name: string): Directory {
    const directory = this.#walkTo(parts, ({ children }, part) => {
      const made = { inode: UNNAMED, children: new Map() }
      children.set(part, made)
      this.#count()
      return made
    })
    if (directory === undefined) throw invalidEntry('a file in a place that is no directory', name)
    return directory
  }

  /** The directory at a path, links on the way followed as a program whose root the tree is would. */
  #walkTo(
    parts: readonly string[],
    absent: (directory: Directory, part: string) => Directory | undefined
  ): Directory | undefined {
    const way = [this.#root]
    const left = parts.toReversed()
    let links = 0
    for (let part; (part = left.pop()) !== undefined;) {
      if (++this.#steps > STEPS_MAX) throw tooLarge()
      if (part === '' || part === '.') continue
      if (part === '..') {
        if (way.length > 1) way.pop()
        continue
      }
      const here = way.at(-1)!
      const next = here.children.get(part) ?? absent(here, part)
      if (next === undefined) return undefined
      if (isDirectory(next)) {
        way.push(next)
        continue
      }
      if (next.type !== 'symlink') return undefined
      if (++links > LINKS_MAX) throw invalidEntry('links that lead nowhere', parts.join('/'))
      if (next.target.startsWith('/')) way.length = 1
      left.push(...next.target.split('/').toReversed())
    }
    return way.at(-1)
  }

  #count(): void {
    if (++this.#made > LIMITS.imageEntriesMax) throw tooLarge()
  }
}

function isDirectory(place: Place): place is Directory {
  return 'children' in place
}

function inodeOf(entry: TarEntry, type: Inode['type'], layer: number): Inode {
  const { mode, uid, gid, mtime, size, target, offset } = entry
  if (target.length > PATH_BYTES_MAX) throw invalidEntry('a link that is too long', entry.name)
  return { type, mode, uid, gid, mtime, size, target: type === 'symlink' ? target : '', layer, offset }
}

/** Absolute names land inside, as with tar. */
function partsOf(name: string): string[] {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) throw invalidEntry('a path with `..`', name)
  if (name.length > PATH_BYTES_MAX || parts.some((part) => part.length > NAME_BYTES_MAX)) {
    throw invalidEntry('a path that is too long', name)
  }
  return parts
}
