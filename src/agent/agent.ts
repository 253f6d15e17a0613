/**
 * The agent (paper §2.2, §4.2.2): holds delegations of nodes and tickets of other agents, advertises what it can grant,
 * and grants tickets. A ticket is in the store before it is out of the house.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { agentProtocol } from '../protocol/agent-protocol.ts'
import type { Caller, Handlers } from '../protocol/method.ts'
import type { nodeProtocol } from '../protocol/node-protocol.ts'
import type { Store } from '../store/store.ts'
import type { Accepts } from '../ticket/accepts.ts'
import type { Advertisement } from '../ticket/advertisement.ts'
import type { AnyObject } from '../ticket/any-object.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import type { Revocation } from '../ticket/revocation.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { acceptedBy, type AdmissionPolicy, type AgentPolicy } from './admission-policy.ts'
import { readAgent } from './agent-tables.ts'
import { Delegations } from './delegations.ts'
import { Granting } from './granting.ts'
import { Offering } from './offering.ts'
import { Purchases, type Supplier } from './purchases.ts'
import { Ratings } from './ratings.ts'
import { Reports } from './reports.ts'
import { Revoking } from './revoking.ts'
import { Settling } from './settling.ts'
import { TicketBook } from './ticket-book.ts'

export interface AgentComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  /** Adverts of nodes by node, as the directory knows them now. */
  readonly advertOf: (node: Principal) => Signed<Advertisement> | undefined
  readonly callNode: (node: Principal) => Caller<typeof nodeProtocol.methods>
  /** Needed where there are suppliers. */
  readonly callAgent?: (agent: Principal) => Caller<typeof agentProtocol.methods>
  /** Takes an advert of a node, an envelope that is yet to be checked, that another agent has. */
  readonly learn?: (advert: Uint8Array) => void
  /** Told of signed objects that others brought, their signatures checked. */
  readonly observe?: (object: AnyObject) => void
  /** Whether a valid proof of fraud against somebody is known. */
  readonly isProven?: (principal: Principal) => boolean
  /** Envelopes: who vouches for this agent, shown to its suppliers. */
  readonly memberships?: () => readonly Uint8Array[]
}

export interface AgentInit {
  readonly policy: AgentPolicy
  /** How long a ticket is held for its holder; at most 10 minutes. */
  readonly holdMs: number
  readonly settleIntervalMs: number
  /** How long a node or another agent may take to answer; default 10 s. */
  readonly callMs?: number
  /** Whom to get wholesale tickets of. */
  readonly suppliers?: readonly Supplier[]
}

/** A ticket of this agent's that counts, for people to look at. */
export interface TicketView {
  readonly id: string
  readonly node: Principal
  readonly holder: Principal
  /** Absent in a wholesale ticket. */
  readonly slice?: string
  /** UTC ms. */
  readonly notBefore: number
  readonly notAfter: number
  /** `settled`: nothing more can come of it, by its node's word; it counts until the next delegation. */
  readonly state: 'out' | 'settled' | 'revoked'
}

const CALL_MS = 10_000

