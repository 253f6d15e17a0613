/**
 * Codecs: a schema that types unknown input in one place, and the bytes it travels as. Each message of a protocol and
 * each signed object has exactly one.
 */
import * as v from 'valibot'
import { SlicenetError, type ErrorCode } from '../base/errors.ts'
import { decodeCbor, encodeCbor, type CborLimits } from './cbor.ts'

export type Schema<T> = v.GenericSchema<unknown, T>

export interface Codec<T> {
  encode(value: T): Uint8Array
  /** Throws `TOO_LARGE` or `ENCODING_INVALID`. */
  decode(bytes: Uint8Array): T
}

export function cborCodec<T>(schema: Schema<T>, limits?: CborLimits): Codec<T> {
  return {
    encode: (value) => encodeCbor(value),
    decode(bytes) {
      const decoded = decodeCbor(bytes, limits)
      const typed = parse(schema, decoded, 'ENCODING_INVALID', 'malformed message')
      // Schemas drop a key `constructor` and take an empty list for an empty map, both without a word.
      if (isSame(typed, decoded)) return typed
      throw new SlicenetError('ENCODING_INVALID', 'malformed message: more in it than its fields')
    }
  }
}

/** Whether two values have the same encoding; `decoded` came out of `decodeCbor`. */
function isSame(typed: unknown, decoded: unknown): boolean {
  if (typed === decoded) return true
  if (typeof typed !== 'object' || typeof decoded !== 'object' || typed === null || decoded === null)
    return false
  if (Array.isArray(typed) || Array.isArray(decoded)) {
    return (
      Array.isArray(typed) &&
      Array.isArray(decoded) &&
      typed.length === decoded.length &&
      typed.every((item, index) => isSame(item, decoded[index]))
    )
  }
  if (typed instanceof Uint8Array || decoded instanceof Uint8Array) {
    return (
      typed instanceof Uint8Array && decoded instanceof Uint8Array && Buffer.compare(typed, decoded) === 0
    )
  }
  const [entries, others] = [Object.entries(typed), decoded as Readonly<Record<string, unknown>>]
  return (
    entries.length === Object.keys(decoded).length &&
    entries.every(([key, value]) => Object.hasOwn(others, key) && isSame(value, others[key]))
  )
}

/** A byte string of `bytesMin` to `bytesMax` bytes. */
export function byteString(bytesMin: number, bytesMax: number): Schema<Uint8Array> {
  return v.custom<Uint8Array>(
    (input) => input instanceof Uint8Array && input.length >= bytesMin && input.length <= bytesMax,
    `expected ${bytesMin === bytesMax ? bytesMin : `${bytesMin} to ${bytesMax}`} bytes`
  )
}

/** Types unknown input, or throws `code` naming each field that is wrong. */
export function parse<T>(schema: Schema<T>, input: unknown, code: ErrorCode, what: string): T {
  const result = v.safeParse(schema, input)
  if (result.success) return result.output
  const problems = result.issues.map((issue) => {
    const path = v.getDotPath(issue)
    return path === null ? issue.message : `${path}: ${issue.message}`
  })
  throw new SlicenetError(code, `${what}: ${problems.slice(0, 5).join('; ')}`, { details: { problems } })
}
