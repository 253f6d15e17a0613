/** Refusals: a signed no, so that whoever was refused can show it, and to whom it was said and why. */
import * as v from 'valibot'
import { isErrorCode, SlicenetError, type ErrorCode } from '../base/errors.ts'
import { defineObject, idSchema, signedEntries, type Signed } from './signed-object.ts'

const schema = v.strictObject({
  ...signedEntries,
  code: v.custom<ErrorCode>(isErrorCode, 'expected an error code'),
  message: v.pipe(v.string(), v.maxLength(512)),
  /** Id of the signed request that is refused; absent when the request was not a signed object. */
  request: v.exactOptional(idSchema),
  /** Ids of the objects that show the reason. */
  evidence: v.pipe(v.array(idSchema), v.maxLength(16))
})

export type Refusal = v.InferOutput<typeof schema>
export const refusalObject = defineObject<Refusal>('refusal', schema)

/** Why something is refused, before anybody signs it: what the pure checks return. */
export interface Reason {
  readonly code: ErrorCode
  readonly message: string
  readonly evidence?: readonly string[]
}

/** The error that the refused side throws. */
export function refusalError(refusal: Signed<Refusal>): SlicenetError {
  const { code, message, issuer, evidence } = refusal.body
  return new SlicenetError(code, message, { details: { refusal: refusal.id, refusedBy: issuer, evidence } })
}
