/** Signing memberships and invites with the key of this account, which is an organisation's then. */
import { multiaddr } from '@multiformats/multiaddr'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { durationUnit } from '../base/units.ts'
import { inviteObject, peerAddressSchema, type Invite } from '../ticket/invite.ts'
import { membershipObject, type Membership } from '../ticket/membership.ts'
import { formatObjectText } from '../ticket/object-text.ts'
import { principalSchema, type Principal, type SigningKey } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { parse } from '../wire/codec.ts'

export interface Voucher {
  readonly key: SigningKey
  /** What the organisation calls itself. */
  readonly organisation: string
  /** UTC ms. */
  readonly now: number
}

/** Both begin a little before they are made: the clocks of others may be behind. */
const CLOCK_SKEW_MS = 5 * 60_000

/** The membership, and it as text. Throws `KEY_INVALID` for what is no principal, `USAGE` for a term or name that is too long. */
export function vouchFor(
  { key, organisation, now }: Voucher,
  { member, forMs }: { readonly member: Principal; readonly forMs: number }
): { readonly membership: Signed<Membership>; readonly text: string } {
  parse(principalSchema, member, 'KEY_INVALID', member)
  requireTerm(forMs, LIMITS.membershipMsMax, '--for')
  const body = { ...termOf(key, now, forMs), member, organisation: named(organisation) }
  const membership = membershipObject.sign(body, key)
  return { membership, text: formatObjectText('membership', membership.bytes) }
}

export interface Invitation {
  /** Whom a membership is put in for; anybody is invited when absent. */
  readonly member?: Principal
  /** How long the invite is good for, and the membership in it. */
  readonly forMs: number
  readonly memberForMs: number
  /** Multiaddrs that end in their peers. */
  readonly bootstrap: readonly string[]
}

/** The invite, and it as text. Throws as `vouchFor`, and `USAGE` for addresses that are none or name no peer. */
export function invite(
  voucher: Voucher,
  { member, forMs, memberForMs, bootstrap }: Invitation
): { readonly invite: Signed<Invite>; readonly text: string } {
  const { key, organisation, now } = voucher
  requireTerm(forMs, LIMITS.inviteMsMax, '--expires')
  const addresses = [...new Set(bootstrap.map(canonical))]
  if (addresses.length > LIMITS.invitedAddressesMax) {
    throw new SlicenetError('USAGE', `an invite names ${LIMITS.invitedAddressesMax} addresses at most`)
  }
  const vouched = member === undefined ? undefined : vouchFor(voucher, { member, forMs: memberForMs })
  const body = {
    ...termOf(key, now, forMs),
    organisation: named(organisation),
    bootstrap: addresses,
    ...(vouched === undefined ? {} : { membership: vouched.membership.bytes })
  }
  const made = inviteObject.sign(body, key)
  return { invite: made, text: formatObjectText('invite', made.bytes) }
}

/** Sequence numbers grow with the clock. */
function termOf(key: SigningKey, now: number, forMs: number) {
  return { issuer: key.principal, notBefore: now - CLOCK_SKEW_MS, notAfter: now + forMs, seq: now }
}

function named(organisation: string): string {
  if (organisation.length >= 1 && organisation.length <= 64) return organisation
  throw new SlicenetError('USAGE', 'expected the name of the organisation in 1 to 64 characters')
}

function requireTerm(ms: number, max: number, option: string): void {
  if (ms >= 1000 && ms <= max) return
  throw new SlicenetError('USAGE', `${option}: expected 1s to ${durationUnit.format(max)}`)
}

function canonical(address: string): string {
  let text = address
  try {
    text = multiaddr(address).toString()
  } catch {
    // The schema says what is wrong.
  }
  return parse(peerAddressSchema, text, 'USAGE', address)
}
