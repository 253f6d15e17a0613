/** Refusals: a signed no, so that whoever was refused can show it, and to whom it was said and why. */
import * as v from 'valibot'
import { isErrorCode, SlicenetError, type ErrorCode } from '../base/errors.ts'
import { encodeCbor } from '../wire/cbor.ts'
import { payloadId } from '../wire/envelope.ts'
import type { Principal } from './principal.ts'
import { defineObject, idSchema, signedEntries, type Signed } from './signed-object.ts'

const MESSAGE_CHARS_MAX = 512
const EVIDENCE_MAX = 16

const schema = v.strictObject({
  ...signedEntries,
  code: v.custom<ErrorCode>(isErrorCode, 'expected an error code'),
  message: v.pipe(v.string(), v.maxLength(MESSAGE_CHARS_MAX)),
  /** Id of the signed request that is refused; or of the call, see `callId`. */
  request: v.exactOptional(idSchema),
  /** Ids of the objects that show the reason. */
  evidence: v.pipe(v.array(idSchema), v.maxLength(EVIDENCE_MAX))
})

export type Refusal = v.InferOutput<typeof schema>
export const refusalObject = defineObject<Refusal>('refusal', schema)

/** Why something is refused, before anybody signs it: what the pure checks return. */
export interface Reason {
  readonly code: ErrorCode
  readonly message: string
  readonly evidence?: readonly string[]
}

/** The error of a reason, where it is thrown rather than signed on the spot. */
export function reasonError({ code, message, evidence }: Reason): SlicenetError {
  return new SlicenetError(
    code,
    message,
    evidence === undefined ? {} : { details: { evidence: [...evidence] } }
  )
}

/** Makes the envelope of a refusal of one call; whoever has the key is behind it. */
export type Refuse = (reason: Reason, request: string) => Uint8Array

/** The name of a call that is not a signed object itself: the id of the encoding of `{method, params}`. */
export function callId(method: string, params: unknown): string {
  return payloadId(encodeCbor({ method, params }))
}

/** What may be signed of an error: its message cut to length, and the ids that its details give as evidence. */
export function reasonOf({ code, message, details }: SlicenetError): Reason {
  const { evidence } = details ?? {}
  const ids = Array.isArray(evidence) ? evidence.filter((id) => v.is(idSchema, id)) : []
  return fitReason({ code, message, evidence: ids })
}

/** As much of a reason as a refusal has room for. */
export function fitReason({ code, message, evidence = [] }: Reason): Reason {
  return { code, message: cut(message), evidence: evidence.slice(0, EVIDENCE_MAX) }
}

function cut(message: string): string {
  // A character outside the basic plane may have been cut in two.
  return message.slice(0, MESSAGE_CHARS_MAX).toWellFormed()
}

/**
 * Opens what `callee` handed over as its signed refusal of a call, which it answered with `code` and `message`. Throws
 * `PROTOCOL_ERROR` unless that is what it is.
 */
export function openCallRefusal(
  bytes: Uint8Array,
  answer: {
    readonly callee: Principal
    readonly request: string
    readonly code: string
    readonly message: string
  }
): Signed<Refusal> {
  const refusal = attemptOpen(bytes)
  const { issuer, request, code, message } = refusal.body
  const isOfThis =
    issuer === answer.callee &&
    request === answer.request &&
    code === answer.code &&
    message === cut(answer.message)
  if (isOfThis) return refusal
  throw new SlicenetError(
    'PROTOCOL_ERROR',
    `${answer.callee} refused with a signed refusal of something else`
  )
}

function attemptOpen(bytes: Uint8Array): Signed<Refusal> {
  try {
    return refusalObject.open(bytes)
  } catch (cause) {
    throw new SlicenetError('PROTOCOL_ERROR', 'what came as a signed refusal is none', { cause })
  }
}

/** What an error's details say of the refusal behind it; `envelope` is base64, so that it can be shown to others. */
export function refusalDetails({ id, body, bytes }: Signed<Refusal>): Readonly<Record<string, unknown>> {
  const envelope = Buffer.from(bytes).toString('base64')
  return { refusal: id, refusedBy: body.issuer, evidence: body.evidence, envelope }
}

/** The error that the refused side throws. */
export function refusalError(refusal: Signed<Refusal>): SlicenetError {
  return new SlicenetError(refusal.body.code, refusal.body.message, { details: refusalDetails(refusal) })
}
