/** Memberships for tests. */
import { membershipObject, type Membership } from '../../src/ticket/membership.ts'
import type { Principal, SigningKey } from '../../src/ticket/principal.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { HOUR, NOW } from './fixtures.ts'

/** The organisation vouches for `member` from an hour before `NOW` to a day after it. */
export function vouch(
  organisation: SigningKey,
  member: Principal,
  changes: Partial<Membership> = {}
): Signed<Membership> {
  return membershipObject.sign(
    {
      issuer: organisation.principal,
      notBefore: NOW - HOUR,
      notAfter: NOW + 24 * HOUR,
      seq: 1,
      member,
      organisation: 'example',
      ...changes
    },
    organisation
  )
}
