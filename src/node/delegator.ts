/**
 * Delegates shares of the node to agents (paper §4.2): signs a delegation for each, hands it over, and makes a new
 * one when half of its time is gone or the policy changed. A delegation is durable before an agent has it.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { agentProtocol } from '../protocol/agent-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import type { Store } from '../store/store.ts'
import { delegationObject, type Delegation } from '../ticket/delegation.ts'
import type { PortRange } from '../ticket/ports.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import type { Right } from '../ticket/resource-schema.ts'
import { scaleResources, type Resources } from '../ticket/resources.ts'
import type { Signed } from '../ticket/signed-object.ts'

/** What the node's policy says of one agent. */
export interface AgentShare {
  readonly agent: Principal
  /** Of the node's capacity; the shares may add up to more than 100. */
  readonly sharePercent: number
  readonly overbookPercent: number
  readonly maxDepth: number
  readonly ports: readonly PortRange[]
  readonly rights: readonly Right[]
}

export interface DelegatorComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly clock: Clock
  readonly logger: Logger
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
}

export interface DelegatorInit {
  readonly capacity: Resources
  /** Of the node's adverts. */
  readonly epoch: number
  readonly shares: readonly AgentShare[]
  readonly termMs: number
  readonly retryMs: number
}

type Terms = Pick<Delegation, 'resources' | 'ports' | 'rights' | 'overbookPercent' | 'maxDepth'>

const TABLE = 'node-delegations'
const CALL_MS = 10_000

export class Delegator implements Startable {
  readonly #components: DelegatorComponents
  readonly #init: DelegatorInit
  readonly #delegations = new Map<Principal, Signed<Delegation>>()
  /** Ids that their agents have taken since this process began. */
  readonly #taken = new Set<string>()
  readonly #listeners = new Set<() => void>()
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: DelegatorComponents, init: DelegatorInit) {
    this.#components = components
    this.#init = init
  }

  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { store, clock, logger } = this.#components
    for await (const [agent, bytes] of store.iterate(TABLE))
      this.#delegations.set(agent, delegationObject.open(bytes))
    this.#loop = repeat(
      (signal) => this.#delegate(signal),
      { clock, onError: (error) => logger.warn('delegating failed', { error }) },
      { intervalMs: this.#init.retryMs }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    await loop?.stop()
  }

  /** Calls back whenever an agent took a delegation. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener)
  }

  /** Agents that hold a delegation of this node now. */
  agents(): Principal[] {
    return this.#init.shares
      .map(({ agent }) => agent)
      .filter((agent) => this.#taken.has(this.#delegations.get(agent)?.id ?? ''))
  }

  async #delegate(signal: AbortSignal): Promise<void> {
    await Promise.all(
      this.#init.shares.map(async (share) => {
        try {
          await this.#delegateTo(share, signal)
        } catch (error) {
          signal.throwIfAborted()
          this.#components.logger.debug('an agent did not take its delegation', { agent: share.agent, error })
        }
      })
    )
  }

  async #delegateTo(share: AgentShare, signal: AbortSignal): Promise<void> {
    const { store, clock, callAgent, logger } = this.#components
    const known = this.#delegations.get(share.agent)
    const delegation = known !== undefined && this.#isFresh(known, share) ? known : this.#sign(share)
    if (delegation !== known) {
      await store.commit([{ table: TABLE, key: share.agent, value: delegation.bytes }])
      this.#delegations.set(share.agent, delegation)
    }
    if (this.#taken.has(delegation.id)) return
    await callAgent(share.agent)(
      'delegate',
      { delegation: delegation.bytes },
      { signal: within(clock, CALL_MS, signal) }
    )
    if (known !== undefined) this.#taken.delete(known.id)
    this.#taken.add(delegation.id)
    for (const listener of this.#listeners) listener()
    logger.info('delegated', { agent: share.agent, delegation: delegation.id })
  }

  /** More than half of its term is left, and it says what the policy says. */
  #isFresh({ body }: Signed<Delegation>, share: AgentShare): boolean {
    const left = body.notAfter - this.#components.clock.now()
    return (
      left > this.#init.termMs / 2 &&
      JSON.stringify(granted(body)) === JSON.stringify(granted(this.#terms(share)))
    )
  }

  #terms(share: AgentShare): Terms {
    const { ports, rights, overbookPercent, maxDepth, sharePercent } = share
    return {
      resources: scaleResources(this.#init.capacity, sharePercent),
      ports,
      rights,
      overbookPercent,
      maxDepth
    }
  }

  #sign(share: AgentShare): Signed<Delegation> {
    const { key, clock } = this.#components
    const now = clock.now()
    const body = {
      issuer: key.principal,
      holder: share.agent,
      // An agent's clock may lag behind.
      notBefore: now - 60_000,
      notAfter: now + this.#init.termMs,
      seq: Math.max(now, (this.#delegations.get(share.agent)?.body.seq ?? 0) + 1),
      epoch: this.#init.epoch,
      counts: [],
      ...this.#terms(share)
    }
    return delegationObject.sign(body, key)
  }
}

/** The terms in one order, so that two can be compared. */
function granted(terms: Terms): unknown[] {
  const { resources, ports, rights, overbookPercent, maxDepth } = terms
  const amounts = Object.entries(resources).sort(([a], [b]) => (a < b ? -1 : 1))
  return [
    amounts,
    ports.map(({ protocol, first, last }) => [protocol, first, last]),
    rights,
    overbookPercent,
    maxDepth
  ]
}
