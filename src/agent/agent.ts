/**
 * The agent (paper §2.2, §4.2.2): holds delegations of nodes, advertises what it can grant, and grants tickets. A
 * ticket is in the store before it is out of the house.
 */
import * as v from 'valibot'
import { SlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { agentProtocol, Grant, TicketRequest } from '../protocol/agent-protocol.ts'
import type { Caller, Handlers } from '../protocol/method.ts'
import type { nodeProtocol } from '../protocol/node-protocol.ts'
import type { Advertisement } from '../ticket/advertisement.ts'
import { delegationObject } from '../ticket/delegation.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { refusalObject } from '../ticket/refusal.ts'
import type { Right } from '../ticket/resource-schema.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { ticketObject, type Ticket } from '../ticket/ticket.ts'
import { cborCodec } from '../wire/codec.ts'
import type { Store } from '../store/store.ts'
import { TicketBook } from './ticket-book.ts'

export interface AgentComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  /** Adverts of nodes by node, as the directory knows them now. */
  readonly advertOf: (node: Principal) => Signed<Advertisement> | undefined
  readonly callNode: (node: Principal) => Caller<typeof nodeProtocol.methods>
}

export interface AgentPolicy {
  /** Who may have tickets. */
  readonly holders: 'anyone' | readonly Principal[]
  readonly durationMsMax: number
  readonly rights: readonly Right[]
}

export interface AgentInit {
  readonly policy: AgentPolicy
  /** How long a ticket is held for its holder; at most 10 minutes. */
  readonly holdMs: number
  readonly settleIntervalMs: number
  /** How long a node may take to settle tickets; default 10 s. */
  readonly callMs?: number
}

const DELEGATIONS = 'agent-delegations'
const TICKETS = 'agent-tickets'
const COUNTERS = 'agent-counters'
const CALL_MS = 10_000

const counterCodec = cborCodec(v.pipe(v.number(), v.integer()))

export class Agent implements Startable {
  readonly #components: AgentComponents
  readonly #init: AgentInit
  readonly #book = new TicketBook()
  /** The last sequence number used for each node. */
  readonly #counters = new Map<Principal, number>()
  #refusalSeq = 0
  #settling: { stop(): Promise<void> } | undefined

  constructor(components: AgentComponents, init: AgentInit) {
    this.#components = components
    this.#init = init
  }

