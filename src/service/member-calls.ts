/** What a service manager says to the nodes of its slices: redeem, renew, give up, upload, launch, status. */
import type { Clock } from '../base/clock.ts'
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import { within } from '../base/time-limit.ts'
import type { Caller } from '../protocol/method.ts'
import type { nodeProtocol } from '../protocol/node-protocol.ts'
import { leaseObject, type Lease } from '../ticket/lease.ts'
import { membershipParams } from '../ticket/membership.ts'
import { portsWithin } from '../ticket/ports.ts'
import type { Principal } from '../ticket/principal.ts'
import { redeemObject } from '../ticket/redeem.ts'
import { refusalError, refusalObject } from '../ticket/refusal.ts'
import { resourcesExceeding } from '../ticket/resources.ts'
import { shapingExceeding } from '../ticket/shaping.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { Demands } from './demands.ts'
import type { Claim, MemberRecord } from './slice-book.ts'
import { stateOf } from './slice-view.ts'
import type { MemberState, MemberView, SliceDescription } from './slice.ts'

export type CallNode = (node: Principal) => Caller<typeof nodeProtocol.methods>

const REDEEM_MS = 30_000
const CALL_MS = 20_000
const STATUS_MS = 5_000
/** A reply may be lost; the same demand again gets the same lease. */
const REDEEM_TRIES = 2

/** A refusal is signed by its node, and says that nothing is held there for the ticket. */
export type RedeemOutcome =
  | { readonly lease: Signed<Lease> }
  | { readonly refused: SlicenetError; readonly refusal: Uint8Array }

export interface MemberCallsComponents {
  readonly callNode: CallNode
  readonly clock: Clock
  readonly demands: Demands
  /** Envelopes: who vouches for the holder. */
  readonly memberships?: () => readonly Uint8Array[]
}

export class MemberCalls {
  readonly #callNode: CallNode
  readonly #clock: Clock
  readonly #demands: Demands
  readonly #memberships: (() => readonly Uint8Array[]) | undefined

  constructor({ callNode, clock, demands, memberships }: MemberCallsComponents) {
    this.#callNode = callNode
    this.#clock = clock
    this.#demands = demands
    this.#memberships = memberships
  }

  /** Throws when it is not known whether the node did what it was asked, whatever the reason. */
  async redeem(member: MemberRecord, signal?: AbortSignal): Promise<RedeemOutcome> {
    return this.#claim('newLease', member, signal)
  }

  /** Asks that the member's lease go on with another ticket. Throws as `redeem` does. */
  async renew(member: MemberRecord, renewal: Claim, signal?: AbortSignal): Promise<RedeemOutcome> {
    const outcome = await this.#claim('renewLease', renewal, signal)
    if (!('lease' in outcome) || outcome.lease.body.vserver === member.lease?.body.vserver) return outcome
    throw new SlicenetError('PROTOCOL_ERROR', 'the node gave a lease of another virtual machine')
  }

