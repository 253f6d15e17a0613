/**
 * What all signed objects share: type, issuer, interval and sequence number, the making and opening of their
 * envelopes, and the rule that the issuer named inside is who signed.
 */
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { cborCodec, type Schema } from '../wire/codec.ts'
import { nativeEd25519, type Ed25519 } from '../wire/ed25519.ts'
import { decodeEnvelope, payloadId, seal, verifyEnvelope } from '../wire/envelope.ts'
import { isPrincipalOf, principalSchema, type Principal, type SigningKey } from './principal.ts'
import type { Interval } from './interval.ts'

/** The first fields of every signed object. */
export interface SignedFields extends Interval {
  readonly issuer: Principal
  /** Grows with each object that this issuer makes of this type. */
  readonly seq: number
}

/** What an object says, and the name that it has by that. */
export interface Identified<T> {
  /** CID of the payload. */
  readonly id: string
  readonly body: T
}

/** A signed object whose signature was checked, with the bytes it came in and its id. */
export interface Signed<T> extends Identified<T> {
  /** The envelope. */
  readonly bytes: Uint8Array
}

/** A well-formed object whose signature nobody has looked at yet: what is cheap to check may be checked first. */
export interface Unverified<T> extends Identified<T> {
  /** Throws `SIGNATURE_INVALID`. */
  verify(ed25519?: Ed25519): Signed<T>
}

export interface ObjectType<T extends SignedFields> {
  readonly type: string
  /** Signs with node:crypto. Throws `TypeError` if the issuer is not the signer. */
  sign(body: T, key: SigningKey): Signed<T>
  /** Checks encoding, fields, interval and signature. Throws `TOO_LARGE`, `ENCODING_INVALID`, `SIGNATURE_INVALID`. */
  open(bytes: Uint8Array, ed25519?: Ed25519): Signed<T>
  /** Does what `open` does but for the signature. Throws `TOO_LARGE`, `ENCODING_INVALID`, `SIGNATURE_INVALID`. */
  decode(bytes: Uint8Array): Unverified<T>
}

export const timeSchema = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(8_640_000_000_000_000))
export const amountSchema = v.pipe(
  v.number(),
  v.integer(),
  v.minValue(0),
  v.maxValue(Number.MAX_SAFE_INTEGER)
)
/** A CID as text: CIDv1, dag-cbor, sha2-256, base32. */
export const idSchema = v.pipe(v.string(), v.regex(/^bafyrei[a-z2-7]{52}$/, 'expected an object id'))

/** Spread into the entries of each object's schema. */
export const signedEntries = {
  issuer: principalSchema,
  notBefore: timeSchema,
  notAfter: timeSchema,
  seq: amountSchema
}

const VERSION = 1

/** Defines an object type by its name in the signature's domain and the schema of its body. */
export function defineObject<T extends SignedFields>(type: string, schema: Schema<T>): ObjectType<T> {
  const codec = cborCodec(
    v.pipe(
      v.strictObject({ type: v.literal(type), version: v.literal(VERSION), body: schema }),
      v.check(({ body }) => body.notBefore < body.notAfter, 'notAfter must come after notBefore')
    )
  )
  const decode = (bytes: Uint8Array): Unverified<T> => {
    const envelope = decodeEnvelope(bytes)
    const { body } = codec.decode(envelope.payload)
    if (!isPrincipalOf(body.issuer, envelope.signer)) {
      throw new SlicenetError('SIGNATURE_INVALID', `this ${type} is not signed by the issuer it names`)
    }
    const id = payloadId(envelope.payload)
    return {
      id,
      body,
      verify(ed25519 = nativeEd25519) {
        verifyEnvelope(type, envelope, ed25519)
        return { id, bytes, body }
      }
    }
  }
  return {
    type,
    sign(body, key) {
      if (body.issuer !== key.principal) throw new TypeError(`${type}: the issuer must be the signer`)
      const payload = codec.encode({ type, version: VERSION, body })
      // What this peer could not open, it must not sign.
      codec.decode(payload)
      return { id: payloadId(payload), bytes: seal(type, payload, key.seed, nativeEd25519), body }
    },
    open: (bytes, ed25519) => decode(bytes).verify(ed25519),
    decode
  }
}
