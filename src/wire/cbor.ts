/**
 * Canonical DAG-CBOR, strictly: a decoder that takes only the one encoding that the encoder makes of a value.
 * `@ipld/dag-cbor` encodes; decoding, it accepts unsorted keys, floats of any width and any depth, and to encode its
 * result again and compare takes longer than to verify a signature, so that the decoder here checks while it reads.
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
  const reader = new Reader(bytes, limits.depthMax)
  const value = reader.value(1)
  if (reader.at !== bytes.length) throw invalid('bytes after the end')
  return value
}

function invalid(why: string, cause?: unknown): SlicenetError {
  return new SlicenetError('ENCODING_INVALID', `malformed message: ${why}`, { cause })
}

function notCanonical(): SlicenetError {
  return invalid('not the canonical encoding of its value')
}

const KEYS_KEPT = 256
const KEY_CHARS_KEPT = 32
/** Keys of maps by a hash of their bytes: for each, the one read last. */
const keysKept: (string | undefined)[] = Array(KEYS_KEPT).fill(undefined)

/** Keeps a byte order mark, which is a character like others. */
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Reads item after item. Nesting stays within `depthMax` and every declared length fits in what is there, so that a
 * few bytes can neither exhaust the stack nor ask for a huge array.
 */
class Reader {
  at = 0
  readonly #bytes: Buffer
  readonly #depthMax: number

  constructor(bytes: Uint8Array, depthMax: number) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    this.#depthMax = depthMax
  }

  /** `depth`: how many arrays and maps this item would be within if it were one. */
  value(depth: number): unknown {
    const head = this.#bytes[this.at]
    if (head === undefined) throw invalid('cut off')
    const major = head >> 5
    if (major === 7) return this.#simple(head)
    const argument = this.#argument(head & 0x1f)
    switch (major) {
      case 0:
        if (argument > Number.MAX_SAFE_INTEGER) throw invalid('an integer beyond 2^53')
        return argument
      case 1:
        if (argument >= Number.MAX_SAFE_INTEGER) throw invalid('an integer beyond 2^53')
        return -1 - argument
      case 2:
        return new Uint8Array(this.#bytes.subarray(this.at, this.#skip(argument)))
      case 3:
        return this.#text(argument)
      case 4:
      case 5:
        if (argument * (major - 3) > this.#bytes.length - this.at) throw invalid('a length beyond the end')
        if (depth >= this.#depthMax) throw invalid(`nested deeper than ${this.#depthMax}`)
        return major === 4 ? this.#array(argument, depth) : this.#map(argument, depth)
      default:
        // Ids travel as strings: one way to write a value fewer.
        throw invalid('tags are not used')
    }
  }

  /** A float has encodings that implementations disagree about, so that nothing but these three is left. */
  #simple(head: number): boolean | null {
    this.at++
    if (head === 0xf4) return false
    if (head === 0xf5) return true
    if (head === 0xf6) return null
    if (head === 0xff) throw invalid('indefinite or reserved length')
    throw invalid('neither an integer, text, bytes, a list, a map, true, false nor null')
  }

  /** The number after the head, in as few bytes as it needs. */
  #argument(info: number): number {
    this.at++
    if (info < 24) return info
    if (info > 27) throw invalid('indefinite or reserved length')
    const width = 1 << (info - 24)
    const from = this.at
    const to = this.#skip(width)
    let argument = 0
    for (let at = from; at < to; at++) argument = argument * 256 + (this.#bytes[at] ?? 0)
    if (argument < (info === 24 ? 24 : 2 ** (4 * width))) throw notCanonical()
    return argument
  }

  #skip(length: number): number {
    this.at += length
    if (this.at > this.#bytes.length) throw invalid('cut off')
    return this.at
  }

  #text(length: number): string {
    const from = this.at
    const to = this.#skip(length)
    let isAscii = true
    for (let at = from; at < to && isAscii; at++) isAscii = (this.#bytes[at] ?? 0) < 0x80
    if (isAscii) return this.#bytes.toString('latin1', from, to)
    try {
      return utf8.decode(this.#bytes.subarray(from, to))
    } catch (error) {
      throw invalid('text that is not UTF-8', error)
    }
  }

  /** Text that was a key before is not made anew: there are few of them, and they are most of the text. */
  #key(length: number): string {
    const from = this.at
    const slot =
      (length * 31 + (this.#bytes[from] ?? 0) * 7 + (this.#bytes[from + length - 1] ?? 0)) % KEYS_KEPT
    const kept = keysKept[slot]
    if (kept !== undefined && kept.length === length && from + length <= this.#bytes.length) {
      let at = 0
      while (at < length && this.#bytes[from + at] === kept.charCodeAt(at)) at++
      if (at === length) {
        this.at += length
        return kept
      }
    }
    const key = this.#text(length)
    // As many letters as bytes: it is ASCII, and can be compared with bytes.
    if (key.length === length && length <= KEY_CHARS_KEPT) keysKept[slot] = key
    return key
  }

  #array(length: number, depth: number): unknown[] {
    const items: unknown[] = []
    for (let index = 0; index < length; index++) items.push(this.value(depth + 1))
    return items
  }

  /** Keys are text, shorter ones first and equally long ones in the order of their bytes, each once. */
  #map(size: number, depth: number): Record<string, unknown> {
    const map: Record<string, unknown> = {}
    let [before, beforeEnd] = [0, 0]
    for (let index = 0; index < size; index++) {
      const head = this.#bytes[this.at]
      if (head === undefined) throw invalid('cut off')
      if (head >> 5 !== 3) throw invalid('a key that is not text')
      const length = this.#argument(head & 0x1f)
      const from = this.at
      const key = this.#key(length)
      if (index > 0) {
        const order =
          length - (beforeEnd - before) || this.#bytes.compare(this.#bytes, before, beforeEnd, from, this.at)
        if (order <= 0) throw notCanonical()
      }
      ;[before, beforeEnd] = [from, this.at]
      const value = this.value(depth + 1)
      // Assigned, it would become the map's prototype.
      if (key === '__proto__') Object.defineProperty(map, key, { value, enumerable: true })
      else map[key] = value
    }
    return map
  }
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
