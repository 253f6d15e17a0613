/** What a service manager signs: demands for leases and for their renewal, and surrenders of leases. */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Random } from '../base/random.ts'
import type { Lease } from '../ticket/lease.ts'
import type { SigningKey } from '../ticket/principal.ts'
import { redeemObject, type Redeem } from '../ticket/redeem.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { surrenderObject } from '../ticket/surrender.ts'
import type { Ticket } from '../ticket/ticket.ts'

export interface DemandsComponents {
  readonly key: SigningKey
  readonly clock: Clock
  readonly random: Random
}

/** A node's clock may be behind this one by so much, or ahead of it by twice as much. */
const SKEW_MS = LIMITS.holdMsMax

export class Demands {
  readonly #components: DemandsComponents
  #seq = 0

  constructor(components: DemandsComponents) {
    this.#components = components
  }

  /** A demand that a ticket become a lease of `image`, or with `renews` that this lease go on with it. */
  redeem({ id, body }: Signed<Ticket>, image: string, renews?: string): Signed<Redeem> {
    const { key, clock, random } = this.#components
    const now = clock.now()
    return redeemObject.sign(
      {
        issuer: key.principal,
        notBefore: now - SKEW_MS,
        notAfter: now + 2 * SKEW_MS,
        seq: this.#nextSeq(),
        ticket: id,
        ...(renews === undefined ? {} : { renews }),
        node: body.node,
        nonce: random.bytes(16),
        image,
        keys: []
      },
      key
    )
  }

  /** Gives a lease up. It may be presented for as long as the lease would have lasted. */
  surrender({ id, body }: Signed<Lease>): Uint8Array {
    const { key, clock } = this.#components
    const now = clock.now()
    return surrenderObject.sign(
      {
        issuer: key.principal,
        notBefore: now - SKEW_MS,
        notAfter: Math.max(now, body.notAfter) + 2 * SKEW_MS,
        seq: this.#nextSeq(),
        node: body.issuer,
        lease: id,
        vserver: body.vserver
      },
      key
    ).bytes
  }

  #nextSeq(): number {
    this.#seq = Math.max(this.#seq + 1, this.#components.clock.now())
    return this.#seq
  }
}
