/**
 * Reads a file of one signed object or a chain of them, as bytes, base64, hex or the text of an invite, and says what is in it and whether
 * it holds: encoding, fields, signatures, and the links of a chain.
 */
import * as v from 'valibot'
import { asSlicenetError, SlicenetError, type ErrorCode } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { OBJECT_TYPES } from '../ticket/any-object.ts'
import { chainFault } from '../ticket/chain.ts'
import type { Delegation } from '../ticket/delegation.ts'
import { isObjectText, parseAnyObjectText } from '../ticket/object-text.ts'
import { principalOfPublicKey } from '../ticket/principal.ts'
import { idSchema, type Signed, type SignedFields } from '../ticket/signed-object.ts'
import type { Ticket } from '../ticket/ticket.ts'
import { decodeCbor } from '../wire/cbor.ts'
import { byteString, parse } from '../wire/codec.ts'
import { nativeEd25519 } from '../wire/ed25519.ts'
import { decodeEnvelope, payloadId, verifyEnvelope } from '../wire/envelope.ts'
import { asText, decodeText, readObjectFile } from './object-file.ts'

export interface InspectedObject {
  /** As the payload says; `unknown` types are shown as far as they can be. */
  readonly type: string
  readonly id: string
  /** Who signed, by the envelope; proven only if the signature is valid. */
  readonly signer: string
  readonly signature: 'valid' | 'invalid'
  /** Why it is worth nothing, beyond a wrong signature as well: malformed fields, another issuer than signer. */
  readonly fault?: { readonly code: ErrorCode; readonly message: string }
  readonly body: Readonly<Record<string, unknown>>
}

export interface Inspection {
  readonly objects: readonly InspectedObject[]
  /** Of a delegation followed by tickets: whether its links hold now, for the last ticket's own node and holder. */
  readonly chain?: { readonly valid: boolean; readonly code?: ErrorCode; readonly message?: string }
  /** The first thing that is wrong, passing time aside. */
  readonly error?: SlicenetError
}

const FILE_LIMITS = { bytesMax: LIMITS.objectFileBytesMax, depthMax: LIMITS.objectDepthMax }
const OBJECTS_MAX = LIMITS.chainLinksMax + 1
const KNOWN = Object.values(OBJECT_TYPES)

/** Throws `NOT_FOUND`, `TOO_LARGE`, and `ENCODING_INVALID` for what holds no signed object at all. */
export async function inspectFile(path: string, now: number): Promise<Inspection> {
  return inspectBytes(await readObjectFile(path), now)
}

/** `now` is UTC ms. Throws `TOO_LARGE` and `ENCODING_INVALID`. */
export function inspectBytes(bytes: Uint8Array, now: number): Inspection {
  const envelopes = splitEnvelopes(bytes)
  if (envelopes.length > OBJECTS_MAX) {
    throw new SlicenetError('TOO_LARGE', `more than ${OBJECTS_MAX} objects in one file`)
  }
  if (envelopes.some(isBundle)) throw aProof()
  const found = envelopes.map(inspectEnvelope)
  const objects = found.map(({ shown }) => shown)
  const faulty = objects.find(({ fault }) => fault !== undefined)?.fault
  if (faulty !== undefined) return { objects, error: new SlicenetError(faulty.code, faulty.message) }
  const chain = inspectChain(found, now)
  if (chain === undefined) return { objects }
  // A chain that time has passed by was in order once.
  const isBroken = !chain.valid && chain.code !== 'TICKET_EXPIRED' && chain.code !== 'TICKET_NOT_YET_VALID'
  return {
    objects,
    chain,
    ...(isBroken ? { error: new SlicenetError(chain.code ?? 'CHAIN_INVALID', chain.message ?? '') } : {})
  }
}

interface Found {
  readonly shown: InspectedObject
  readonly signed?: Signed<SignedFields>
}

const payloadSchema = v.object({
  type: v.pipe(v.string(), v.maxLength(64)),
  version: v.number(),
  body: v.record(v.string(), v.unknown())
})

/** Whether a text is the whole id of a signed object. */
export function isObjectId(text: string): boolean {
  return v.is(idSchema, text)
}

