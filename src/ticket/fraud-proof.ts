/**
 * Proofs of fraud (design §3, SHARP): signed objects that contradict what their signer promised. A proof names its
 * evidence; whoever has both, in one file, recomputes it and need believe nobody, its signer least of all.
 */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import { principalSchema } from './principal.ts'
import { defineObject, idSchema, signedEntries } from './signed-object.ts'

/**
 * - `over-issued`: an agent cut more from a delegation or ticket than that allows: in sum, or by one ticket, or a port
 *   twice. Evidence: what was cut from, then the tickets.
 * - `equivocation`: two objects of one type, issuer and sequence number. Evidence: the two.
 * - `over-delegated`: a node delegated more than its advertisement owns to. Evidence: that, then the delegations.
 * - `port-leased-twice`: a node leased a port to two virtual machines at one instant. Evidence: the two leases.
 */
export const FRAUD_KINDS = ['over-issued', 'equivocation', 'over-delegated', 'port-leased-twice'] as const
export type FraudKind = (typeof FRAUD_KINDS)[number]

const schema = v.strictObject({
  // The interval is how long it is to be kept and passed on. The issuer is whoever found it; nothing rests on the name.
  ...signedEntries,
  kind: v.picklist(FRAUD_KINDS),
  accused: principalSchema,
  /** Ids of the objects that show it, in the order in which they come with it. */
  evidence: v.pipe(v.array(idSchema), v.minLength(2), v.maxLength(LIMITS.proofObjectsMax))
})

export type FraudProof = v.InferOutput<typeof schema>
export const fraudProofObject = defineObject<FraudProof>('fraud-proof', schema)
