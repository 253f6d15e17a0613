/** A proof of fraud for people and programs to look at: what it comes to, and each piece that it rests on. */
import * as v from 'valibot'
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import { openBundle, type FraudBundle } from '../ticket/fraud-bundle.ts'
import { FRAUD_KINDS } from '../ticket/fraud-proof.ts'
import { principalSchema } from '../ticket/principal.ts'
import { amountSchema, idSchema, timeSchema } from '../ticket/signed-object.ts'
import { inspectObject, type InspectedObject } from './inspection.ts'
import { asText, decodeText, readObjectFile } from './object-file.ts'

export const proofViewSchema = v.strictObject({
  proof: idSchema,
  kind: v.picklist(FRAUD_KINDS),
  accused: principalSchema,
  /** Who found it; nothing rests on the name. */
  finder: principalSchema,
  /** What the evidence comes to. */
  message: v.string(),
  /** UTC ms: when it was found, and until when it is kept and passed on. */
  notBefore: timeSchema,
  notAfter: timeSchema,
  /** Objects that it rests on, and bytes of the whole. */
  evidence: amountSchema,
  bytes: amountSchema
})
export type ProofView = v.InferOutput<typeof proofViewSchema>

export function proofView({ proof, finding, bytes }: FraudBundle): ProofView {
  const { issuer, notBefore, notAfter } = proof.body
  return {
    proof: proof.id,
    kind: finding.kind,
    accused: finding.accused,
    finder: issuer,
    message: finding.message,
    notBefore,
    notAfter,
    evidence: finding.evidence.length,
    bytes: bytes.length
  }
}

export interface VerifiedProof {
  readonly proof: ProofView
  /** In the order of the proof. */
  readonly evidence: readonly InspectedObject[]
}

/**
 * Recomputes the proof in a file, with nothing else at hand. Throws `NOT_FOUND` without the file, and what makes it no
 * proof: `PROOF_INVALID`, `SIGNATURE_INVALID`, `ENCODING_INVALID`.
 */
export async function verifyProofFile(path: string): Promise<VerifiedProof> {
  const file = await readObjectFile(path)
  const text = asText(file)
  return verifyProof(text === undefined ? file : (decodeText(text) ?? file))
}

/** Throws as `verifyProofFile`. */
export function verifyProof(bytes: Uint8Array): VerifiedProof {
  try {
    const bundle = openBundle(bytes)
    const { evidence } = bundle.finding
    const pieces = new Map(evidence.map((object) => [object.id, object.bytes]))
    const ordered = bundle.proof.body.evidence.flatMap((id) => pieces.get(id) ?? [])
    return { proof: proofView(bundle), evidence: ordered.map(inspectObject) }
  } catch (error) {
    const { code, message } = asSlicenetError(error)
    // More than a proof may be is none.
    if (code === 'TOO_LARGE') throw new SlicenetError('PROOF_INVALID', message, { cause: error })
    if (code !== 'ENCODING_INVALID') throw error
    throw new SlicenetError('ENCODING_INVALID', `the file holds no proof of fraud: ${message}`, {
      hint: 'expected what `slicenet proof save` writes, as bytes, base64 or hex',
      cause: error
    })
  }
}