  async start(): Promise<void> {
    if (this.#settling !== undefined) return
    const { store, clock, logger } = this.#components
    for await (const [, bytes] of store.iterate(DELEGATIONS))
      this.#book.addDelegation(delegationObject.open(bytes))
    for await (const [, bytes] of store.iterate(TICKETS)) {
      this.#book.record(ticketObject.open(bytes))
    }
    for await (const [node, bytes] of store.iterate(COUNTERS))
      this.#counters.set(node, counterCodec.decode(bytes))
    this.#settling = repeat(
      (signal) => this.#settle(signal),
      { clock, onError: (error) => logger.warn('settling tickets failed', { error }) },
      { intervalMs: this.#init.settleIntervalMs, initialDelayMs: this.#init.settleIntervalMs }
    )
  }

  async stop(): Promise<void> {
    const settling = this.#settling
    this.#settling = undefined
    await settling?.stop()
  }

  /** Nodes whose delegation is in force. */
  nodes(): Principal[] {
    return this.#book.delegations(this.#components.clock.now()).map((delegation) => delegation.body.issuer)
  }

  /** What this agent answers to peers. */
  handlers(): Handlers<typeof agentProtocol.methods> {
    return {
      delegate: async ({ delegation }, { principal }) => {
        await this.#takeDelegation(delegation, principal)
        return {}
      },
      getAds: async (_params, call) => {
        const now = this.#components.clock.now()
        for (const delegation of this.#book.delegations(now)) {
          const node = delegation.body.issuer
          const advert = this.#components.advertOf(node)
          const available = this.#book.available(node, now)
          if (advert === undefined || available === undefined) continue
          await call.emit({ advert: advert.bytes, available, until: delegation.body.notAfter })
        }
        return {}
      },
      getTickets: async ({ slice, requests }, { principal }) => {
        const holder = requirePrincipal(principal)
        return { grants: await Promise.all(requests.map((request) => this.#grant(slice, holder, request))) }
      },
      releaseTickets: async ({ tickets }, { principal, signal }) => {
        const known = tickets.flatMap((id) => this.#book.issued(id) ?? [])
        const own = known.filter(({ body }) => body.holder === principal)
        await this.#settleTickets(own, true, signal)
        return {}
      }
    }
  }

  async #takeDelegation(bytes: Uint8Array, principal: Principal | undefined): Promise<void> {
    const { key, store, clock, logger } = this.#components
    const delegation = delegationObject.open(bytes)
    if (delegation.body.issuer !== principal) {
      throw new SlicenetError('DENIED', 'a delegation is taken from the node that it is of, and nobody else')
    }
    if (delegation.body.holder !== key.principal) {
      throw new SlicenetError('DENIED', 'this delegation is for another agent')
    }
    if (delegation.body.notAfter <= clock.now())
      throw new SlicenetError('TICKET_EXPIRED', 'this delegation has ended')
    if (!this.#book.addDelegation(delegation)) {
      throw new SlicenetError('DENIED', 'a newer delegation of this node is held, or too many are')
    }
    await store.commit([{ table: DELEGATIONS, key: delegation.body.issuer, value: bytes }])
    logger.info('delegation taken', { node: delegation.body.issuer, delegation: delegation.id })
  }

  async #grant(slice: string, holder: Principal, request: TicketRequest): Promise<Grant> {
    const { key, store, clock, logger } = this.#components
    const now = clock.now()
    const denied = this.#policyFault(holder, request)
    const decision = denied === undefined ? this.#book.decide(request, now) : { refused: denied }
    if ('refused' in decision) return this.#refuse(request, decision.refused, now)
    const { delegation, ports, notBefore, notAfter } = decision.granted
    const seq = (this.#counters.get(request.node) ?? 0) + 1
    const ticket = ticketObject.sign(
      {
        issuer: key.principal,
        notBefore,
        notAfter,
        seq,
        parent: delegation.id,
        node: request.node,
        holder,
        slice,
        resources: request.resources,
        ports,
        rights: request.rights,
        canDelegate: delegation.body.maxDepth > 1,
        redeemBefore: Math.min(now + Math.min(this.#init.holdMs, LIMITS.holdMsMax), notAfter)
      },
      key
    )
    // Counted before the first await, so that two requests at once never get the same share.
    this.#counters.set(request.node, seq)
    this.#book.record(ticket)
    try {
      await store.commit([
        {
          table: TICKETS,
          key: ticket.id,
          value: ticket.bytes
        },
        { table: COUNTERS, key: request.node, value: counterCodec.encode(seq) }
      ])
    } catch (error) {
      this.#book.forget(ticket)
      throw error
    }
    logger.info('ticket granted', { ticket: ticket.id, node: request.node, holder, slice })
    return { node: request.node, chain: [delegation.bytes, ticket.bytes] }
  }

  #policyFault(
    holder: Principal,
    request: TicketRequest
  ): { code: 'DENIED' | 'QUOTA_EXCEEDED'; message: string } | undefined {
    const { policy } = this.#init
    if (policy.holders !== 'anyone' && !policy.holders.includes(holder)) {
      return { code: 'DENIED', message: `this agent grants nothing to ${holder}` }
    }
    if (request.durationMs > policy.durationMsMax) {
      return {
        code: 'QUOTA_EXCEEDED',
        message: `this agent grants terms of at most ${policy.durationMsMax} ms`
      }
    }
    const right = request.rights.find((name) => !policy.rights.includes(name))
    return right === undefined
      ? undefined
      : { code: 'DENIED', message: `this agent does not grant the right ${right}` }
  }

  #refuse(
    request: TicketRequest,
    reason: { code: SlicenetError['code']; message: string },
    now: number
  ): Grant {
    const { key } = this.#components
    this.#refusalSeq = Math.max(this.#refusalSeq + 1, now)
    const delegation = this.#book.delegation(request.node, now)
    const refusal = refusalObject.sign(
      {
        issuer: key.principal,
        notBefore: now,
        notAfter: now + LIMITS.holdMsMax,
        seq: this.#refusalSeq,
        code: reason.code,
        message: reason.message,
        evidence: delegation === undefined ? [] : [delegation.id]
      },
      key
    )
    return { node: request.node, refusal: refusal.bytes }
  }

  /** Asks the nodes about tickets whose hold is over, and about redeemed ones whose lease may have ended early. */
  async #settle(signal: AbortSignal): Promise<void> {
    const now = this.#components.clock.now()
    await this.#drop(this.#book.over(now))
    await this.#dropDelegations(now)
    const asked = this.#book.allIssued().filter(({ body }) => body.redeemBefore <= now)
    await this.#settleTickets(asked, false, signal)
  }

  /** Nodes come and go; those whose delegation ended must not use up the room for others. */
  async #dropDelegations(now: number): Promise<void> {
    const nodes = this.#book.dropEnded(now)
    if (nodes.length === 0) return
    await this.#components.store.commit(nodes.map((key) => ({ table: DELEGATIONS, key, value: null })))
  }

  async #settleTickets(
    tickets: readonly Signed<Ticket>[],
    cancel: boolean,
    signal: AbortSignal
  ): Promise<void> {
    const byNode = Map.groupBy(tickets, (ticket) => ticket.body.node)
    await Promise.all(
      [...byNode].map(async ([node, ofNode]) => {
        for (let at = 0; at < ofNode.length; at += LIMITS.ticketsPerMessageMax) {
          const batch = ofNode.slice(at, at + LIMITS.ticketsPerMessageMax)
          try {
            await this.#settleBatch(node, batch, cancel, signal)
          } catch (error) {
            signal.throwIfAborted()
            // The tickets go on counting: only the node can say that they will not be redeemed.
            this.#components.logger.debug('node did not settle tickets', { node, error })
            return
          }
        }
      })
    )
  }

  async #settleBatch(
    node: Principal,
    batch: readonly Signed<Ticket>[],
    cancel: boolean,
    signal: AbortSignal
  ): Promise<void> {
    const { states } = await this.#components.callNode(node)(
      'settleTickets',
      { tickets: batch.map((ticket) => ticket.bytes), cancel },
      // One node that never answers must not keep the tickets of all others counted.
      { signal: within(this.#components.clock, this.#init.callMs ?? CALL_MS, signal) }
    )
    await this.#drop(
      batch.filter((_ticket, index) => states[index] === 'lapsed' || states[index] === 'ended')
    )
  }

  /** Durable before it is forgotten: a ticket must never count less after a crash than before it. */
  async #drop(tickets: readonly Signed<Ticket>[]): Promise<void> {
    if (tickets.length === 0) return
    await this.#components.store.commit(tickets.map(({ id }) => ({ table: TICKETS, key: id, value: null })))
    for (const ticket of tickets) this.#book.forget(ticket)
  }
}

function requirePrincipal(principal: Principal | undefined): Principal {
  if (principal === undefined) throw new TypeError('an agent answers to principals only')
  return principal
}
