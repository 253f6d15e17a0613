/**
 * Reads and writes files in a vserver's root from outside. What lies in there belongs to the slice, who may put a
 * link, a pipe or a device anywhere at any moment; so every path is resolved by the kernel as if the root were ours
 * (openat2), files are written beside and renamed, and only regular files are read.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  openSync,
  readSync,
  writeSync
} from 'node:fs'
import { randomBytes } from 'node:crypto'
import { posix } from 'node:path'
import { isErrno, makeDirectoryAt, openBeneath, renameAt, unlinkAt } from './syscall.ts'

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants
const O_PATH = 0o10000000
export const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export interface FileOwner {
  /** Ids as the host sees them. */
  readonly uid: number
  readonly gid: number
}

/** Calls `use` with a descriptor of the root directory. */
export function withRoot<T>(directory: string, use: (rootFd: number) => T): T {
  const fd = openSync(directory, O_PATH | O_DIRECTORY)
  try {
    return use(fd)
  } finally {
    closeSync(fd)
  }
}

/** The text of a regular file of at most `bytesMax` bytes; undefined when there is none. */
export function readFileBeneath(rootFd: number, path: string, bytesMax: number): string | undefined {
  let fd: number
  try {
    // Opening a pipe must not wait for somebody to write into it.
    fd = openBeneath(rootFd, path, O_RDONLY | O_NONBLOCK)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EXDEV', 'ENXIO', 'EACCES')) return undefined
    throw error
  }
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile() || stat.size > bytesMax) return undefined
    const buffer = Buffer.alloc(stat.size)
    let length = 0
    while (length < buffer.length) {
      const count = readSync(fd, buffer, length, buffer.length - length, length)
      if (count === 0) break
      length += count
    }
    return buffer.toString('utf8', 0, length)
  } finally {
    closeSync(fd)
  }
}

/** Puts a file at an absolute path over what is there, making the directories above it. */
export function writeFileBeneath(
  rootFd: number,
  path: string,
  content: Uint8Array,
  init: FileOwner & { readonly mode: number; readonly directories?: FileOwner & { readonly mode: number } }
): void {
  const name = posix.basename(path)
  const above = init.directories ?? { uid: init.uid, gid: init.gid, mode: 0o755 }
  const directory = openDirectoryBeneath(rootFd, posix.dirname(path), above)
  const temporary = `.slicenet-${randomBytes(9).toString('hex')}`
  try {
    const fd = openBeneath(directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, { mode: 0o600 })
    try {
      for (let offset = 0; offset < content.length;) offset += writeSync(fd, content, offset)
      // The owner first: giving a file away clears its set-user-id bit.
      fchownSync(fd, init.uid, init.gid)
      fchmodSync(fd, init.mode & 0o7777)
    } finally {
      closeSync(fd)
    }
    renameAt(directory, temporary, name)
  } catch (error) {
    try {
      unlinkAt(directory, temporary)
    } catch (cleanUpError) {
      if (!isErrno(cleanUpError, 'ENOENT')) throw cleanUpError
    }
    throw error
  } finally {
    closeSync(directory)
  }
}

/** Opens a directory, making it and those above it where they lack. */
function openDirectoryBeneath(
  rootFd: number,
  path: string,
  init: FileOwner & { readonly mode: number }
): number {
  try {
    return openBeneath(rootFd, path, O_RDONLY | O_DIRECTORY)
  } catch (error) {
    if (!isErrno(error, 'ENOENT') || path === '/') throw error
  }
  const parent = openDirectoryBeneath(rootFd, posix.dirname(path), init)
  try {
    makeDirectoryAt(parent, posix.basename(path), init.mode)
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error
  } finally {
    closeSync(parent)
  }
  const fd = openBeneath(rootFd, path, O_RDONLY | O_DIRECTORY)
  try {
    fchownSync(fd, init.uid, init.gid)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** Whether there is such a directory in the root itself; what /proc and /dev show inside is no place to work in. */
export function hasDirectory(rootFd: number, path: string): boolean {
  try {
    closeSync(openBeneath(rootFd, path, O_PATH | O_DIRECTORY))
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EXDEV', 'EACCES', 'ENAMETOOLONG')) return false
    throw error
  }
}

/** Where a program is found when `argv0` is run with this PATH from `cwd`; an absolute path. */
export function findProgram(
  rootFd: number,
  argv0: string,
  pathVariable: string,
  cwd: string
): string | undefined {
  if (argv0 === '') return undefined
  const candidates = argv0.includes('/')
    ? [posix.resolve(cwd, argv0)]
    : pathVariable.split(':').map((directory) => posix.resolve(cwd, directory, argv0))
  return candidates.find((path) => isExecutable(rootFd, path))
}

/** The first bytes of a program, fewer when it has no more; none of what is no regular file. */
export function readProgramHead(rootFd: number, path: string, bytes: number): Buffer {
  const fd = openBeneath(rootFd, path, O_RDONLY | O_NONBLOCK, { crossMounts: true })
  try {
    const head = Buffer.alloc(bytes)
    return head.subarray(0, fstatSync(fd).isFile() ? readSync(fd, head, 0, bytes, 0) : 0)
  } finally {
    closeSync(fd)
  }
}

function isExecutable(rootFd: number, path: string): boolean {
  try {
    const fd = openBeneath(rootFd, path, O_PATH, { crossMounts: true })
    try {
      const stat = fstatSync(fd)
      return stat.isFile() && (stat.mode & 0o111) !== 0
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'EACCES', 'ENAMETOOLONG')) return false
    throw error
  }
}
