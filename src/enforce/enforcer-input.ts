/** What every monitor asks of its callers' input, so that all of them refuse the same things in the same words. Pure. */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { RESOURCE_NAMES, type Resources } from '../ticket/resources.ts'
import { rightsFault } from '../ticket/rights.ts'
import { shapingDiffering } from '../ticket/shaping.ts'
import type { ProgramSpec, UploadedFile, VserverSpec, VserverUsage } from './enforcer.ts'

const ID_PATTERN = /^[a-z0-9-]{1,40}$/
const SLICE_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/
const ENVIRONMENT_NAME_PATTERN = /^[A-Za-z_][A-Za-z0-9_]*$/
const KEY_CHARS_MAX = 8192
const PATH_BYTES_MAX = 4095

/** Throws `USAGE`. */
export function checkVserverSpec(spec: VserverSpec): void {
  if (!ID_PATTERN.test(spec.id)) throw usage(`${JSON.stringify(spec.id)} cannot name a virtual machine`)
  if (!SLICE_PATTERN.test(spec.slice)) throw usage(`${JSON.stringify(spec.slice)} cannot name a slice`)
  const fault = rightsFault(spec.rights, spec.ports)
  if (fault !== undefined) throw usage(fault)
  checkResources(spec.resources)
  checkKeys(spec.keys)
}

/** Throws `USAGE`. */
export function checkResources(resources: Resources): void {
  for (const name of RESOURCE_NAMES) {
    const amount = resources[name]
    if (!Number.isSafeInteger(amount) || amount < 0) throw usage(`${name} must be a whole number, 0 or more`)
  }
}

/** Throws `IN_USE` when a virtual machine uses more than it is to have. */
export function requireRoom(id: string, used: VserverUsage, resources: Resources): void {
  for (const name of ['memoryBytes', 'diskBytes', 'pids'] as const) {
    if (used[name] <= resources[name]) continue
    throw new SlicenetError(
      'IN_USE',
      `vserver ${id} uses ${used[name]} of ${name}, more than ${resources[name]}`
    )
  }
}

/** What nobody can ask of a virtual machine whose time stands still. */
export function frozen(id: string): SlicenetError {
  return new SlicenetError('BUSY', `vserver ${id} is frozen`, { hint: 'thaw it first' })
}

/** Throws `USAGE`, `TOO_LARGE`. */
export function checkKeys(keys: readonly string[]): void {
  if (keys.length > LIMITS.keysPerLeaseMax) throw tooLarge(`more than ${LIMITS.keysPerLeaseMax} keys`)
  for (const key of keys) {
    if (key.length > KEY_CHARS_MAX) throw tooLarge('a key is too long')
    if (/[\n\r\0]/.test(key)) throw usage('a key is one line')
  }
}

/** Throws `USAGE`, `TOO_LARGE`. */
export function checkProgram(program: ProgramSpec): void {
  const { argv, cwd } = program
  if (argv.length === 0 || argv[0] === '') throw usage('a program needs a name')
  if (argv.length > LIMITS.argumentsMax) throw tooLarge(`more than ${LIMITS.argumentsMax} arguments`)
  const environment = Object.entries(program.env)
  const texts = [...argv, ...environment.flat(), cwd ?? '/', program.user ?? '']
  const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text) + 1, 0)
  if (bytes > LIMITS.argumentBytesMax) throw tooLarge('arguments and environment are too long')
  if (texts.some((text) => text.includes('\0'))) throw usage('arguments hold no NUL')
  if (environment.some(([name]) => !ENVIRONMENT_NAME_PATTERN.test(name))) {
    throw usage('names of the environment are letters, digits and underscores')
  }
  if (cwd !== undefined && !cwd.startsWith('/')) throw usage('the working directory is an absolute path')
}

/** Throws `USAGE`, `TOO_LARGE`. */
export function checkUpload(files: readonly UploadedFile[]): void {
  if (files.length > LIMITS.uploadedFilesMax) throw tooLarge(`more than ${LIMITS.uploadedFilesMax} files`)
  for (const { path, content, mode } of files) {
    const parts = path.split('/').slice(1)
    if (!path.startsWith('/') || parts.some((part) => part === '' || part === '.' || part === '..')) {
      throw usage(`${JSON.stringify(path)} is no absolute path of a file`)
    }
    if (Buffer.byteLength(path) > PATH_BYTES_MAX || path.includes('\0')) throw usage('a path is too long')
    if (content.length > LIMITS.uploadedFileBytesMax) {
      throw tooLarge(`${path} has more than ${LIMITS.uploadedFileBytesMax} bytes`)
    }
    if (!Number.isInteger(mode) || mode < 0 || mode > 0o7777) throw usage(`${path} has no valid mode`)
  }
}

/** Whether two specifications ask for the same machine; the keys may change while it runs. */
export function isSameSpec(a: VserverSpec, b: VserverSpec): boolean {
  return canonical(a) === canonical(b) && shapingDiffering(a.shaping, b.shaping).length === 0
}

function canonical(spec: VserverSpec): string {
  return JSON.stringify([
    spec.id,
    spec.slice,
    spec.image,
    RESOURCE_NAMES.map((name) => spec.resources[name]),
    spec.ports.map(({ protocol, first, last }) => `${protocol}/${first}-${last}`).sort(),
    [...spec.rights].sort()
  ])
}

function usage(message: string): SlicenetError {
  return new SlicenetError('USAGE', message)
}

function tooLarge(message: string): SlicenetError {
  return new SlicenetError('TOO_LARGE', message)
}
