/**
 * Redeeming and renewing (design §3): the demand is checked; admitted or refused with a signed refusal; written down;
 * and only then is the virtual machine made and the lease given out. The same demand again gets the same lease.
 */
import { SlicenetError, asSlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Enforcer } from '../enforce/enforcer.ts'
import { acceptanceFault, type Accepts } from '../ticket/accepts.ts'
import type { AnyObject } from '../ticket/any-object.ts'
import type { Chain } from '../ticket/chain.ts'
import type { Finding } from '../ticket/fraud.ts'
import type { Lease } from '../ticket/lease.ts'
import { vouchedBy } from '../ticket/membership.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { redeemObject, type Redeem } from '../ticket/redeem.ts'
import type { Reason, Refusal } from '../ticket/refusal.ts'
import { RefusalSigner } from '../ticket/refusal-signer.ts'
import type { Resources } from '../ticket/resources.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { lineOf, ticketObject, type Ticket } from '../ticket/ticket.ts'
import { subjectOf, type AuditTrail } from './audit-trail.ts'
import { noteRefusal } from './audited-refusals.ts'
import { administrationFault, type AdministrativePolicy } from './administration.ts'
import { admissionFault, overdrawnFault } from './admission.ts'
import { openChain, openLinks, type ChainBytes } from './demand.ts'
import { signLease } from './lease-signing.ts'
import { specOf, type LeaseRecord, type LeaseTable } from './lease-table.ts'
import { renewalFault } from './renewal.ts'
import type { RevocationList } from './revocation-list.ts'
import type { SteadyClock } from './steady-clock.ts'

/** What a node's delegations say of a chain, beyond what its links say. */
export interface DelegationRules {
  /** The reason to refuse a chain whose delegation was replaced since by one that does not count its ticket. */
  fault(chain: Chain): Reason | undefined
  /** Whether this node ever delegated to somebody, as far as it remembers. */
  isAgent(principal: Principal): boolean
  /** Told of each ticket that is over before its term, so that its agent may issue that again. */
  freed(ticket: Signed<Ticket>): void
}

/** The image that a demand is for is being fetched: the same demand again, a little later, will be met. */
export class ImageOnItsWay extends SlicenetError {
  constructor(image: string) {
    super('BUSY', `image ${image} is on its way to this node`, {
      hint: 'try again soon, or have it fetched before with `slicenet image fetch`'
    })
  }
}

export interface RedemptionComponents {
  readonly key: SigningKey
  readonly table: LeaseTable
  readonly clock: SteadyClock
  readonly enforcer: Enforcer
  readonly revocations: RevocationList
  readonly delegations: DelegationRules
  readonly logger: Logger
  /**
   * Has an image brought to this node if it is not here; absent where only images count that are. Throws `BUSY` while it
   * is on its way.
   */
  readonly obtainImage?: (image: string) => Promise<void>
  /** What is done for administrative slices is noted in it. */
  readonly audit?: AuditTrail
  /** Told of every checked object; gives what it proves together with others. */
  readonly observe: (object: AnyObject) => readonly Finding[]
}

export interface RedemptionInit {
  /** What may be leased: the machine's measured capacity, capped by the node's policy. */
  readonly capacity: Resources
  /** Address at which the world reaches owned ports now. */
  readonly address: () => string
  readonly epoch: number
  /** Whom the node leases to, whatever its agents grant; everybody when absent. */
  readonly accepts?: Accepts
  /** Who may hold administrative slices, whatever its agents grant; nobody when absent. */
  readonly administrative?: AdministrativePolicy
}

/** Envelopes as they came in. */
export interface RedemptionRequest extends ChainBytes {
  readonly redeem: Uint8Array
  /** Of the holder, for nodes that lease to members of organisations only. */
  readonly memberships?: readonly Uint8Array[]
}

export type RedemptionOutcome = { readonly lease: Signed<Lease> } | { readonly refusal: Signed<Refusal> }

/** A demand that may be met, and with what. */
interface Admitted {
  readonly chain: Chain
  readonly leaf: Signed<Ticket>
  /** The lease that is to go on; absent when a new one is to begin. */
  readonly renewed?: LeaseRecord
}

export class Redemption {
  readonly #components: RedemptionComponents
  readonly #init: RedemptionInit
  readonly #refusals: RefusalSigner
  /** Demands under way by line, so that a retry waits for the first instead of racing it. */
  readonly #underWay = new Map<string, Promise<RedemptionOutcome>>()

