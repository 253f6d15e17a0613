/** The role of an agent: its book and grants, its own adverts, and listening for the nodes that it serves. */
import { Agent, type TicketView } from '../agent/agent.ts'
import type { Purchase, Supplier } from '../agent/purchases.ts'
import { Lifecycle, repeat, type Startable } from '../base/lifecycle.ts'
import { AGENTS_TOPIC, organisationTopic, regionTopic } from '../peer/topics.ts'
import { agentProtocol } from '../protocol/agent-protocol.ts'
import { nodeProtocol } from '../protocol/node-protocol.ts'
import { advertisementObject, type NodeAdvertisement } from '../ticket/advertisement.ts'
import { PORT_PROTOCOLS } from '../ticket/ports.ts'
import type { Revocation } from '../ticket/revocation.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { AgentConfig, DaemonConfig, PurchaseConfig } from './config.ts'
import type { RoleComponents } from './node-role.ts'

export interface AgentRoleInit {
  readonly config: DaemonConfig
  readonly agent: AgentConfig
  readonly epoch: number
}

const SETTLE_INTERVAL_MS = 15_000
const CHANGE_POLL_MS = 500

export class AgentRole implements Startable {
  readonly #components: RoleComponents
  readonly #init: AgentRoleInit
  readonly #agent: Agent
  #advertised = { at: -Infinity, what: '' }
  #parts: Lifecycle | undefined
  #seq = 0

  constructor(components: RoleComponents, init: AgentRoleInit) {
    const { key, store, host, directory, frauds, memberships, clock, logger } = components
    const { holders, longestTerm, hold, rights, ticketsPerHolder, partners, suppliers } = init.agent
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
        isProven: (principal) => frauds.isProven(principal),
        memberships: () => memberships.shown()
      },
      {
        policy: {
          holders,
          durationMsMax: longestTerm,
          rights,
          ticketsPerHolderMax: ticketsPerHolder,
          partners: partners.map((principal) => ({ principal }))
        },
        suppliers: suppliers.map(supplierOf),
        holdMs: hold,
        settleIntervalMs: SETTLE_INTERVAL_MS
      }
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
    const { host, directory, clock, logger } = this.#components
    const advertising: Startable = {
      start: async () => {
        directory.subscribe(AGENTS_TOPIC)
        directory.announceAgent()
        loop = repeat(
          () => this.#advertise(),
          { clock, onError: (error) => logger.warn('advertising failed', { error }) },
          { intervalMs: CHANGE_POLL_MS }
        )
      },
      stop: async () => loop?.stop()
    }
    let loop: { stop(): Promise<void> } | undefined
    for (const { address } of this.#init.agent.suppliers) {
      await host.addAddresses(agentAt(address), [address])
    }
    this.#parts = new Lifecycle([this.#agent, advertising])
    await this.#parts.start()
    await host.serve(agentProtocol, this.#agent.handlers())
  }

  async stop(): Promise<void> {
    const parts = this.#parts
    this.#parts = undefined
    await parts?.stop()
  }

  /** Says what it serves, now and then and as soon as that changed, and listens to where its nodes are. */
  async #advertise(): Promise<void> {
    const { key, host, directory, memberships, clock } = this.#components
    const { config, epoch } = this.#init
    const served = this.#agent.nodes()
    const adverts = served.flatMap((node) => {
      const body = directory.get(node, 'node')?.advert.body
      return body?.role === 'node' ? [body] : []
    })
    const regions = valuesOf(adverts, 'region')
    const organisations = valuesOf(adverts, 'organisation')
    for (const region of regions) directory.subscribe(regionTopic(region))
    for (const organisation of organisations) directory.subscribe(organisationTopic(organisation))
    const shown = memberships.shown()
    const what = JSON.stringify([served.length, regions, organisations, shown.length])
    const due = clock.monotonic() - this.#advertised.at >= config.advertEvery
    if (!due && what === this.#advertised.what) return
    const now = clock.now()
    this.#seq = Math.max(this.#seq + 1, now)
    const advert = advertisementObject.sign(
      {
        role: 'agent',
        issuer: key.principal,
        notBefore: now,
        notAfter: now + config.advertLife,
        seq: this.#seq,
        name: config.name,
        epoch,
        multiaddrs: host.multiaddrs(),
        attributes: { organisation: config.organisation, region: config.region },
        nodes: served.length,
        regions,
        organisations,
        ...(shown.length === 0 ? {} : { memberships: shown })
      },
      key
    )
    this.#advertised = { at: clock.monotonic(), what }
    await directory.publish(advert, { topics: [AGENTS_TOPIC], agents: [] })
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
    durationMs: term
  }
}

function valuesOf(adverts: readonly NodeAdvertisement[], attribute: string): string[] {
  const values = adverts
    .map(({ attributes }) => attributes[attribute])
    .filter((value) => typeof value === 'string')
  return [...new Set(values)].sort().slice(0, 64)
}
