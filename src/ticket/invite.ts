/**
 * Invites: somebody asks others into the overlay, by naming peers to join by and, where an organisation does, vouching
 * for whom it invites. They travel as text over channels of people's own.
 */
import { multiaddr } from '@multiformats/multiaddr'
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { decodeCbor } from '../wire/cbor.ts'
import { byteString, parse } from '../wire/codec.ts'
import { decodeEnvelope } from '../wire/envelope.ts'
import { membershipFault, membershipObject, type Membership } from './membership.ts'
import type { Principal } from './principal.ts'
import { defineObject, signedEntries, type Signed } from './signed-object.ts'

const PEER_ADDRESS = /^\/[\x21-\x7e]+\/p2p\/12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/

/** A multiaddr in its one canonical form, which ends in the peer that is there. */
export const peerAddressSchema = v.pipe(
  v.string(),
  v.maxLength(LIMITS.invitedAddressCharsMax),
  v.regex(PEER_ADDRESS, 'expected a multiaddr that ends in /p2p/<peer id>'),
  v.check(isCanonical, 'expected a multiaddr in its canonical form')
)

const schema = v.strictObject({
  ...signedEntries,
  /** Where there are peers to join by. */
  bootstrap: v.pipe(
    v.array(peerAddressSchema),
    v.minLength(1),
    v.maxLength(LIMITS.invitedAddressesMax),
    v.check((addresses) => new Set(addresses).size === addresses.length, 'expected every address once')
  ),
  /** What the issuer calls itself; for people, it proves nothing. */
  organisation: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  /** Envelope of a membership for the one principal that is invited; absent where anybody is. */
  membership: v.exactOptional(byteString(1, LIMITS.membershipBytesMax))
})

export type Invite = v.InferOutput<typeof schema>
export const inviteObject = defineObject<Invite>('invite', schema)

const headSchema = v.object({ type: v.string(), version: v.number() })

/** An invite and the membership in it, their signatures checked. */
export interface OpenedInvite {
  readonly invite: Signed<Invite>
  readonly membership: Signed<Membership> | undefined
}

/**
 * Opens an invite with what is in it. Throws `ENCODING_INVALID`, `SIGNATURE_INVALID`, `TOO_LARGE`, and
 * `PROTOCOL_ERROR` for one that another version of slicenet made.
 */
export function openInvite(bytes: Uint8Array): OpenedInvite {
  const payload = decodeCbor(decodeEnvelope(bytes).payload)
  const { type, version } = parse(headSchema, payload, 'ENCODING_INVALID', 'not an invite')
  if (type !== 'invite') throw new SlicenetError('ENCODING_INVALID', `this is no invite but a ${type}`)
  if (version !== 1) {
    throw new SlicenetError(
      'PROTOCOL_ERROR',
      `the invite is of version ${version}, and this program reads 1`,
      {
        hint: 'install a newer slicenet, or ask for an invite made by this version'
      }
    )
  }
  const invite = inviteObject.open(bytes)
  const { membership } = invite.body
  return { invite, membership: membership === undefined ? undefined : membershipObject.open(membership) }
}

/** Why `invited` cannot use an invite at `now` (UTC ms): the error to throw, if any. */
export function inviteFault(
  { invite: { body }, membership }: OpenedInvite,
  { invited, now }: { readonly invited: Principal; readonly now: number }
): SlicenetError | undefined {
  const details = { notBefore: body.notBefore, notAfter: body.notAfter }
  if (now >= body.notAfter) {
    const at = new Date(body.notAfter).toISOString()
    return new SlicenetError('INVITE_EXPIRED', `the invite ended at ${at}`, { details })
  }
  if (now < body.notBefore) {
    const at = new Date(body.notBefore).toISOString()
    return new SlicenetError('NOT_YET_VALID', `the invite begins at ${at}`, { details })
  }
  return membership === undefined ? undefined : membershipFault(membership, { member: invited, now })
}

function isCanonical(text: string): boolean {
  try {
    return multiaddr(text).toString() === text
  } catch {
    return false
  }
}
