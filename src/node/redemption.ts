/**
 * Redeeming (design §3): the demand is checked; admitted or refused with a signed refusal; written
 * down; and only then is the virtual machine made and the lease given out. The same demand again gets the same lease.
 */
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Enforcer } from '../enforce/enforcer.ts'
import type { TicketState } from '../protocol/node-protocol.ts'
import { chainFault, type Chain } from '../ticket/chain.ts'
import { delegationObject } from '../ticket/delegation.ts'
import { contains } from '../ticket/interval.ts'
import { leaseObject, type Lease } from '../ticket/lease.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { redeemObject, type Redeem } from '../ticket/redeem.ts'
import { refusalObject, type Reason, type Refusal } from '../ticket/refusal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import { admissionFault, overdrawnFault } from './admission.ts'
import { specOf, type LeaseRecord, type LeaseTable } from './lease-table.ts'
import type { Resources } from '../ticket/resources.ts'
import type { SteadyClock } from './steady-clock.ts'

export interface RedemptionComponents {
  readonly key: SigningKey
  readonly table: LeaseTable
  readonly clock: SteadyClock
  readonly enforcer: Enforcer
  readonly logger: Logger
}

export interface RedemptionInit {
  /** What may be leased: the machine's measured capacity, capped by the node's policy. */
  readonly capacity: Resources
  /** Address at which the world reaches owned ports. */
  readonly address: string
  readonly epoch: number
}

/** Envelopes as they came in. */
export interface RedemptionRequest {
  readonly redeem: Uint8Array
  readonly delegation: Uint8Array
  readonly tickets: readonly Uint8Array[]
}

export type RedemptionOutcome = { readonly lease: Signed<Lease> } | { readonly refusal: Signed<Refusal> }

export class Redemption {
  readonly #components: RedemptionComponents
  readonly #init: RedemptionInit
  /** Redemptions under way by ticket, so that a retry waits for the first instead of racing it. */
  readonly #underWay = new Map<string, Promise<RedemptionOutcome>>()
  #seq = 0

  constructor(components: RedemptionComponents, init: RedemptionInit) {
    this.#components = components
    this.#init = init
  }

