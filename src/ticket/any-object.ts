/** Every type of signed object in one list, for those who take objects of whatever type they turn out to be. */
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import { decodeCbor } from '../wire/cbor.ts'
import { parse } from '../wire/codec.ts'
import { decodeEnvelope } from '../wire/envelope.ts'
import { advertisementObject, type Advertisement } from './advertisement.ts'
import { delegationObject, type Delegation } from './delegation.ts'
import { fraudProofObject, type FraudProof } from './fraud-proof.ts'
import { inviteObject, type Invite } from './invite.ts'
import { leaseObject, type Lease } from './lease.ts'
import { logRootObject, type LogRoot } from './log-root.ts'
import { membershipObject, type Membership } from './membership.ts'
import { redeemObject, type Redeem } from './redeem.ts'
import { refusalObject, type Refusal } from './refusal.ts'
import { revocationObject, type Revocation } from './revocation.ts'
import type { ObjectType, Signed } from './signed-object.ts'
import { surrenderObject, type Surrender } from './surrender.ts'
import { ticketObject, type Ticket } from './ticket.ts'

interface Bodies {
  readonly advertisement: Advertisement
  readonly delegation: Delegation
  readonly ticket: Ticket
  readonly redeem: Redeem
  readonly invite: Invite
  readonly lease: Lease
  readonly membership: Membership
  readonly refusal: Refusal
  readonly revocation: Revocation
  readonly surrender: Surrender
  readonly 'log-root': LogRoot
  readonly 'fraud-proof': FraudProof
}
export type ObjectTypeName = keyof Bodies

/** A signed object and the name of its type. */
export type AnyObject = {
  readonly [T in ObjectTypeName]: { readonly type: T; readonly object: Signed<Bodies[T]> }
}[ObjectTypeName]

export const OBJECT_TYPES: { readonly [T in ObjectTypeName]: ObjectType<Bodies[T]> } = {
  advertisement: advertisementObject,
  delegation: delegationObject,
  ticket: ticketObject,
  redeem: redeemObject,
  invite: inviteObject,
  lease: leaseObject,
  membership: membershipObject,
  refusal: refusalObject,
  revocation: revocationObject,
  surrender: surrenderObject,
  'log-root': logRootObject,
  'fraud-proof': fraudProofObject
}

const namedSchema = v.object({ type: v.string() })

/** Opens an object of any type. Throws as `ObjectType.open`, and `ENCODING_INVALID` for types that are not known. */
export function openAnyObject(bytes: Uint8Array): AnyObject {
  const payload = decodeCbor(decodeEnvelope(bytes).payload)
  const { type } = parse(namedSchema, payload, 'ENCODING_INVALID', 'not a signed object')
  if (!isObjectTypeName(type)) {
    throw new SlicenetError('ENCODING_INVALID', `there is no type of object ${JSON.stringify(type)}`)
  }
  // The name and the body belong together by the table above.
  return { type, object: OBJECT_TYPES[type].open(bytes) } as AnyObject
}

function isObjectTypeName(name: string): name is ObjectTypeName {
  return Object.hasOwn(OBJECT_TYPES, name)
}
