/**
 * Archives of root file systems: checking a foreign one before anything of it is written, unpacking it, and packing a
 * directory so that the same files always give the same bytes. GNU tar does the work.
 */
import { once } from 'node:events'
import { closeSync, constants, fchmodSync, futimesSync } from 'node:fs'
import { posix } from 'node:path'
import { createInterface } from 'node:readline'
import { SlicenetError } from '../base/errors.ts'
import { run, start } from '../base/host-program.ts'
import { LIMITS } from '../base/limits.ts'
import { IDS_PER_VSERVER } from './id-ranges.ts'
import { withRoot } from './root-files.ts'
import { isErrno, openBeneath } from './syscall.ts'

/** The order of names, owners by number and whole seconds; extended attributes and access times are left out. */
const NORMALISED = ['--format=gnu', '--sort=name', '--numeric-owner', '--one-file-system']
const DEADLINE_MS = 20 * 60_000
/** Names at the top that are looked at to tell what an archive is. */
const TOP_NAMES_MAX = 1024

export interface ArchiveSummary {
  /** Bytes of the files, unpacked. */
  readonly bytes: number
  readonly entries: number
  /** Whether it is a root, or holds the layers of one. */
  readonly form: 'root' | 'oci-layout' | 'docker-archive'
  /** Directories that it has things in and no entry for, from its top on; that itself is `.`. */
  readonly implied: readonly string[]
}

/** What lies at the top of an OCI image layout. */
export const OCI_LAYOUT_FILES = ['oci-layout', 'index.json'] as const
/** What lies there in the older form of Docker's, beside configurations that are named by their digests. */
const DOCKER_ARCHIVE_FILE = 'manifest.json'
const CONFIGURATION_PATTERN = /^[0-9a-f]{64}\.json$/

/**
 * Reads the listing of an archive (compressed or not) and refuses what could do harm when unpacked or run: devices,
 * ways out of the directory, owners that a vserver cannot map, and sizes beyond the limits.
 * Throws `IMAGE_INVALID`, `TOO_LARGE`.
 */
export async function inspectArchive(archive: string): Promise<ArchiveSummary> {
  // With this quoting an entry is one line, and it is plain where a name ends, whatever that holds.
  const args = ['--list', '--verbose', '--numeric-owner', '--quoting-style=c', '--file', archive]
  const child = start('tar', args, ['ignore', 'pipe', 'pipe'])
  const timer = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS)
  const ended = once(child, 'close')
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    if (said.length < 2000) said += chunk.toString()
  })
  let bytes = 0
  let entries = 0
  const top = new Set<string>()
  const named = new Set<string>()
  const parents = new Set(['.'])
  try {
    for await (const line of createInterface({ input: child.stdout! })) {
      const { name, type, size } = checkEntry(line)
      const bare = posix.join('.', name).replace(/^\/+|\/+$/g, '')
      if (top.size < TOP_NAMES_MAX && !bare.includes('/')) top.add(bare)
      if (type === 'd') named.add(bare)
      for (let parent = posix.dirname(bare); !parents.has(parent); parent = posix.dirname(parent)) {
        parents.add(parent)
      }
      bytes += size
      entries++
      const most = Math.max(entries, parents.size)
      if (bytes > LIMITS.imageBytesMax || most > LIMITS.imageEntriesMax) throw tooLarge()
    }
    await ended
  } catch (error) {
    child.kill('SIGKILL')
    await ended.catch(() => {})
    throw error
  } finally {
    clearTimeout(timer)
  }
  if (child.exitCode !== 0) {
    throw new SlicenetError('IMAGE_INVALID', `not an archive that tar can read: ${said.trim().slice(0, 500)}`)
  }
  if (entries === 0) throw new SlicenetError('IMAGE_INVALID', 'the archive is empty')
  const implied = [...parents].filter((directory) => !named.has(directory))
  return { bytes, entries, form: formOf(top), implied }
}

function formOf(top: ReadonlySet<string>): ArchiveSummary['form'] {
  if (OCI_LAYOUT_FILES.every((name) => top.has(name))) return 'oci-layout'
  const isDocker = top.has(DOCKER_ARCHIVE_FILE) && [...top].some((name) => CONFIGURATION_PATTERN.test(name))
  return isDocker ? 'docker-archive' : 'root'
}

interface Entry {
  readonly name: string
  /** As `ls` has it. */
  readonly type: string
  /** That of a file, else 0. */
  readonly size: number
}

const QUOTED = String.raw`"((?:[^"\\]|\\.)*)"`
const LINE_PATTERN = new RegExp(
  String.raw`^(.)\S* +(\d+)\/(\d+) +(\S+) +\S+ +\S+ (${QUOTED}(?: (?:->|link to) ${QUOTED})?)$`
)

