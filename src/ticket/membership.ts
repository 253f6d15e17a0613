/**
 * Memberships: an organisation, which is a principal, vouches for another principal for a time. Whoever shows one is
 * served by those that serve the organisation; a name in an advertisement alone proves nothing.
 */
import * as v from 'valibot'
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
  const organisations = envelopes.flatMap((bytes) => {
    const membership = opened(bytes)
    const holds = membership?.body.member === member && contains(membership.body, now)
    return holds ? [membership.body.issuer] : []
  })
  return [...new Set(organisations)]
}

function opened(bytes: Uint8Array): Signed<Membership> | undefined {
  try {
    return membershipObject.open(bytes)
  } catch {
    return undefined
  }
}
