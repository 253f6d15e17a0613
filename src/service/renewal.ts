/**
 * Renewing the leases of a slice (design §3, Renewing): for each member a ticket of the same line for the new term, and
 * with it the demand that its lease go on. What is about to be asked is in the book before it is asked, so that a lost
 * reply is asked for again, also after a crash; until a node says otherwise its member stays as it was.
 */
import { SlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { together } from '../base/together.ts'
import type { Broker } from '../broker/broker.ts'
import type { Demands } from './demands.ts'
import type { MemberCalls } from './member-calls.ts'
import { reasonOf, type RenewedMember } from './slice.ts'
import { Receipts } from './receipts.ts'
import type { Claim, MemberRecord, SliceBook, SliceRecord } from './slice-book.ts'

export interface RenewalComponents {
  readonly broker: Broker
  readonly book: SliceBook
  readonly calls: MemberCalls
  readonly demands: Demands
  readonly observe: (envelopes: readonly Uint8Array[]) => void
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

export interface RenewalInit {
  /** At least so long between two tries of one slice. */
  readonly retryMs: number
}

/** A slice renews by itself when this part of a term is left. */
const PART_LEFT = 1 / 3
/** A renewal that was begun before is enough if it brings this part of the term asked for now. */
const ENOUGH_PART = 0.75
/** Of the time left until the next try. */
const PAUSE_PART = 1 / 8
const PAUSE_MS_MAX = 10 * 60_000

export class Renewal {
  readonly #components: RenewalComponents
  readonly #init: RenewalInit
  /** By slice: when, by the monotonic clock, it is to be tried again after a failure. */
  readonly #notBefore = new Map<string, number>()

  constructor(components: RenewalComponents, init: RenewalInit) {
    this.#components = components
    this.#init = init
  }

  /** Renews each member by itself; the outcome tells of those that could not be, and why. */
  async renew(
    { description: { name }, image }: SliceRecord,
    members: readonly MemberRecord[],
    durationMs: number,
    signal?: AbortSignal
  ): Promise<RenewedMember[]> {
    const receipts = new Receipts(this.#components)
    const renewed = await together(
      members.map(async (member) => {
        try {
          // What was begun before is seen through first: there may be a new term already.
          const known = await this.#seeThrough(name, member, receipts, signal)
          const isRenewed = known.lease?.id !== member.lease?.id
          if (isRenewed && this.#isEnough(known, durationMs)) return outcomeOf(known)
          const begun = await this.#begin(known, image, durationMs, signal)
          await this.#components.book.putMembers(name, [begun])
          return outcomeOf(await this.#finish(name, begun, receipts, signal))
        } catch (error) {
          signal?.throwIfAborted()
          this.#components.logger.info('a lease was not renewed', { slice: name, node: member.node, error })
          return { ...outcomeOf(member), renewed: false, reason: reasonOf(error) }
        }
      })
    )
    receipts.tell()
    if (renewed.every((member) => member.renewed)) this.#notBefore.delete(name)
    else this.#pause(name, Math.min(...renewed.map(({ notAfter }) => notAfter)))
    return renewed
  }

  /**
   * The members to see to now: those whose renewal was begun, and if the slice renews by itself those that have a third
   * of their term left. None while it is too soon after a failure.
   */
  due({ description, state, members }: SliceRecord): MemberRecord[] {
    const { clock } = this.#components
    const isKept = state === 'active' || state === 'partial'
    if (!isKept || clock.monotonic() < (this.#notBefore.get(description.name) ?? -Infinity)) return []
    const now = clock.now()
    return [...members.values()].filter((member) => {
      if (member.state !== 'leased' || member.lease === undefined || endOf(member) <= now) return false
      const { notBefore, notAfter } = member.lease.body
      const isLate = notAfter - now <= (notAfter - notBefore) * PART_LEFT
      return member.renewal !== undefined || (description.renew === true && isLate)
    })
  }

  /** The member when the renewal that was begun of it, if any, is over: done, or refused. Throws what leaves it open. */
  async #seeThrough(
    name: string,
    member: MemberRecord,
    receipts: Receipts,
    signal: AbortSignal | undefined
  ): Promise<MemberRecord> {
    if (member.renewal === undefined) return member
    try {
      return await this.#finish(name, member, receipts, signal)
    } catch (error) {
      const after = this.#components.book.get(name)?.members.get(member.ticket.id)
      if (after === undefined || after.renewal !== undefined) throw error
      return after
    }
  }

  /** Whether what was begun some time ago, and for as long as was asked for then, is about what is asked for now. */
  #isEnough({ lease }: MemberRecord, durationMs: number): boolean {
    return (lease?.body.notAfter ?? 0) - this.#components.clock.now() >= durationMs * ENOUGH_PART
  }

  /** A ticket for the new term and the demand to go with it. */
  async #begin(
    member: MemberRecord,
    image: string,
    durationMs: number,
    signal: AbortSignal | undefined
  ): Promise<MemberRecord> {
    const { broker, clock, demands } = this.#components
    const { lease, ticket } = member
    if (lease === undefined) throw new TypeError('only leased members are renewed')
    const end = new Date(lease.body.notAfter).toISOString()
    if (clock.now() + durationMs <= lease.body.notAfter) {
      throw new SlicenetError('LEASE_NOT_EXTENDED', `its lease lasts until ${end} already`)
    }
    if (lease.body.notAfter <= clock.now())
      throw new SlicenetError('LEASE_EXPIRED', `its lease ended at ${end}`)
    const holding = await broker.renewTicket(
      { agent: member.agent, ticket, durationMs },
      signal === undefined ? {} : { signal }
    )
    this.#components.observe(holding.chain)
    const redeem = demands.redeem(holding.ticket, image, lease.id).bytes
    return { ...member, renewal: { chain: holding.chain, ticket: holding.ticket, redeem } }
  }

  /** Throws the node's refusal, by which the renewal is over, or what left it open. */
  async #finish(
    name: string,
    member: MemberRecord,
    receipts: Receipts,
    signal: AbortSignal | undefined
  ): Promise<MemberRecord> {
    const { book, broker, calls } = this.#components
    const { renewal, ...kept } = member
    if (renewal === undefined) throw new TypeError('a renewal is begun before it is finished')
    const agent = this.#issuerOf(member, renewal)
    const outcome = await calls.renew(member, renewal, signal)
    receipts.add(agent.agent, renewal, outcome)
    if ('lease' in outcome) {
      this.#components.observe([outcome.lease.bytes])
      const after = { ...kept, ...renewal, ...agent, lease: outcome.lease }
      await book.replaceMember(name, member, after)
      return after
    }
    await book.putMembers(name, [kept])
    await broker.release([{ ...kept, ...renewal, ...agent }])
    throw outcome.refused
  }

  /** Who granted the ticket of a renewal, which may be another agent than before. */
  #issuerOf(member: MemberRecord, { ticket }: Claim): Pick<MemberRecord, 'agent' | 'agentName'> {
    const { issuer } = ticket.body
    if (issuer === member.agent) return { agent: issuer, agentName: member.agentName }
    const advert = this.#components.broker.agents().find((one) => one.issuer === issuer)
    return { agent: issuer, agentName: advert?.name ?? issuer }
  }

  /** Spreads tries, so that those who failed together do not come back together. */
  #pause(name: string, end: number): void {
    const { clock, random } = this.#components
    const left = Math.min((end - clock.now()) * PAUSE_PART, PAUSE_MS_MAX)
    const [byte = 0] = random.bytes(1)
    const jitter = 0.5 + byte / 512
    this.#notBefore.set(name, clock.monotonic() + Math.max(left, this.#init.retryMs) * jitter)
  }
}

/** UTC ms from which nothing of a member can be held, its renewal included. */
export function endOf({ ticket, renewal }: MemberRecord): number {
  return Math.max(ticket.body.notAfter, renewal?.ticket.body.notAfter ?? 0)
}

function outcomeOf({ node, nodeName, lease }: MemberRecord): RenewedMember {
  if (lease === undefined) throw new TypeError('only leased members are renewed')
  return { node, nodeName, lease: lease.id, notAfter: lease.body.notAfter, renewed: true }
}
