/** A proof of fraud with its evidence, as one run of bytes that a stranger can check with nothing else at hand. */
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { byteString, cborCodec } from '../wire/codec.ts'
import { openAnyObject, type AnyObject } from './any-object.ts'
import { equivocation, overDelegated, overIssued, portLeasedTwice, type Finding } from './fraud.ts'
import { fraudProofObject, type FraudProof } from './fraud-proof.ts'
import type { SigningKey } from './principal.ts'
import type { Signed, Unverified } from './signed-object.ts'

/** `{proof: envelope, evidence: [envelope]}` in canonical DAG-CBOR, at most 240 KiB. */
const bundleCodec = cborCodec(
  v.strictObject({
    proof: byteString(1, LIMITS.objectBytesMax),
    evidence: v.pipe(
      v.array(byteString(1, LIMITS.objectBytesMax)),
      v.minLength(2),
      v.maxLength(LIMITS.proofObjectsMax)
    )
  }),
  { bytesMax: LIMITS.proofBytesMax, depthMax: 3 }
)

export interface FraudBundle {
  readonly proof: Signed<FraudProof>
  /** As recomputed from the evidence. */
  readonly finding: Finding
  /** The whole, as it travels and lies in files. */
  readonly bytes: Uint8Array
}

/** Signs a finding. `seq` orders the proofs of one issuer; `now` is UTC ms. Throws `TOO_LARGE`. */
export function bundleFinding(
  finding: Finding,
  key: SigningKey,
  { now, seq }: { readonly now: number; readonly seq: number }
): FraudBundle {
  const { kind, accused, evidence } = finding
  if (evidence.length > LIMITS.proofObjectsMax) throw tooLarge()
  const ids = evidence.map(({ id }) => id)
  const body = { issuer: key.principal, notBefore: now, notAfter: now + LIMITS.proofLifeMsMax, seq }
  const proof = fraudProofObject.sign({ ...body, kind, accused, evidence: ids }, key)
  const bytes = bundleCodec.encode({ proof: proof.bytes, evidence: evidence.map((object) => object.bytes) })
  if (bytes.length > LIMITS.proofBytesMax) throw tooLarge()
  return { proof, finding, bytes }
}

/** What a bundle claims, which nobody has looked at yet. Throws `TOO_LARGE`, `ENCODING_INVALID`, `SIGNATURE_INVALID`. */
export function peekBundle(bytes: Uint8Array): Unverified<FraudProof> {
  return fraudProofObject.decode(bundleCodec.decode(bytes).proof)
}

/**
 * Opens a bundle and recomputes it. Throws `PROOF_INVALID` when the evidence does not show what is claimed, and as
 * `ObjectType.open` for what is malformed or not signed.
 */
export function openBundle(bytes: Uint8Array): FraudBundle {
  const parts = bundleCodec.decode(bytes)
  const proof = fraudProofObject.open(parts.proof)
  const evidence = parts.evidence.map(openAnyObject)
  const ids = evidence.map(({ object }) => object.id)
  if (ids.length !== proof.body.evidence.length || ids.some((id, at) => id !== proof.body.evidence[at])) {
    throw new SlicenetError('PROOF_INVALID', 'the evidence is not what the proof names')
  }
  const finding = recompute(proof.body.kind, evidence)
  if (finding === undefined || finding.accused !== proof.body.accused) {
    throw new SlicenetError('PROOF_INVALID', `the evidence does not show ${proof.body.kind} of the accused`)
  }
  return { proof, finding, bytes }
}

function recompute(kind: FraudProof['kind'], evidence: readonly AnyObject[]): Finding | undefined {
  const [first, second] = evidence
  if (first === undefined || second === undefined) return undefined
  if (kind === 'over-issued') return recomputeIssued(first, evidence)
  if (kind === 'over-delegated') return recomputeDelegated(first, evidence)
  if (kind === 'equivocation') return equivocation(first, second)
  return first.type === 'lease' && second.type === 'lease'
    ? portLeasedTwice(first.object, second.object)
    : undefined
}

function recomputeIssued(parent: AnyObject, evidence: readonly AnyObject[]): Finding | undefined {
  const tickets = evidence.slice(1).flatMap((one) => (one.type === 'ticket' ? [one.object] : []))
  const isParent = parent.type === 'delegation' || parent.type === 'ticket'
  return isParent ? overIssued(parent.object, tickets) : undefined
}

function recomputeDelegated(advert: AnyObject, evidence: readonly AnyObject[]): Finding | undefined {
  const delegations = evidence.flatMap((one) => (one.type === 'delegation' ? [one.object] : []))
  if (advert.type !== 'advertisement' || advert.object.body.role !== 'node') return undefined
  return overDelegated({ ...advert.object, body: advert.object.body }, delegations)
}

function tooLarge(): SlicenetError {
  return new SlicenetError('TOO_LARGE', 'the evidence is more than a proof holds')
}