  constructor(components: RedemptionComponents, init: RedemptionInit) {
    this.#components = components
    this.#init = init
    this.#refusals = new RefusalSigner(components.key, () => components.clock.now())
  }

  /** Throws only for what is malformed or signed by nobody; everything else is a lease or a signed refusal. */
  async redeem(request: RedemptionRequest, caller: Principal): Promise<RedemptionOutcome> {
    return this.#take(request, caller, false)
  }

  /** As `redeem`, for a demand that names a lease to go on with. A refusal leaves that one as it was. */
  async renew(request: RedemptionRequest, caller: Principal): Promise<RedemptionOutcome> {
    return this.#take(request, caller, true)
  }

  /** Whether somebody waits for a lease of this line now. */
  isUnderWay(line: string): boolean {
    return this.#underWay.has(line)
  }

  async #take(request: RedemptionRequest, caller: Principal, renews: boolean): Promise<RedemptionOutcome> {
    const redeem = redeemObject.open(request.redeem)
    if (redeem.body.issuer !== caller) {
      const message = 'a demand is taken from the one who signed it, and nobody else'
      return this.#refuse(redeem, { code: 'TICKET_WRONG_HOLDER', message })
    }
    if ((redeem.body.renews !== undefined) !== renews) {
      const message = renews ? 'this demand is for a new lease' : 'this demand is for the renewal of a lease'
      return this.#refuse(redeem, { code: 'CHAIN_INVALID', message })
    }
    const last = request.tickets.at(-1)
    const leaf = last && ticketObject.decode(last)
    if (leaf?.id !== redeem.body.ticket) {
      const message = 'the demand names another ticket than the one presented'
      return this.#refuse(redeem, { code: 'CHAIN_INVALID', message })
    }
    const line = lineOf(leaf)
    for (let before; (before = this.#underWay.get(line)) !== undefined;) await before.catch(() => {})
    // No await from here until the record is in the table: what is decided on must still hold when it is taken.
    const running = this.#decide(redeem, request)
    this.#underWay.set(line, running)
    try {
      return await running
    } finally {
      this.#underWay.delete(line)
    }
  }

  async #decide(redeem: Signed<Redeem>, request: RedemptionRequest): Promise<RedemptionOutcome> {
    const { table } = this.#components
    const known = table.ofTicket(redeem.body.ticket)
    if (known !== undefined) return this.#again(redeem, known)
    const admitted = this.#admit(redeem, request)
    if ('code' in admitted) {
      await noteRefusal(this.#components, redeem, request, admitted)
      return this.#refuse(redeem, admitted)
    }
    return admitted.renewed === undefined
      ? this.#make(redeem, admitted)
      : this.#goOn(redeem, admitted, admitted.renewed)
  }

  /** A ticket that was redeemed before: the same demand gets the same lease, another one a refusal. */
  #again(redeem: Signed<Redeem>, known: LeaseRecord): RedemptionOutcome {
    const sameDemand =
      known.nonce === Buffer.from(redeem.body.nonce).toString('hex') &&
      known.lease.body.holder === redeem.body.issuer
    if (sameDemand && known.state === 'active') return { lease: known.lease }
    // Not signed: the ticket will be good again.
    if (known.state === 'making') throw new SlicenetError('BUSY', 'what an earlier try left is being removed')
    const state = known.state === 'renewed' ? 'was renewed' : 'has ended'
    return this.#refuse(redeem, {
      code: 'TICKET_REDEEMED',
      message: sameDemand ? `the lease of this ticket ${state}` : 'this ticket was redeemed before',
      evidence: [known.lease.id]
    })
  }

  #admit(redeem: Signed<Redeem>, request: RedemptionRequest): Admitted | Reason {
    const { key, table, clock } = this.#components
    const now = clock.now()
    const unwelcome = this.#acceptanceFault(redeem, request)
    if (unwelcome !== undefined) return unwelcome
    const opened = openChain(redeem, request, { node: key.principal, now })
    if ('code' in opened) {
      // Who issued it has signed for more than it had: that much is proof, if it is signed indeed.
      if (opened.code === 'TICKET_EXCEEDS_PARENT') this.#observe(openLinks(request))
      return opened
    }
    const chain = opened
    const leaf = chain.tickets.at(-1)
    if (leaf === undefined) throw new TypeError('a checked chain has a ticket')
    const unfit = administrationFault(this.#init.administrative, leaf.body.rights, redeem.body.issuer)
    if (unfit !== undefined) return { ...unfit, evidence: [leaf.id] }
    const spent = this.#spentFault(redeem, chain, leaf)
    if (spent !== undefined) return spent
    const renewed = redeem.body.renews === undefined ? undefined : table.current(redeem.body.renews)
    const fault =
      (redeem.body.renews === undefined ? undefined : renewalFault(redeem, leaf, renewed, now)) ??
      this.#roomFault(chain, leaf, renewed)
    return fault ?? { chain, leaf, ...(renewed === undefined ? {} : { renewed }) }
  }

  /** Looked at before the chain, whose signatures cost more. */
  #acceptanceFault({ body }: Signed<Redeem>, { memberships = [] }: RedemptionRequest): Reason | undefined {
    const { accepts } = this.#init
    const { issuer: holder } = body
    if (accepts === undefined || accepts.principals.includes(holder)) return undefined
    const shown = accepts.organisations.length === 0 ? [] : memberships
    const organisations = vouchedBy(shown, { member: holder, now: this.#components.clock.now() })
    const fault = acceptanceFault({ accepts }, holder, organisations)
    return fault === undefined ? undefined : { code: 'DENIED', message: `this node ${fault}` }
  }

  /** Whether the ticket, or one that it was cut from, is good for nothing any more. */
  #spentFault(redeem: Signed<Redeem>, chain: Chain, leaf: Signed<Ticket>): Reason | undefined {
    const { table, clock, revocations, delegations } = this.#components
    const cancelled = chain.tickets.find(({ id }) => table.isCancelled(id))
    if (cancelled !== undefined) {
      return { code: 'TICKET_EXPIRED', message: 'this ticket was given back', evidence: [cancelled.id] }
    }
    const revoked = revocations.fault(chain, clock.now()) ?? delegations.fault(chain)
    if (revoked !== undefined) return revoked
    const spent = chain.tickets.find(({ id }) => table.ofTicket(id) !== undefined)
    if (spent !== undefined) {
      const message = 'this ticket was cut from one that was redeemed itself'
      return { code: 'TICKET_REDEEMED', message, evidence: [spent.id] }
    }
    const [rival] = redeem.body.renews === undefined ? table.ofLine(lineOf(leaf)) : []
    if (rival === undefined) return undefined
    const message = 'another ticket of its line was redeemed'
    return { code: 'TICKET_REDEEMED', message, evidence: [rival.lease.id] }
  }

  /** Whether there is no room, and if so, whether somebody is to blame for it. */
  #roomFault(chain: Chain, leaf: Signed<Ticket>, renewed: LeaseRecord | undefined): Reason | undefined {
    const { table, clock } = this.#components
    const now = clock.now()
    const findings = this.#observe(chain)
    const { leased } = table
    const wanted = { ...leaf.body, notBefore: now }
    // What is to be renewed makes room for itself.
    const fault = leased.without(
      renewed?.lease.body.ticket,
      () => overdrawnFault(chain, wanted, leased) ?? admissionFault(wanted, leased, this.#init.capacity)
    )
    if (fault === undefined) return this.#ownFault(leaf, renewed)
    const ids = new Set(chain.tickets.map(({ id }) => id))
    const finding = findings.find(({ evidence }) => evidence.some(({ id }) => ids.has(id)))
    if (finding === undefined) return fault
    return {
      code: 'ISSUER_CHEATED',
      message: `${finding.accused} issued what it may not: ${finding.message}`,
      evidence: finding.evidence.map(({ id }) => id)
    }
  }

  #observe({ delegation, tickets }: Chain): Finding[] {
    const { observe } = this.#components
    return [
      ...observe({ type: 'delegation', object: delegation }),
      ...tickets.flatMap((ticket) => observe({ type: 'ticket', object: ticket }))
    ]
  }

  /** What nobody is to blame for, but the node cannot sign or make. */
  #ownFault(leaf: Signed<Ticket>, renewed: LeaseRecord | undefined): Reason | undefined {
    const { table, clock } = this.#components
    if (table.surrendered(leaf.body.ports, clock.now()).length > LIMITS.surrendersPerLeaseMax) {
      return { code: 'PORT_TAKEN', message: 'these ports were given up and leased again too often of late' }
    }
    // Names are short: with an agent at hand one could make a ticket whose vserver has another lease's name.
    const name = vserverName(leaf)
    const isTaken = renewed === undefined && table.leased.isNamed(name)
    return isTaken
      ? { code: 'VSERVER_FAILED', message: `the name ${name} is in use on this node` }
      : undefined
  }

  async #make(redeem: Signed<Redeem>, { chain, leaf }: Admitted): Promise<RedemptionOutcome> {
    const { table, clock, enforcer, logger, audit } = this.#components
    const record = this.#record(redeem, chain, leaf)
    const subject = subjectOf(record)
    const { vserver, image } = record.lease.body
    const about = { rights: [...subject.rights], vserver, image }
    await table.put(record, clock)
    try {
      await audit?.note(subject, 'lease', 'begins', about)
      await this.#components.obtainImage?.(record.lease.body.image)
      await enforcer.create(specOf(record))
      if (table.ofTicket(redeem.body.ticket) !== record) {
        throw new SlicenetError('VSERVER_FAILED', 'the lease was ended while its virtual machine was made')
      }
      await table.put({ ...record, state: 'active' }, clock)
    } catch (error) {
      const { code, message } = asSlicenetError(error)
      logger.warn('a virtual machine could not be made', { vserver: record.lease.body.vserver, error })
      await audit?.note(subject, 'lease', code, { ...about, message }).catch(() => {})
      // A refusal says that nothing is held for the ticket; until that is so, the answer is open.
      if (!(await this.takeBack(record))) {
        throw new SlicenetError(
          'BUSY',
          'a virtual machine could not be made, nor what there is of it removed'
        )
      }
      // Not signed: the ticket is good again when the image is here.
      if (error instanceof ImageOnItsWay) throw error
      const isOurs = ['INTERNAL', 'HOST_PROGRAM_FAILED', 'KERNEL_REFUSED'].includes(code)
      return this.#refuse(redeem, { code: isOurs ? 'VSERVER_FAILED' : code, message })
    }
    const { id, body } = record.lease
    logger.info('lease made', { lease: id, holder: body.holder, slice: body.slice })
    // What it is told cannot undo it any more.
    await audit?.note(subject, 'lease', 'done', about).catch(() => {})
    return { lease: record.lease }
  }

  /** The virtual machine stays as it is; only whose lease it is changes, and until when. */
  async #goOn(
    redeem: Signed<Redeem>,
    { chain, leaf }: Admitted,
    renewed: LeaseRecord
  ): Promise<RedemptionOutcome> {
    const { table, clock, logger, audit } = this.#components
    const record: LeaseRecord = {
      ...this.#record(redeem, chain, leaf, renewed),
      state: 'active',
      keys: renewed.keys
    }
    await table.renew(renewed, record, clock)
    logger.info('lease renewed', { lease: record.lease.id, prev: renewed.lease.id })
    const details = { prev: renewed.lease.id, until: new Date(record.lease.body.notAfter).toISOString() }
    await audit?.note(subjectOf(record), 'renew', 'done', details).catch(() => {})
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

  #refuse({ id, body }: Signed<Redeem>, reason: Reason): { readonly refusal: Signed<Refusal> } {
    const { code, message } = reason
    this.#components.logger.info('demand refused', { code, message, holder: body.issuer })
    return { refusal: this.#refusals.sign(reason, id) }
  }

  #record(redeem: Signed<Redeem>, chain: Chain, leaf: Signed<Ticket>, renewed?: LeaseRecord): LeaseRecord {
    const { key, table, clock } = this.#components
    const now = clock.now()
    const { epoch } = this.#init
    const lease = signLease(
      { redeem: redeem.body, leaf, ...(renewed === undefined ? {} : { renewed: renewed.lease }) },
      {
        now,
        seq: table.nextSeq(now),
        address: this.#init.address(),
        epoch,
        vserver: renewed?.lease.body.vserver ?? vserverName(leaf),
        released: table.surrendered(leaf.body.ports, now)
      },
      key
    )
    const { delegation, tickets } = chain
    return {
      lease,
      state: 'making',
      nonce: Buffer.from(redeem.body.nonce).toString('hex'),
      keys: redeem.body.keys,
      redeemBefore: leaf.body.redeemBefore,
      agent: delegation.body.holder,
      tickets: tickets.map(({ id }) => id),
      chain: [delegation.bytes, ...tickets.map(({ bytes }) => bytes)],
      line: lineOf(leaf)
    }
  }
}

/** Unique enough among the leases of a node, and short enough for the names of devices and groups made of it. */
function vserverName(leaf: Signed<Ticket>): string {
  return `${leaf.body.slice}-${leaf.id.slice(-7)}`
}