export class Agent implements Startable {
  readonly #components: AgentComponents
  readonly #init: AgentInit
  readonly #book = new TicketBook()
  readonly #ratings: Ratings
  readonly #offering: Offering
  readonly #granting: Granting
  readonly #delegations: Delegations
  readonly #settling: Settling
  readonly #revoking: Revoking
  readonly #purchases: Purchases | undefined
  readonly #reports: Reports
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: AgentComponents, init: AgentInit) {
    this.#components = components
    this.#init = init
    const { key, advertOf, callAgent } = components
    const { callMs = CALL_MS, suppliers = [] } = init
    const shared = {
      ...components,
      principal: key.principal,
      book: this.#book,
      observe: components.observe ?? (() => {}),
      isProven: components.isProven ?? (() => false),
      memberships: components.memberships ?? (() => []),
      learn: components.learn ?? (() => {}),
      isKnown: (node: Principal) => advertOf(node) !== undefined
    }
    this.#ratings = new Ratings(shared)
    this.#offering = new Offering({ ...shared, ratings: this.#ratings })
    this.#granting = new Granting(shared, init)
    this.#delegations = new Delegations({ ...shared, granting: this.#granting })
    this.#settling = new Settling({ ...shared, granting: this.#granting }, { callMs })
    this.#revoking = new Revoking(shared, { callMs })
    this.#reports = new Reports({ ...shared, ratings: this.#ratings })
    if (suppliers.length === 0) return
    if (callAgent === undefined) throw new TypeError('an agent with suppliers calls them')
    const delegations = this.#delegations
    this.#purchases = new Purchases({ ...shared, callAgent, delegations }, { suppliers, callMs })
  }

  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { store, clock, logger } = this.#components
    const kept = await readAgent(store, this.#book)
    this.#granting.restore(kept.seq)
    this.#ratings.restore(kept.ratings)
    this.#revoking.restore(kept.revocations)
    const { settleIntervalMs: intervalMs } = this.#init
    this.#loop = repeat(
      (signal) => this.#tend(signal),
      { clock, onError: (error) => logger.warn('settling tickets failed', { error }) },
      { intervalMs, initialDelayMs: this.#purchases === undefined ? intervalMs : 0 }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    await loop?.stop()
  }

  /** Nodes of which tickets can be granted. */
  nodes(): Principal[] {
    return this.#book.nodes(this.#components.clock.now())
  }

  /** Whom it says it serves; everybody when absent. */
  accepts(): Accepts | undefined {
    return acceptedBy(this.#granting.policy)
  }

  /** Decides by another policy from now on; tickets that are out stay as they are, and count. */
  setPolicy(policy: AdmissionPolicy): void {
    this.#granting.policy = policy
  }

  /** Every ticket that counts. */
  tickets(): TicketView[] {
    return this.#book.issued().map(({ ticket: { id, body }, settled, revoked }) => ({
      id,
      node: body.node,
      holder: body.holder,
      ...(body.slice === undefined ? {} : { slice: body.slice }),
      notBefore: body.notBefore,
      notAfter: body.notAfter,
      state: settled ? 'settled' : revoked ? 'revoked' : 'out'
    }))
  }

  /**
   * Takes a ticket back: signs a revocation and tells the node, now or as soon as it answers. Throws `NOT_FOUND`,
   * `BUSY`, `STORE_FAILED`.
   */
  async revoke(
    ticketId: string,
    options: { readonly signal?: AbortSignal } = {}
  ): Promise<Signed<Revocation>> {
    const revocation = await this.#revoking.revoke(ticketId)
    await this.#revoking.tell(options.signal ?? new AbortController().signal)
    return revocation
  }

  /** What this agent answers to peers. */
  handlers(): Handlers<typeof agentProtocol.methods> {
    return {
      delegate: ({ delegation }, { principal }) => this.#delegations.offer(delegation, principal),
      getAds: async ({ query }, call) => {
        await this.#offering.offer(query, call)
        return { ratings: this.#ratings.agents(this.#components.clock.now()) }
      },
      getTickets: async (asked, { principal }) => {
        return { grants: await this.#granting.grant(asked, requirePrincipal(principal)) }
      },
      report: async ({ receipts }) => {
        await this.#reports.take(receipts)
        return {}
      },
      releaseTickets: async ({ tickets }, { principal, signal }) => {
        const known = [...new Set(tickets)].flatMap((id) => this.#book.get(id) ?? [])
        const own = known.filter(({ ticket, settled }) => !settled && ticket.body.holder === principal)
        await this.#settling.ask(own, true, signal)
        return {}
      }
    }
  }

  /** What is done now and then; one thing that fails does not keep the others from being done. */
  async #tend(signal: AbortSignal): Promise<void> {
    const work = [
      () => this.#settling.dropOver(),
      () => this.#settling.askDue(signal),
      () => this.#revoking.tell(signal),
      async () => this.#purchases?.buyDue(signal)
    ]
    const failures: unknown[] = []
    for (const one of work) await one().catch((error: unknown) => failures.push(error))
    signal.throwIfAborted()
    if (failures.length > 0) throw failures[0]
  }
}

function requirePrincipal(principal: Principal | undefined): Principal {
  if (principal === undefined) throw new TypeError('an agent answers to principals only')
  return principal
}
