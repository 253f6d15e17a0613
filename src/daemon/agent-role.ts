/** The role of an agent: its book and grants, its own adverts, and listening for the nodes that it serves. */
import { Agent, type TicketView } from '../agent/agent.ts'
import type { PlainPolicy } from '../agent/admission-policy.ts'
import type { Purchase, Supplier } from '../agent/purchases.ts'
import { Lifecycle, type Startable } from '../base/lifecycle.ts'
import { agentProtocol } from '../protocol/agent-protocol.ts'
import { nodeProtocol } from '../protocol/node-protocol.ts'
import { PORT_PROTOCOLS } from '../ticket/ports.ts'
import type { Revocation } from '../ticket/revocation.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { AgentAdvertising } from './agent-advertising.ts'
import type { AgentConfig, DaemonConfig, PurchaseConfig } from './config.ts'
import { PolicyKeeper } from './policy-keeper.ts'
import type { RoleComponents } from './node-role.ts'
import { shapingOf } from './shaping-config.ts'

export interface AgentRoleInit {
  readonly config: DaemonConfig
  readonly agent: AgentConfig
  readonly epoch: number
}

const SETTLE_INTERVAL_MS = 15_000

export class AgentRole implements Startable {
  readonly #components: RoleComponents
  readonly #init: AgentRoleInit
  readonly #agent: Agent
  readonly #advertising: AgentAdvertising
  readonly #keeper: PolicyKeeper | undefined
  #parts: Lifecycle | undefined

  constructor(components: RoleComponents, init: AgentRoleInit) {
    const { key, store, host, directory, frauds, memberships, clock, logger } = components
    const { hold, suppliers, policy: policyFile } = init.agent
    this.#components = components
    this.#init = init
    this.#agent = new Agent(
      {
        key,
        store,
        clock,
        logger: logger.child('agent'),
        advertOf: (node) => directory.get(node, 'node')?.advert,
        callNode: (node) => host.caller(nodeProtocol, node),
        callAgent: (agent) => host.caller(agentProtocol, agent),
        observe: (object) => frauds.observe(object),
        learn: (advert) => directory.learn(advert),
        isProven: (principal) => frauds.isProven(principal),
        memberships: () => memberships.shown()
      },
      {
        // Until the file is read nothing is granted.
        policy: policyFile === undefined ? plainPolicy(init.agent) : { rules: [] },
        suppliers: suppliers.map(supplierOf),
        holdMs: hold,
        settleIntervalMs: SETTLE_INTERVAL_MS
      }
    )
    this.#advertising = advertising(components, init, this.#agent)
    if (policyFile === undefined) return
    this.#keeper = new PolicyKeeper(
      { clock, logger: logger.child('policy'), take: (policy) => this.#agent.setPolicy(policy) },
      { file: policyFile }
    )
  }

  /** Nodes whose delegation it holds now. */
  get delegations(): number {
    return this.#agent.nodes().length
  }

  /** The tickets that it issued and that count. */
  tickets(): TicketView[] {
    return this.#agent.tickets()
  }

  /** Takes a ticket back, see `Agent.revoke`. */
  async revoke(ticket: string, options: { readonly signal?: AbortSignal } = {}): Promise<Signed<Revocation>> {
    return this.#agent.revoke(ticket, options)
  }

  async start(): Promise<void> {
    if (this.#parts !== undefined) return
    const { host } = this.#components
    for (const { address } of this.#init.agent.suppliers) {
      await host.addAddresses(agentAt(address), [address])
    }
    this.#parts = new Lifecycle([
      ...(this.#keeper === undefined ? [] : [this.#keeper]),
      this.#agent,
      this.#advertising
    ])
    await this.#parts.start()
    await host.serve(agentProtocol, this.#agent.handlers())
  }

  async stop(): Promise<void> {
    const parts = this.#parts
    this.#parts = undefined
    await parts?.stop()
  }
}

function advertising(
  components: RoleComponents,
  { config, epoch }: AgentRoleInit,
  agent: Agent
): AgentAdvertising {
  const { host, memberships } = components
  return new AgentAdvertising(
    {
      ...components,
      served: () => agent.nodes(),
      multiaddrs: () => host.multiaddrs(),
      more: () => {
        const shown = memberships.shown()
        const accepts = agent.accepts()
        return {
          ...(shown.length === 0 ? {} : { memberships: shown }),
          ...(accepts === undefined ? {} : { accepts })
        }
      }
    },
    {
      name: config.name,
      epoch,
      attributes: { organisation: config.organisation, region: config.region },
      intervalMs: config.advertEvery,
      lifetimeMs: config.advertLife
    }
  )
}

function plainPolicy(config: AgentConfig): PlainPolicy {
  const { holders, longestTerm, rights, shaping, ticketsPerHolder, partners } = config
  return {
    holders,
    durationMsMax: longestTerm,
    rights,
    shaping: shapingOf(shaping),
    ticketsPerHolderMax: ticketsPerHolder,
    partners: partners.map((principal) => ({ principal }))
  }
}

function agentAt(address: string): Principal {
  return address.slice(address.lastIndexOf('/') + 1)
}

function supplierOf({ address, nodes }: AgentConfig['suppliers'][number]): Supplier {
  return { agent: agentAt(address), purchases: nodes.map(purchaseOf) }
}

export function purchaseOf(config: PurchaseConfig): Purchase {
  const { node, cpu, cpuMax, memory, disk, egress, egressMax, egressPerDay, pids, ports, rights, term } =
    config
  const shaping = shapingOf(config.shaping)
  return {
    node,
    resources: {
      cpuMillis: cpu,
      cpuMillisMax: Math.max(cpu, cpuMax ?? 0),
      memoryBytes: memory,
      diskBytes: disk,
      egressBps: egress,
      egressBpsMax: Math.max(egress, egressMax ?? 0),
      egressBytesPerDay: egressPerDay,
      pids
    },
    ports: PORT_PROTOCOLS.flatMap((protocol) =>
      Array.from({ length: ports[protocol] }, () => ({ protocol }))
    ),
    rights,
    ...(shaping === undefined ? {} : { shaping }),
    durationMs: term
  }
}
