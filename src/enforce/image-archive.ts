/**
 * Archives of root file systems: checking a foreign one before anything of it is written, unpacking it, and packing a
 * directory so that the same files always give the same bytes. GNU tar does the work.
 */
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { SlicenetError } from '../base/errors.ts'
import { run, start } from '../base/host-program.ts'
import { LIMITS } from '../base/limits.ts'
import { IDS_PER_VSERVER } from './id-ranges.ts'

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
  // With this quoting an entry is one line, whatever its name holds.
  const args = ['--list', '--verbose', '--numeric-owner', '--quoting-style=escape', '--file', archive]
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
  try {
    for await (const line of createInterface({ input: child.stdout! })) {
      const { name, size } = checkEntry(line)
      const bare = name.replace(/^\.\//, '')
      if (top.size < TOP_NAMES_MAX && !bare.includes('/')) top.add(bare)
      bytes += size
      entries++
      if (bytes > LIMITS.imageBytesMax || entries > LIMITS.imageEntriesMax) throw tooLarge()
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
  return { bytes, entries, form: formOf(top) }
}

function formOf(top: ReadonlySet<string>): ArchiveSummary['form'] {
  if (OCI_LAYOUT_FILES.every((name) => top.has(name))) return 'oci-layout'
  const isDocker = top.has(DOCKER_ARCHIVE_FILE) && [...top].some((name) => CONFIGURATION_PATTERN.test(name))
  return isDocker ? 'docker-archive' : 'root'
}

/** Checks one line of the listing. The size is that of a file, else 0. */
function checkEntry(line: string): { readonly name: string; readonly size: number } {
  const fields = /^(.)\S* +(\d+)\/(\d+) +(\S+) +\S+ +\S+ (.*)$/.exec(line)
  if (fields === null) throw invalidEntry('an entry that cannot be understood', line)
  const [, type, uid, gid, size, rest] = fields as unknown as [string, string, string, string, string, string]
  if (type === 'b' || type === 'c') throw invalidEntry('a device', rest)
  if (!'-dlhp'.includes(type)) throw invalidEntry('an entry of an unknown kind', rest)
  if (Number(uid) >= IDS_PER_VSERVER || Number(gid) >= IDS_PER_VSERVER) {
    throw invalidEntry(`an owner above ${IDS_PER_VSERVER - 1}`, rest)
  }
  const separator = type === 'l' ? ' -> ' : type === 'h' ? ' link to ' : undefined
  const [name = '', target = ''] = separator === undefined ? [rest] : rest.split(separator)
  if (leadsOut(name)) throw invalidEntry('a path with `..`', rest)
  // A symbolic link is resolved inside the vserver; a hard link is made while unpacking.
  if (type === 'h' && leadsOut(target)) throw invalidEntry('a hard link with `..`', rest)
  return { name, size: type === '-' ? Number(size) : 0 }
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

/** Unpacks an inspected archive into an empty directory, owners and modes as they are in it. */
export async function unpackArchive(archive: string, directory: string): Promise<void> {
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
