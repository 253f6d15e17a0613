/**
 * Reads the YAML description of a slice: strict about fields, types and units, and exact about where a mistake is.
 * Pure: the local files that it names are read by whoever asked.
 */
import * as v from 'valibot'
import { durationUnit } from '../base/units.ts'
import { LIMITS } from '../base/limits.ts'
import type { PortWish } from '../protocol/agent-protocol.ts'
import { programSchema, uploadedFileSchema } from '../protocol/node-protocol.ts'
import {
  formatPortRanges,
  isPortProtocol,
  parsePortRange,
  portsOverlap,
  type PortRange
} from '../ticket/ports.ts'
import { sliceNameSchema } from '../ticket/resource-schema.ts'
import { RIGHTS, rightsFault, type Right } from '../ticket/rights.ts'
import { sliceDescriptionSchema, type SliceDescription } from './slice.ts'
import { PLACEMENT_FIELDS, readPlacement } from './slice-file-placement.ts'
import { readResources } from './slice-file-resources.ts'
import { readShaping } from './slice-file-shaping.ts'
import { openYaml, type YamlMap, type YamlValue } from './yaml-reader.ts'

/** A local file to put into each virtual machine. */
export interface SliceFileSource {
  /** Absolute path inside. */
  readonly path: string
  /** Path as written, relative to the description. */
  readonly source: string
  /** Permission bits; when absent, those of the local file. */
  readonly mode?: number
  /** Line of the description that names it. */
  readonly line: number
}

export interface ParsedSliceFile {
  readonly description: Omit<SliceDescription, 'files'>
  readonly files: readonly SliceFileSource[]
}

const FIELDS = [
  'name',
  'count',
  'minimum',
  ...PLACEMENT_FIELDS,
  'resources',
  'ports',
  'rights',
  'shaping',
  'lease',
  'renew',
  'image',
  'program',
  'files'
] as const

const { count: countSchema, minimum: minimumSchema, image: imageSchema } = sliceDescriptionSchema.entries
const DEFAULT_LEASE_MS = 3_600_000

/**
 * Throws `SLICE_FILE_INVALID`, whose message names line and field of the first mistake and whose `details.problems`
 * holds them all (at most 20) as `{line, field, message}`.
 */
export function parseSliceFile(text: string, init: { readonly fileName?: string } = {}): ParsedSliceFile {
  const reader = openYaml(text, {
    what: init.fileName ?? 'slice file',
    code: 'SLICE_FILE_INVALID',
    bytesMax: LIMITS.sliceFileBytesMax
  })
  const top = reader.root.map(FIELDS)
  const count = top.get('count')?.integer(countSchema) ?? 1
  const minimum = top.get('minimum')?.integer(minimumSchema) ?? count
  if (minimum > count) top.get('minimum')?.problem(`must not exceed count, which is ${count}`)
  const placement = readPlacement(top)
  const program = readProgram(top.get('program'))
  const renew = top.get('renew')?.boolean()
  const ports = readPorts(top.get('ports'))
  const rights = readRights(top.get('rights'), ports)
  const shaping = readShaping(top.get('shaping'))
  const description = {
    name: top.need('name', 'a name for the slice')?.text(sliceNameSchema) ?? '',
    count,
    minimum,
    ...placement,
    resources: readResources(top.get('resources')),
    ports,
    rights,
    ...(shaping === undefined ? {} : { shaping }),
    leaseMs: readLease(top.get('lease')),
    ...(renew === undefined ? {} : { renew }),
    image: top.need('image', 'the image to boot, such as debian')?.text(imageSchema) ?? '',
    ...(program === undefined ? {} : { program })
  }
  const files = readFiles(top.get('files'))
  reader.finish()
  return { description, files }
}

function readLease(value: YamlValue | undefined): number {
  if (value === undefined) return DEFAULT_LEASE_MS
  const leaseMs = value.amount(durationUnit)
  if (leaseMs === undefined) return DEFAULT_LEASE_MS
  if (leaseMs < 1000 || leaseMs > LIMITS.leaseMsMax) {
    value.problem(`expected 1s to ${durationUnit.format(LIMITS.leaseMsMax)}`)
  }
  return leaseMs
}

