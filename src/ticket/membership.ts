/**
 * Memberships: an organisation, which is a principal, vouches for another principal for a time. Whoever shows one is
 * served by those that serve the organisation; a name in an advertisement alone proves nothing.
 */
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { contains } from './interval.ts'
import { principalSchema, type Principal } from './principal.ts'
import { defineObject, signedEntries, type Signed } from './signed-object.ts'

const schema = v.strictObject({
  ...signedEntries,
  /** Whom the issuer, an organisation, vouches for. */
  member: principalSchema,
  /** What the organisation calls itself; for people, it proves nothing. */
  organisation: v.pipe(v.string(), v.minLength(1), v.maxLength(64))
})

export type Membership = v.InferOutput<typeof schema>
export const membershipObject = defineObject<Membership>('membership', schema)

/**
 * The organisations that vouch for `member` at `now` (UTC ms), by what it shows: envelopes, of which those that are
 * malformed, forged, of somebody else or out of time count for nothing.
 */
export function vouchedBy(
  envelopes: readonly Uint8Array[],
  { member, now }: { readonly member: Principal; readonly now: number }
): Principal[] {
  return organisationsAt(membershipsOf(envelopes, member), now)
}

/** What of that is well signed and of `member`, whatever its time. */
export function membershipsOf(envelopes: readonly Uint8Array[], member: Principal): Membership[] {
  return envelopes.flatMap((bytes) => {
    const membership = opened(bytes)
    return membership?.body.member === member ? [membership.body] : []
  })
}

/** The organisations that vouch at `now` (UTC ms). */
export function organisationsAt(memberships: readonly Membership[], now: number): Principal[] {
  const valid = memberships.filter((membership) => contains(membership, now))
  return [...new Set(valid.map(({ issuer }) => issuer))]
}

/** The parameter of calls by which a principal shows who vouches for it; none where nobody does. */
export function membershipParams(shown: readonly Uint8Array[] = []): { memberships?: Uint8Array[] } {
  return shown.length === 0 ? {} : { memberships: [...shown] }
}

/** Why a membership is of no use to `member` at `now` (UTC ms): the error to throw, if any. */
export function membershipFault(
  { body, bytes }: Signed<Membership>,
  { member, now }: { readonly member: Principal; readonly now: number }
): SlicenetError | undefined {
  if (bytes.length > LIMITS.membershipBytesMax) {
    return new SlicenetError('TOO_LARGE', `the membership has more than ${LIMITS.membershipBytesMax} bytes`, {
      hint: 'ask the organisation to vouch under a shorter name'
    })
  }
  if (body.member !== member) {
    return new SlicenetError('MEMBERSHIP_FOREIGN', `the membership is of ${body.member}, not of ${member}`, {
      details: { member: body.member, principal: member }
    })
  }
  const details = { notBefore: body.notBefore, notAfter: body.notAfter }
  if (now >= body.notAfter) {
    const at = new Date(body.notAfter).toISOString()
    return new SlicenetError('MEMBERSHIP_EXPIRED', `the membership ended at ${at}`, { details })
  }
  if (now < body.notBefore) {
    const at = new Date(body.notBefore).toISOString()
    return new SlicenetError('NOT_YET_VALID', `the membership begins at ${at}`, { details })
  }
  return undefined
}

function opened(bytes: Uint8Array): Signed<Membership> | undefined {
  try {
    return membershipObject.open(bytes)
  } catch {
    return undefined
  }
}
