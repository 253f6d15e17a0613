/** What a service manager says to the nodes of its slices: redeem, give up, upload, launch, status. */
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import type { Caller } from '../protocol/method.ts'
import type { nodeProtocol } from '../protocol/node-protocol.ts'
import { leaseObject, type Lease } from '../ticket/lease.ts'
import type { Principal } from '../ticket/principal.ts'
import { refusalError, refusalObject } from '../ticket/refusal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { MemberRecord } from './slice-book.ts'
import type { MemberView, SliceDescription } from './slice.ts'

export type CallNode = (node: Principal) => Caller<typeof nodeProtocol.methods>

const REDEEM_MS = 30_000
const CALL_MS = 20_000
const STATUS_MS = 5_000
/** A reply may be lost; the same demand again gets the same lease. */
const REDEEM_TRIES = 2

/** Errors after which it is not known whether the node did what it was asked. */
export function isUncertain(error: SlicenetError): boolean {
  return ['PEER_UNREACHABLE', 'TIMEOUT', 'PROTOCOL_ERROR', 'BUSY', 'INTERNAL'].includes(error.code)
}

export class MemberCalls {
  readonly #callNode: CallNode

  constructor(callNode: CallNode) {
    this.#callNode = callNode
  }

  /** Throws the node's refusal. */
  async redeem(member: MemberRecord, signal?: AbortSignal): Promise<Signed<Lease>> {
    const [delegation, ...tickets] = member.chain
    if (delegation === undefined) throw new TypeError('a chain begins with a delegation')
    for (let tries = 1; ; tries++) {
      try {
        const params = { redeem: member.redeem, delegation, tickets }
        const reply = await this.#callNode(member.node)('newLease', params, {
          signal: bounded(REDEEM_MS, signal)
        })
        if (reply.refusal !== undefined) throw refusalError(refusalObject.open(reply.refusal))
        return openLease(reply.lease, member)
      } catch (thrown) {
        signal?.throwIfAborted()
        const error = asSlicenetError(thrown)
        if (tries === REDEEM_TRIES || !isUncertain(error)) throw error
      }
    }
  }

  /**
   * Makes sure that nothing of a member is held at its node: a lease is deleted; where it is not known whether there
   * is one, the demand is sent again to find out. Throws when the node cannot be reached.
   */
  async drop(member: MemberRecord, signal?: AbortSignal): Promise<void> {
    try {
      const lease = member.lease ?? (await this.redeem(member, signal))
      await this.#callNode(member.node)(
        'deleteLease',
        { lease: lease.id },
        { signal: bounded(CALL_MS, signal) }
      )
    } catch (thrown) {
      const error = asSlicenetError(thrown)
      // Any answer other than a lease means that none is held.
      if (isUncertain(error)) throw error
    }
  }

  /** One file a message: each is bounded, their sum is not. */
  async upload(member: MemberRecord, files: SliceDescription['files'], signal?: AbortSignal): Promise<void> {
    const lease = leaseIdOf(member)
    for (const file of files) {
      await this.#callNode(member.node)(
        'upload',
        { lease, files: [file] },
        { signal: bounded(CALL_MS, signal) }
      )
    }
  }

  async launch(
    member: MemberRecord,
    program: NonNullable<SliceDescription['program']>,
    signal?: AbortSignal
  ): Promise<void> {
    const params = { lease: leaseIdOf(member), program }
    await this.#callNode(member.node)('launch', params, { signal: bounded(CALL_MS, signal) })
  }

  /** The state of a member's virtual machine; `unknown` when its node does not answer. */
  async state(
    member: MemberRecord,
    now: number,
    signal?: AbortSignal
  ): Promise<Pick<MemberView, 'state' | 'exitCode'>> {
    if (member.lease === undefined) return { state: 'unknown' }
    if (member.lease.body.notAfter <= now) return { state: 'ended' }
    try {
      const params = { lease: member.lease.id, usage: false }
      const status = await this.#callNode(member.node)('status', params, {
        signal: bounded(STATUS_MS, signal)
      })
      return { state: status.state, ...(status.exitCode === undefined ? {} : { exitCode: status.exitCode }) }
    } catch (thrown) {
      signal?.throwIfAborted()
      const { code } = asSlicenetError(thrown)
      return { state: code === 'LEASE_EXPIRED' || code === 'LEASE_NOT_HELD' ? 'ended' : 'unknown' }
    }
  }
}

/** Whether a lease is what was asked for is checked here: the node signs it, but it is the holder who relies on it. */
function openLease(bytes: Uint8Array | undefined, member: MemberRecord): Signed<Lease> {
  if (bytes === undefined)
    throw new SlicenetError('PROTOCOL_ERROR', 'the node gave neither a lease nor a refusal')
  const lease = leaseObject.open(bytes)
  if (lease.body.issuer !== member.node || lease.body.ticket !== member.ticket.id) {
    throw new SlicenetError('PROTOCOL_ERROR', 'the node gave a lease for something else')
  }
  return lease
}

function leaseIdOf(member: MemberRecord): string {
  if (member.lease === undefined) throw new TypeError('this member has no lease')
  return member.lease.id
}

function bounded(ms: number, signal: AbortSignal | undefined): AbortSignal {
  const limit = AbortSignal.timeout(ms)
  return signal === undefined ? limit : AbortSignal.any([signal, limit])
}
