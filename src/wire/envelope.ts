/**
 * Signed envelopes: bytes are signed, never objects, under a domain string of their type, so that a signature on one
 * type is worth nothing on another. The id of what is signed is the CID of the payload, never of the signature,
 * which has more than one valid form in the eyes of some libraries (design §3).
 */
import { hash } from 'node:crypto'
import { base32 } from 'multiformats/bases/base32'
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { byteString, cborCodec } from './codec.ts'
import type { Ed25519 } from './ed25519.ts'

export interface Envelope {
  /** Canonical DAG-CBOR of the object. */
  readonly payload: Uint8Array
  /** The 32-byte ed25519 public key. */
  readonly signer: Uint8Array
  readonly signature: Uint8Array
}

const envelopeCodec = cborCodec(
  v.strictObject({
    payload: byteString(1, LIMITS.objectBytesMax),
    signer: byteString(32, 32),
    signature: byteString(64, 64)
  })
)

/** CIDv1, dag-cbor, and a sha2-256 hash of 32 bytes. */
const CID_PREFIX = Uint8Array.of(0x01, 0x71, 0x12, 0x20)

/** CIDv1 (dag-cbor, sha2-256) in base32. */
export function payloadId(payload: Uint8Array): string {
  return base32.encode(Buffer.concat([CID_PREFIX, hash('sha256', payload, 'buffer')]))
}

function signedBytes(type: string, payload: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`slicenet/v1/${type}\0`, 'utf8'), payload])
}

/** Signs a payload and gives the bytes of its envelope. */
export function seal(type: string, payload: Uint8Array, seed: Uint8Array, ed25519: Ed25519): Uint8Array {
  return envelopeCodec.encode({
    payload,
    signer: ed25519.publicKey(seed),
    signature: ed25519.sign(seed, signedBytes(type, payload))
  })
}

/** Decodes an envelope without looking at its signature. Throws `ENCODING_INVALID` or `TOO_LARGE`. */
export function decodeEnvelope(bytes: Uint8Array): Envelope {
  return envelopeCodec.decode(bytes)
}

/** Throws `SIGNATURE_INVALID` unless the signer signed this payload as an object of this type. */
export function verifyEnvelope(type: string, envelope: Envelope, ed25519: Ed25519): void {
  if (!ed25519.verify(envelope.signer, signedBytes(type, envelope.payload), envelope.signature)) {
    throw new SlicenetError('SIGNATURE_INVALID', `the signature of this ${type} is not its signer's`)
  }
}
