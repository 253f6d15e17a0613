/** Signs leases: what a checked ticket and demand come to. */
import { LIMITS } from '../base/limits.ts'
import { leaseObject, type Lease } from '../ticket/lease.ts'
import type { SigningKey } from '../ticket/principal.ts'
import type { Redeem } from '../ticket/redeem.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { Ticket } from '../ticket/ticket.ts'

export interface LeaseTerms {
  /** UTC ms by the node's clock. */
  readonly now: number
  readonly seq: number
  readonly address: string
  readonly epoch: number
  readonly vserver: string
  /** Envelopes of the surrenders by which its ports became free. */
  readonly released: readonly Uint8Array[]
}

export function signLease(
  { redeem, leaf, renewed }: { redeem: Redeem; leaf: Signed<Ticket>; renewed?: Signed<Lease> },
  { now, seq, address, epoch, vserver, released }: LeaseTerms,
  key: SigningKey
): Signed<Lease> {
  const { slice, resources, ports, rights, shaping, notAfter } = leaf.body
  if (slice === undefined) throw new TypeError('a wholesale ticket is not redeemed')
  return leaseObject.sign(
    {
      issuer: key.principal,
      notBefore: now,
      notAfter,
      seq,
      ticket: leaf.id,
      holder: redeem.issuer,
      slice,
      image: redeem.image,
      resources,
      ports,
      rights,
      ...(shaping === undefined ? {} : { shaping }),
      address,
      vserver,
      epoch,
      ...(renewed === undefined ? {} : { prev: renewed.id }),
      ...(released.length === 0 ? {} : { released: released.slice(0, LIMITS.surrendersPerLeaseMax) })
    },
    key
  )
}