  /** Throws only for what is malformed or signed by nobody; everything else is a lease or a signed refusal. */
  async redeem(request: RedemptionRequest, caller: Principal): Promise<RedemptionOutcome> {
    const redeem = redeemObject.open(request.redeem)
    if (redeem.body.issuer !== caller) {
      return this.#refuse(redeem, {
        code: 'TICKET_WRONG_HOLDER',
        message: 'a demand is taken from the one who signed it, and nobody else'
      })
    }
    const chain = {
      delegation: delegationObject.open(request.delegation),
      tickets: request.tickets.map((bytes) => ticketObject.open(bytes))
    }
    const { ticket } = redeem.body
    for (let before; (before = this.#underWay.get(ticket)) !== undefined;) await before.catch(() => {})
    // No await from here until the record is in the table: what is decided on must still hold when it is taken.
    const running = this.#decide(redeem, chain)
    this.#underWay.set(ticket, running)
    try {
      return await running
    } finally {
      this.#underWay.delete(ticket)
    }
  }

  /**
   * What became of a ticket and of those cut from it, told to its issuer or holder; with `cancel`, what is not
   * redeemed yet never will be.
   */
  async settle(bytes: Uint8Array, caller: Principal, cancel: boolean): Promise<TicketState> {
    const { table, clock } = this.#components
    const { id, body } = ticketObject.open(bytes)
    if (body.issuer !== caller && body.holder !== caller) {
      throw new SlicenetError('DENIED', 'only the issuer and the holder of a ticket may settle it')
    }
    const mayComeYet = table.ofTicket(id) === undefined && clock.now() < body.redeemBefore
    if (mayComeYet && (cancel || table.isCancelled(id))) await table.cancel(id, body.redeemBefore)
    const leases = table.under(id)
    if (leases.some(({ state }) => state !== 'ended')) return 'redeemed'
    if (mayComeYet && !table.isCancelled(id)) return 'open'
    return leases.length > 0 ? 'ended' : 'lapsed'
  }

  /** Whether somebody waits for a lease of this ticket now. */
  isUnderWay(ticket: string): boolean {
    return this.#underWay.has(ticket)
  }

  async #decide(redeem: Signed<Redeem>, chain: Chain): Promise<RedemptionOutcome> {
    const { table } = this.#components
    const known = table.ofTicket(redeem.body.ticket)
    if (known !== undefined) return this.#again(redeem, known)
    const reason = this.#fault(redeem, chain)
    if (reason !== undefined) return this.#refuse(redeem, reason)
    return this.#make(redeem, chain)
  }

  /** A ticket that was redeemed before: the same demand gets the same lease, another one a refusal. */
  #again(redeem: Signed<Redeem>, known: LeaseRecord): RedemptionOutcome {
    const sameDemand =
      known.nonce === Buffer.from(redeem.body.nonce).toString('hex') &&
      known.lease.body.holder === redeem.body.issuer
    if (sameDemand && known.state === 'active') return { lease: known.lease }
    // Not signed: the ticket will be good again.
    if (known.state === 'making') throw new SlicenetError('BUSY', 'what an earlier try left is being removed')
    return this.#refuse(redeem, {
      code: 'TICKET_REDEEMED',
      message: sameDemand ? 'the lease of this ticket has ended' : 'this ticket was redeemed before',
      evidence: [known.lease.id]
    })
  }

  #fault(redeem: Signed<Redeem>, chain: Chain): Reason | undefined {
    const { key, table, clock } = this.#components
    const now = clock.now()
    if (redeem.body.node !== key.principal) {
      return { code: 'TICKET_WRONG_NODE', message: `this demand is for node ${redeem.body.node}` }
    }
    if (!contains(redeem.body, now)) {
      return { code: 'TICKET_EXPIRED', message: 'this demand was to be presented in another interval' }
    }
    const found = chainFault(chain, { node: key.principal, holder: redeem.body.issuer, now })
    if (found !== undefined) return found
    const leaf = chain.tickets.at(-1)
    if (leaf?.id !== redeem.body.ticket) {
      return { code: 'CHAIN_INVALID', message: 'the demand names another ticket than the one presented' }
    }
    const cancelled = chain.tickets.find(({ id }) => table.isCancelled(id))
    if (cancelled !== undefined) {
      return { code: 'TICKET_EXPIRED', message: 'this ticket was given back', evidence: [cancelled.id] }
    }
    const spent = chain.tickets.find(({ id }) => table.ofTicket(id) !== undefined)
    if (spent !== undefined) {
      const message = 'this ticket was cut from one that was redeemed itself'
      return { code: 'TICKET_REDEEMED', message, evidence: [spent.id] }
    }
    const { leased } = table
    const wanted = { ...leaf.body, notBefore: now }
    return (
      overdrawnFault(chain, wanted, leased) ??
      admissionFault(wanted, leased, this.#init.capacity) ??
      this.#nameFault(leaf)
    )
  }

  /** Names are short: somebody with an agent at hand could make a ticket whose vserver has another lease's name. */
  #nameFault(leaf: Signed<Ticket>): Reason | undefined {
    const name = vserverName(leaf)
    const isTaken = this.#components.table.leased.isNamed(name)
    return isTaken
      ? { code: 'VSERVER_FAILED', message: `the name ${name} is in use on this node` }
      : undefined
  }

  async #make(redeem: Signed<Redeem>, chain: Chain): Promise<RedemptionOutcome> {
    const { table, clock, enforcer, logger } = this.#components
    const record = this.#sign(redeem, chain)
    await table.put(record, clock)
    try {
      await enforcer.create(specOf(record))
      if (table.ofTicket(redeem.body.ticket) !== record) {
        throw new SlicenetError('VSERVER_FAILED', 'the lease was ended while its virtual machine was made')
      }
      await table.put({ ...record, state: 'active' }, clock)
    } catch (error) {
      const { code, message } = asSlicenetError(error)
      logger.warn('a virtual machine could not be made', { vserver: record.lease.body.vserver, error })
      // A refusal says that nothing is held for the ticket; until that is so, the answer is open.
      if (!(await this.takeBack(record))) {
        throw new SlicenetError(
          'BUSY',
          'a virtual machine could not be made, nor what there is of it removed'
        )
      }
      return this.#refuse(redeem, {
        code: code === 'INTERNAL' || code === 'HOST_PROGRAM_FAILED' ? 'VSERVER_FAILED' : code,
        message: message.slice(0, 500)
      })
    }
    logger.info('lease made', {
      lease: record.lease.id,
      holder: redeem.body.issuer,
      slice: record.lease.body.slice
    })
    return { lease: record.lease }
  }

  /**
   * Nobody was told of this lease: machine and redemption both go, and the ticket is good again. Gives whether they
   * are gone; if not, they go on holding their resources, and it is for the caller to try again.
   */
  async takeBack(record: LeaseRecord): Promise<boolean> {
    const { table, enforcer, logger } = this.#components
    const { vserver } = record.lease.body
    try {
      await enforcer.destroy(vserver)
      await table.withdraw(record)
      return true
    } catch (error) {
      logger.error('a half-made virtual machine could not be taken back yet', { vserver, error })
      return false
    }
  }

  #sign(redeem: Signed<Redeem>, { delegation, tickets }: Chain): LeaseRecord {
    const { key, clock } = this.#components
    const leaf = tickets.at(-1)
    const slice = leaf?.body.slice
    if (leaf === undefined || slice === undefined)
      throw new TypeError('a checked chain ends in a ticket of a slice')
    const { resources, ports, rights, notAfter, redeemBefore } = leaf.body
    const lease = leaseObject.sign(
      {
        issuer: key.principal,
        notBefore: clock.now(),
        notAfter,
        seq: this.#nextSeq(),
        ticket: leaf.id,
        holder: redeem.body.issuer,
        slice,
        image: redeem.body.image,
        resources,
        ports,
        rights,
        address: this.#init.address,
        vserver: vserverName(leaf),
        epoch: this.#init.epoch
      },
      key
    )
    const nonce = Buffer.from(redeem.body.nonce).toString('hex')
    return {
      lease,
      state: 'making',
      nonce,
      keys: redeem.body.keys,
      redeemBefore,
      agent: delegation.body.holder,
      tickets: tickets.map(({ id }) => id)
    }
  }

  #refuse(redeem: Signed<Redeem>, reason: Reason): { readonly refusal: Signed<Refusal> } {
    const { key, clock, logger } = this.#components
    const now = clock.now()
    logger.info('redemption refused', {
      code: reason.code,
      message: reason.message,
      holder: redeem.body.issuer
    })
    const refusal = refusalObject.sign(
      {
        issuer: key.principal,
        notBefore: now,
        notAfter: now + LIMITS.holdMsMax,
        seq: this.#nextSeq(),
        code: reason.code,
        message: reason.message,
        request: redeem.id,
        evidence: [...(reason.evidence ?? [])]
      },
      key
    )
    return { refusal }
  }

  /** Grows over restarts too, because the node's time does. */
  #nextSeq(): number {
    this.#seq = Math.max(this.#seq + 1, this.#components.clock.now())
    return this.#seq
  }
}

/** Unique enough among the leases of a node, and short enough for the names of devices and groups made of it. */
function vserverName(leaf: Signed<Ticket>): string {
  return `${leaf.body.slice}-${leaf.id.slice(-7)}`
}