  async #claim(
    method: 'newLease' | 'renewLease',
    claim: Claim,
    signal: AbortSignal | undefined
  ): Promise<RedeemOutcome> {
    const { node } = claim.ticket.body
    const [delegation, ...tickets] = claim.chain
    if (delegation === undefined) throw new TypeError('a chain begins with a delegation')
    for (let tries = 1; ; tries++) {
      try {
        const shown = membershipParams(this.#memberships?.())
        const params = { redeem: claim.redeem, delegation, tickets, ...shown }
        const reply = await this.#callNode(node)(method, params, {
          signal: within(this.#clock, REDEEM_MS, signal)
        })
        if (reply.refusal !== undefined) {
          return { refused: openRefusal(reply.refusal, claim), refusal: reply.refusal }
        }
        return { lease: openLease(reply.lease, claim) }
      } catch (error) {
        signal?.throwIfAborted()
        if (tries === REDEEM_TRIES) throw error
      }
    }
  }

  /**
   * Makes sure that nothing of a member is held at its node, now or later: its ticket is cancelled, or if it was
   * redeemed, its lease is deleted. Throws when that is not known to be so.
   */
  async drop(member: MemberRecord, signal?: AbortSignal): Promise<void> {
    const lease = member.lease ?? (await this.#leaseToDrop(member, signal))
    if (lease === undefined) return
    try {
      const params = { lease: lease.id, surrender: this.#demands.surrender(lease) }
      await this.#callNode(member.node)('deleteLease', params, {
        signal: within(this.#clock, CALL_MS, signal)
      })
    } catch (error) {
      if (!isGone(error)) throw error
    }
  }

  async #leaseToDrop(
    member: MemberRecord,
    signal: AbortSignal | undefined
  ): Promise<Signed<Lease> | undefined> {
    const params = { tickets: [member.ticket.bytes], cancel: true }
    const { states } = await this.#callNode(member.node)('settleTickets', params, {
      signal: within(this.#clock, CALL_MS, signal)
    })
    if (states[0] === 'lapsed' || states[0] === 'ended') return undefined
    // The reply to an earlier demand was lost: the same demand gets the same lease.
    const outcome = await this.redeem(member, signal)
    return 'lease' in outcome ? outcome.lease : undefined
  }

  /** One file a message: each is bounded, their sum is not. */
  async upload(member: MemberRecord, files: SliceDescription['files'], signal?: AbortSignal): Promise<void> {
    const lease = leaseIdOf(member)
    for (const file of files) {
      await this.#callNode(member.node)(
        'upload',
        { lease, files: [file] },
        { signal: within(this.#clock, CALL_MS, signal) }
      )
    }
  }

  /** Succeeds when a program runs already, as after a launch whose reply was lost. */
  async launch(
    member: MemberRecord,
    program: NonNullable<SliceDescription['program']>,
    signal?: AbortSignal
  ): Promise<void> {
    const lease = leaseIdOf(member)
    const call = this.#callNode(member.node)
    try {
      await call('launch', { lease, program }, { signal: within(this.#clock, CALL_MS, signal) })
    } catch (error) {
      // A node that has too much to do says the same.
      if (asSlicenetError(error).code !== 'BUSY') throw error
      const { state } = await call('status', { lease }, { signal: within(this.#clock, CALL_MS, signal) })
      if (state !== 'running') throw error
    }
  }

  /** The state of a member's virtual machine; `unknown` when its node does not answer. */
  async state(member: MemberRecord, now: number, signal?: AbortSignal): Promise<MemberState> {
    if (member.lease === undefined) return { state: 'unknown' }
    if (member.lease.body.notAfter <= now) return { state: 'ended' }
    try {
      const params = { lease: member.lease.id, usage: false }
      const { notAfter: _term, ...state } = await this.#callNode(member.node)('status', params, {
        signal: within(this.#clock, STATUS_MS, signal)
      })
      return stateOf(state)
    } catch (thrown) {
      signal?.throwIfAborted()
      const { code } = asSlicenetError(thrown)
      return { state: code === 'LEASE_EXPIRED' || code === 'LEASE_NOT_HELD' ? 'ended' : 'unknown' }
    }
  }
}

/** What is known of a member without asking its node. */
export function briefState({ lease }: MemberRecord, now: number): Pick<MemberView, 'state'> {
  return { state: lease !== undefined && lease.body.notAfter <= now ? 'ended' : 'unknown' }
}

/** Whether there is no such lease, or none any more. */
function isGone(thrown: unknown): boolean {
  return ['LEASE_NOT_HELD', 'LEASE_EXPIRED'].includes(asSlicenetError(thrown).code)
}

function openRefusal(bytes: Uint8Array, { ticket, redeem }: Claim): SlicenetError {
  const refusal = refusalObject.open(bytes)
  const { issuer, request } = refusal.body
  if (issuer === ticket.body.node && request === redeemObject.decode(redeem).id) return refusalError(refusal)
  throw new SlicenetError('PROTOCOL_ERROR', 'the node handed on a refusal of something else')
}

/** Whether a lease is what was asked for is checked here: the node signs it, but it is the holder who relies on it. */
function openLease(bytes: Uint8Array | undefined, claim: Claim): Signed<Lease> {
  if (bytes === undefined)
    throw new SlicenetError('PROTOCOL_ERROR', 'the node gave neither a lease nor a refusal')
  const lease = leaseObject.open(bytes)
  const { id, body: ticket } = claim.ticket
  const { issuer, ticket: redeemed, holder, resources, ports, shaping, notAfter } = lease.body
  if (issuer !== ticket.node || redeemed !== id || holder !== ticket.holder) {
    throw new SlicenetError('PROTOCOL_ERROR', 'the node gave a lease for something else')
  }
  const isLess =
    resourcesExceeding(ticket.resources, resources).length > 0 ||
    !portsWithin(ticket.ports, ports) ||
    shapingExceeding(ticket.shaping, shaping).length > 0
  if (isLess || notAfter < ticket.notAfter) {
    throw new SlicenetError('PROTOCOL_ERROR', 'the node gave a lease for less than its ticket is for')
  }
  return lease
}

function leaseIdOf(member: MemberRecord): string {
  if (member.lease === undefined) throw new TypeError('this member has no lease')
  return member.lease.id
}