/** What one envelope holds, and whether it is worth anything. Throws `TOO_LARGE` and `ENCODING_INVALID`. */
export function inspectObject(bytes: Uint8Array): InspectedObject {
  return inspectEnvelope(bytes).shown
}

function inspectEnvelope(bytes: Uint8Array): Found {
  const envelope = decodeEnvelope(bytes)
  const { type, body } = parse(
    payloadSchema,
    decodeCbor(envelope.payload),
    'ENCODING_INVALID',
    'not a signed object of slicenet'
  )
  const about = { type, id: payloadId(envelope.payload), signer: signerOf(envelope.signer), body }
  const signature = isSigned(type, envelope) ? 'valid' : 'invalid'
  try {
    const objectType = KNOWN.find((known) => known.type === type)
    if (objectType === undefined) {
      verifyEnvelope(type, envelope, nativeEd25519)
      return { shown: { ...about, signature } }
    }
    return { shown: { ...about, signature }, signed: objectType.open(bytes) }
  } catch (error) {
    const { code, message } = asSlicenetError(error)
    return { shown: { ...about, signature, fault: { code, message } } }
  }
}

function isSigned(type: string, envelope: ReturnType<typeof decodeEnvelope>): boolean {
  try {
    verifyEnvelope(type, envelope, nativeEd25519)
    return true
  } catch {
    return false
  }
}

function signerOf(publicKey: Uint8Array): string {
  try {
    return principalOfPublicKey(publicKey)
  } catch {
    return `no principal: ${Buffer.from(publicKey).toString('hex')}`
  }
}

function inspectChain(found: readonly Found[], now: number): Inspection['chain'] {
  const [first, ...rest] = found
  const isChain =
    first?.shown.type === 'delegation' &&
    rest.length > 0 &&
    rest.every(({ shown }) => shown.type === 'ticket')
  if (!isChain) return undefined
  const tickets = rest.map(({ signed }) => signed as Signed<Ticket>)
  const leaf = tickets.at(-1)?.body
  const fault = chainFault(
    { delegation: first.signed as Signed<Delegation>, tickets },
    { node: leaf?.node ?? '', holder: leaf?.holder ?? '', now }
  )
  return fault === undefined ? { valid: true } : { valid: false, code: fault.code, message: fault.message }
}

/** One envelope, a list of envelopes, or text with one envelope a line. */
function splitEnvelopes(bytes: Uint8Array): Uint8Array[] {
  const text = asText(bytes)
  if (text === undefined) return splitBinary(bytes)
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  if (lines.length === 0) throw notAnObject()
  if (isObjectText(text)) return splitBinary(parseAnyObjectText(text))
  // Base64 that was wrapped is one object; if each line is one by itself, each is.
  const whole = decodeText(lines.join(''))
  if (whole !== undefined && (lines.length === 1 || isWhole(whole))) return splitBinary(whole)
  const each = lines.slice(0, OBJECTS_MAX + 1).map((line) => decodeText(line))
  return each.flatMap((part) => {
    if (part === undefined) throw notAnObject()
    return splitBinary(part)
  })
}

function splitBinary(bytes: Uint8Array): Uint8Array[] {
  const value = decodeCbor(bytes, FILE_LIMITS)
  if (!Array.isArray(value)) return [bytes]
  const listSchema = v.pipe(v.array(byteString(1, LIMITS.objectBytesMax * 2)), v.minLength(1))
  return parse(listSchema, value, 'ENCODING_INVALID', 'not a list of signed objects')
}

function isWhole(bytes: Uint8Array): boolean {
  try {
    splitBinary(bytes)
    return true
  } catch {
    return false
  }
}

const bundleSchema = v.object({ proof: v.unknown(), evidence: v.unknown() })

function isBundle(bytes: Uint8Array): boolean {
  return v.is(bundleSchema, decodeCbor(bytes, FILE_LIMITS))
}

function aProof(): SlicenetError {
  return new SlicenetError('ENCODING_INVALID', 'the file holds a proof of fraud with its evidence', {
    hint: 'check it with `slicenet ticket verify-proof`'
  })
}

function notAnObject(): SlicenetError {
  return new SlicenetError('ENCODING_INVALID', 'the file holds no signed object', {
    hint: 'expected an envelope or a list of them, as bytes, base64 or hex; `slicenet ticket verify-proof` reads proofs'
  })
}
