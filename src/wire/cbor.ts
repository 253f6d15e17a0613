/**
 * Canonical DAG-CBOR, strictly: a decoder that takes only the one encoding that its own encoder makes of a value.
 * `@ipld/dag-cbor` alone accepts unsorted keys, floats of any width and any depth, so size and nesting are checked
 * before it runs and its result is encoded again and compared.
 */
import * as dagCbor from '@ipld/dag-cbor'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'

export interface CborLimits {
  readonly bytesMax: number
  readonly depthMax: number
}

const OBJECT_LIMITS: CborLimits = { bytesMax: LIMITS.objectBytesMax, depthMax: LIMITS.objectDepthMax }

/** Encodes integers, strings, booleans, null, bytes, arrays and maps; throws `TypeError` on anything else. */
export function encodeCbor(value: unknown): Uint8Array {
  requireIntegers(value)
  return dagCbor.encode(value)
}

/** Throws `TOO_LARGE` or `ENCODING_INVALID`; never reads past the limits. */
export function decodeCbor(bytes: Uint8Array, limits: CborLimits = OBJECT_LIMITS): unknown {
  if (bytes.length > limits.bytesMax) {
    throw new SlicenetError('TOO_LARGE', `${bytes.length} bytes where at most ${limits.bytesMax} are allowed`)
  }
  checkStructure(bytes, limits.depthMax)
  let value: unknown
  try {
    value = dagCbor.decode(bytes)
    requireIntegers(value)
    if (Buffer.compare(dagCbor.encode(value), bytes) === 0) return value
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : 'not DAG-CBOR', error)
  }
  throw invalid('not the canonical encoding of its value')
}

function invalid(why: string, cause?: unknown): SlicenetError {
  return new SlicenetError('ENCODING_INVALID', `malformed message: ${why}`, { cause })
}

/**
 * Walks the heads of the items without building values: nesting stays within `depthMax`, every declared length fits
 * in what is there, so that a few bytes can neither exhaust the stack nor ask for a huge array.
 */
function checkStructure(bytes: Uint8Array, depthMax: number): void {
  /** Items still to come at each open level. */
  const open: number[] = [1]
  let at = 0
  while (open.length > 0) {
    const level = open.length - 1
    const remaining = open[level] ?? 0
    if (remaining === 0) {
      open.pop()
      continue
    }
    open[level] = remaining - 1
    const head = bytes[at]
    if (head === undefined) throw invalid('cut off')
    const major = head >> 5
    const { argument, next } = readArgument(bytes, at, head & 0x1f)
    at = next
    if (major === 2 || major === 3) {
      at += argument
      if (at > bytes.length) throw invalid('cut off')
    } else if (major === 4 || major === 5) {
      const items = major === 4 ? argument : argument * 2
      if (items > bytes.length - at) throw invalid('a length beyond the end')
      if (open.length >= depthMax) throw invalid(`nested deeper than ${depthMax}`)
      open.push(items)
    } else if (major === 6) {
      // Ids travel as strings: one way to write a value fewer.
      throw invalid('tags are not used')
    }
  }
  if (at !== bytes.length) throw invalid('bytes after the end')
}

function readArgument(bytes: Uint8Array, at: number, info: number): { argument: number; next: number } {
  if (info < 24) return { argument: info, next: at + 1 }
  if (info > 27) throw invalid('indefinite or reserved length')
  const width = 1 << (info - 24)
  if (at + 1 + width > bytes.length) throw invalid('cut off')
  let argument = 0
  for (let i = 0; i < width; i++) argument = argument * 256 + (bytes[at + 1 + i] ?? 0)
  return { argument, next: at + 1 + width }
}

/** Signed objects hold integers only: a float has encodings that implementations disagree about. */
function requireIntegers(value: unknown): void {
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      throw new TypeError(`not a safe integer: ${Object.is(value, -0) ? '-0' : value}`)
    }
  } else if (typeof value === 'bigint') {
    throw new TypeError('an integer beyond 2^53')
  } else if (Array.isArray(value)) {
    for (const item of value) requireIntegers(item)
  } else if (typeof value === 'object' && value !== null && !(value instanceof Uint8Array)) {
    for (const item of Object.values(value)) requireIntegers(item)
  }
}
