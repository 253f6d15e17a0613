/** What the control socket has for memberships and for joining by invite. */
import * as v from 'valibot'
import { LIMITS } from '../base/limits.ts'
import type { Membership } from '../ticket/membership.ts'
import { principalSchema } from '../ticket/principal.ts'
import { idSchema, timeSchema, type Signed } from '../ticket/signed-object.ts'
import { byteString } from '../wire/codec.ts'

const organisationSchema = v.pipe(v.string(), v.maxLength(64))

export const membershipViewSchema = v.strictObject({
  membership: idSchema,
  /** The organisation, and what it calls itself. */
  issuer: principalSchema,
  organisation: organisationSchema,
  member: principalSchema,
  notBefore: timeSchema,
  notAfter: timeSchema
})
export type MembershipView = v.InferOutput<typeof membershipViewSchema>

export function membershipView({ id, body }: Signed<Membership>): MembershipView {
  const { issuer, organisation, member, notBefore, notAfter } = body
  return { membership: id, issuer, organisation, member, notBefore, notAfter }
}

export const joinViewSchema = v.strictObject({
  /** Who invites, and what it calls itself. */
  issuer: principalSchema,
  organisation: organisationSchema,
  bootstrap: v.array(v.string()),
  /** Those of the peers to join by that answered by now; one at least. */
  reached: v.array(principalSchema),
  membership: v.exactOptional(membershipViewSchema),
  /** Whether all of it was known before. */
  already: v.boolean()
})
export type JoinView = v.InferOutput<typeof joinViewSchema>

export const joinMethods = {
  /** Takes in a membership of this peer and shows it from now on. Throws as `Memberships.keep`. */
  membershipKeep: {
    params: v.strictObject({ membership: byteString(1, LIMITS.objectBytesMax) }),
    result: membershipViewSchema
  },
  /**
   * Joins the overlay by an invite, an envelope: reaches a peer that it names before anything is kept. Throws what is
   * wrong with the invite, `PEER_UNREACHABLE`, and `DENIED` when the peers let this one in no further.
   */
  join: { params: v.strictObject({ invite: byteString(1, LIMITS.objectBytesMax) }), result: joinViewSchema }
} as const