function readPorts(value: YamlValue | undefined): PortWish[] {
  const wishes: PortWish[] = []
  for (const item of value?.list(LIMITS.portRangesPerTicketMax) ?? []) {
    const text = item.text(v.string())
    if (text === undefined) continue
    const wish = readPortWish(text)
    if (wish === undefined) {
      item.problem(
        `expected tcp/any, tcp/9090, udp/9100-9110, icmp/any or gre/7, with numbers from 1 to 65535 (gre: 4294967295), got ${text}`
      )
      continue
    }
    const named = rangeOf(wish)
    const twice = named && wishes.find((other) => portsOverlap(rangeOf(other) ?? [], named))
    if (twice === undefined) wishes.push(wish)
    else item.problem(`${text} is listed twice: also in ${formatPortRanges(rangeOf(twice) ?? [])}`)
  }
  return wishes
}

function readPortWish(text: string): PortWish | undefined {
  const [protocol, any] = text.split('/')
  if (any === 'any' && text === `${protocol}/any`) return isPortProtocol(protocol) ? { protocol } : undefined
  const range = parsePortRange(text)
  if (range === undefined) return undefined
  const { first, last } = range
  return { protocol: range.protocol, port: first, ...(first === last ? {} : { last }) }
}

/** The ports that a wish names, if it does. */
function rangeOf({ protocol, port, last }: PortWish): PortRange[] | undefined {
  return port === undefined ? undefined : [{ protocol, first: port, last: last ?? port }]
}

function readRights(value: YamlValue | undefined, ports: readonly PortWish[]): Right[] {
  const rights: Right[] = []
  for (const item of value?.list(16) ?? []) {
    const right = item.oneOf(RIGHTS)
    if (right === undefined) continue
    if (rights.includes(right)) item.problem(`${right} is listed twice`)
    else rights.push(right)
  }
  const fault = rightsFault(rights, ports)
  if (fault !== undefined) value?.problem(fault)
  return rights
}

const {
  argv: argvSchema,
  cwd: cwdSchema,
  user: userSchema,
  env: envSchema,
  restart: restartSchema
} = programSchema.entries

function readProgram(value: YamlValue | undefined): SliceDescription['program'] {
  if (value === undefined) return undefined
  const program = value.map(['argv', 'env', 'cwd', 'user', 'restart'])
  const argv: string[] = []
  const argvValue = program.need('argv', 'the program and its arguments')
  for (const item of argvValue?.list(LIMITS.argumentsMax) ?? []) {
    argv.push(item.anyScalarText(argvSchema.pipe[0].item) ?? '')
  }
  if (argvValue !== undefined && argv.length === 0) argvValue.problem('expected at least the program')
  const env: Record<string, string> = {}
  for (const { key, keyValue, value } of program.get('env')?.entries() ?? []) {
    if (keyValue.text(envSchema.key) === undefined) continue
    env[key] = value.anyScalarText(envSchema.value) ?? ''
  }
  const cwd = program.get('cwd')?.text(cwdSchema.wrapped)
  const restart = program.get('restart')?.oneOf(restartSchema.wrapped.options)
  const user = program.get('user')?.anyScalarText(userSchema.wrapped)
  return {
    argv,
    env,
    ...(cwd === undefined ? {} : { cwd }),
    ...(user === undefined ? {} : { user }),
    ...(restart === undefined ? {} : { restart })
  }
}

function readFiles(value: YamlValue | undefined): SliceFileSource[] {
  const files: SliceFileSource[] = []
  for (const { key, keyValue, value: item } of value?.entries() ?? []) {
    if (files.length === LIMITS.uploadedFilesMax) {
      keyValue.problem(`at most ${LIMITS.uploadedFilesMax} files are allowed`)
      break
    }
    if (keyValue.text(uploadedFileSchema.entries.path) === undefined) continue
    const file = item.isMap() ? readFileEntry(item.map(['source', 'mode'])) : { source: readSource(item) }
    if (file.source === undefined) continue
    files.push({ ...file, path: key, source: file.source, line: keyValue.line })
  }
  return files
}

function readSource(value: YamlValue | undefined): string | undefined {
  return value?.text(v.pipe(v.string(), v.minLength(1, 'expected a path'), v.maxLength(4096)))
}

function readFileEntry(entry: YamlMap<'source' | 'mode'>): { source: string | undefined; mode?: number } {
  const source = readSource(entry.need('source', 'the local file'))
  const mode = entry.get('mode')
  // By its source text: YAML reads an unquoted 0755 as the decimal number 755.
  const text = mode?.anyScalarText(v.string())
  if (mode === undefined || text === undefined) return { source }
  const digits = /^(?:0o?)?([0-7]{3})$/.exec(text)?.[1]
  if (digits === undefined) {
    mode.problem(`expected permission bits such as "0755", got ${text}`)
    return { source }
  }
  return { source, mode: Number.parseInt(digits, 8) }
}