/** Checks one line of the listing. */
function checkEntry(line: string): Entry {
  const fields = LINE_PATTERN.exec(line)
  if (fields === null) throw invalidEntry('an entry that cannot be understood', line)
  const [, type = '', uid, gid, size, rest = '', quotedName = '', quotedTarget = ''] = fields
  if (type === 'b' || type === 'c') throw invalidEntry('a device', rest)
  if (!'-dlhp'.includes(type)) throw invalidEntry('an entry of an unknown kind', rest)
  if (Number(uid) >= IDS_PER_VSERVER || Number(gid) >= IDS_PER_VSERVER) {
    throw invalidEntry(`an owner above ${IDS_PER_VSERVER - 1}`, rest)
  }
  const [name, target] = [quotedName, quotedTarget].map(unquoted) as [string, string]
  if (leadsOut(name)) throw invalidEntry('a path with `..`', rest)
  // A symbolic link is resolved inside the vserver; a hard link is made while unpacking.
  if (type === 'h' && leadsOut(target)) throw invalidEntry('a hard link with `..`', rest)
  return { name, type, size: type === '-' ? Number(size) : 0 }
}

const ESCAPES: Readonly<Record<string, number>> = { a: 7, b: 8, t: 9, n: 10, v: 11, f: 12, r: 13 }

/** What stands between the quotes, read as UTF-8. */
function unquoted(text: string): string {
  if (!text.includes('\\')) return text
  const bytes = text.replaceAll(/\\([0-7]{1,3}|.)|[^\\]+/g, (piece, escaped: string | undefined) => {
    if (escaped === undefined) return Buffer.from(piece).toString('latin1')
    const byte = /^[0-7]/.test(escaped) ? Number.parseInt(escaped, 8) : ESCAPES[escaped]
    return byte === undefined ? escaped : String.fromCharCode(byte & 0xff)
  })
  return Buffer.from(bytes, 'latin1').toString()
}

function leadsOut(path: string): boolean {
  return path.split('/').includes('..')
}

export function tooLarge(): SlicenetError {
  return new SlicenetError('TOO_LARGE', 'the image is larger than a node takes', {
    hint: `an image has at most ${LIMITS.imageBytesMax} bytes in ${LIMITS.imageEntriesMax} files`
  })
}

export function invalidEntry(what: string, entry: string): SlicenetError {
  return new SlicenetError('IMAGE_INVALID', `the image holds ${what}: ${entry.slice(0, 200)}`, {
    hint: 'an image is a root directory of plain files, directories, links and pipes; its /dev is made anew, so leave it empty'
  })
}

/**
 * Unpacks an inspected archive into an empty directory, owners and modes as they are in it. Directories that it only implies
 * get what layers without them have, and not the time at which they were made.
 */
export async function unpackArchive(
  archive: string,
  directory: string,
  { implied }: Pick<ArchiveSummary, 'implied'>
): Promise<void> {
  await run(
    'tar',
    [
      '--extract',
      '--numeric-owner',
      '--same-owner',
      '--same-permissions',
      '--delay-directory-restore',
      '--no-xattrs',
      '--no-acls',
      '--no-selinux',
      '--directory',
      directory,
      '--file',
      archive
    ],
    { deadlineMs: DEADLINE_MS }
  )
  withRoot(directory, (rootFd) => {
    for (const path of implied) settleDirectory(rootFd, path)
  })
}

function settleDirectory(rootFd: number, path: string): void {
  let fd: number
  try {
    fd = openBeneath(rootFd, path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  } catch (error) {
    // The archive has something else there, or a name that is no text.
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG', 'EXDEV')) return
    throw error
  }
  try {
    fchmodSync(fd, 0o755)
    futimesSync(fd, 0, 0)
  } finally {
    closeSync(fd)
  }
}

/** Packs a directory into a file, normalised. Sockets are left out. */
export async function packDirectory(directory: string, archive: string): Promise<void> {
  await run('tar', ['--create', ...NORMALISED, '--directory', directory, '--file', archive, '.'], {
    deadlineMs: DEADLINE_MS
  })
}

/** The normalised archive of a directory, piece by piece. */
export async function* readArchive(directory: string): AsyncGenerator<Buffer> {
  const child = start(
    'tar',
    ['--create', ...NORMALISED, '--directory', directory, '.'],
    ['ignore', 'pipe', 'ignore']
  )
  const timer = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS)
  const ended = once(child, 'close')
  try {
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) yield chunk
    await ended
    if (child.exitCode !== 0) throw new SlicenetError('IMAGE_INVALID', `tar could not read ${directory}`)
  } finally {
    clearTimeout(timer)
    child.kill('SIGKILL')
  }
}
