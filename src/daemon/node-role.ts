/** The role of a node: monitor, node manager, delegations and adverts, wired and started in order. */
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { Lifecycle, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import type { Enforcer } from '../enforce/enforcer.ts'
import { nodeUidBase } from '../enforce/id-ranges.ts'
import { ImageStore } from '../enforce/image-store.ts'
import { FlowWatch, NO_FLOWS, type FlowSource } from '../enforce/network/flow-watch.ts'
import { LeaseEnds } from '../enforce/network/lease-ends.ts'
import type { NodeNetwork } from '../enforce/network/node-link.ts'
import { createNodeNetwork } from '../enforce/network/node-network.ts'
import { SHARED_CLAIM } from '../enforce/network/owned-ports.ts'
import { OciEnforcer } from '../enforce/oci-enforcer.ts'
import { tunnelKeys } from '../enforce/network/tunnel-keys.ts'
import { addressOn, findUplinks, listeningPorts, type Uplink } from '../enforce/network/uplink.ts'
import { obtainImage } from '../node/image-obtaining.ts'
import { AddressWatch } from '../node/address-watch.ts'
import { leasableRights } from '../node/administration.ts'
import { AuditTrail } from '../node/audit-trail.ts'
import { auditedHandlers } from '../node/audited-handlers.ts'
import { FlowRecord } from '../node/flow-record.ts'
import { imageHandlers } from '../node/image-serving.ts'
import { Delegator, type AgentShare } from '../node/delegator.ts'
import { NodeManager } from '../node/node-manager.ts'
import { TrafficEnds } from '../node/traffic-ends.ts'
import { nodeHandlers } from '../node/node-service.ts'
import { ProcessWatch } from '../node/process-watch.ts'
import { ResourceMonitor, type Measured } from '../node/resource-monitor.ts'
import type { UplinkMeter } from '../node/uplink-meter.ts'
import type { Directory } from '../peer/directory.ts'
import type { PeerHost } from '../peer/host.ts'
import type { Measuring } from '../peer/measuring.ts'
import { organisationTopic, regionTopic } from '../peer/topics.ts'
import { agentProtocol } from '../protocol/agent-protocol.ts'
import { imageProtocol } from '../protocol/image-protocol.ts'
import { nodeProtocol } from '../protocol/node-protocol.ts'
import { canAdvertiseImage, FETCHES_IMAGES } from '../ticket/advertisement.ts'
import type { Store } from '../store/store.ts'
import { PORT_PROTOCOLS, portsWithout, type PortRange } from '../ticket/ports.ts'
import type { SigningKey } from '../ticket/principal.ts'
import type { Resources } from '../ticket/resources.ts'
import type { FraudFinder } from './fraud-finder.ts'
import { createUplinkMeter } from './measurements.ts'
import type { ImageSupply } from './image-supply.ts'
import { nodePorts } from './node-ports.ts'
import type { NodePortView } from './node-port-protocol.ts'
import type { Memberships } from './memberships.ts'
import { servesImages, tcpPorts, type DaemonConfig, type NodeConfig } from './config.ts'
import type { PartDecorators } from './part-decorators.ts'
import {
  delegatedShaping,
  largestRootBps,
  leasableBps,
  shapingPolicy,
  uplinkInits
} from './shaping-config.ts'

export interface RoleComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly host: PeerHost
  readonly directory: Directory
  readonly frauds: FraudFinder
  readonly memberships: Memberships
  /** Absent where the peer does not measure. */
  readonly measuring: Measuring | undefined
  readonly imageSupply: ImageSupply
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

export interface NodeRoleInit {
  readonly config: DaemonConfig
  readonly node: NodeConfig
  readonly stateDirectory: string
  readonly imagesDirectory: string
  readonly epoch: number
  readonly decorators: PartDecorators
}

/** How soon an agent that was not reached is tried again. */
const DELEGATE_RETRY_MS = 1000

export class NodeRole implements Startable {
  readonly #components: RoleComponents
  readonly #init: NodeRoleInit
  /** What holders of administrative slices did here. */
  readonly audit: AuditTrail
  readonly #images: ImageStore
  readonly #network: NodeNetwork
  readonly #oci: OciEnforcer
  readonly #enforcer: Enforcer
  #flows: FlowRecord | undefined
  #delegator: Delegator | undefined
  #manager: NodeManager | undefined
  #parts: Lifecycle | undefined
  #unsubscribe = (): void => {}

  constructor(components: RoleComponents, init: NodeRoleInit) {
    const { clock, logger } = components
    const { node, stateDirectory, decorators } = init
    const shortName = node.shortName ?? components.key.principal.slice(-8).toLowerCase()
    this.#components = components
    this.#init = init
    this.#images = new ImageStore({ clock }, { directory: init.imagesDirectory })
    this.#network = createNodeNetwork(
      { clock, logger: logger.child('network') },
      {
        uplinks: uplinkInits(node),
        reservedPorts: ownPorts(init.config),
        allowedPrivateRanges: node.allowedPrivateRanges,
        shaping: shapingPolicy(node),
        stateDirectory: join(stateDirectory, 'network')
      }
    )
    this.audit = new AuditTrail(
      { clock, logger: logger.child('audit') },
      { directory: join(stateDirectory, 'audit') }
    )
    const network = decorators.network?.(this.#network) ?? this.#network
    this.#oci = new OciEnforcer(
      { clock, logger: logger.child('enforce'), images: this.#images, network },
      {
        stateDirectory: join(stateDirectory, 'enforce'),
        nodeShort: shortName,
        runDirectory: `/run/slicenet-${shortName}`,
        uidBase: nodeUidBase(node.index),
        volumeBytes: node.volume,
        spares: node.spares,
        policy: policyOf(node)
      }
    )
    this.#enforcer = decorators.enforcer?.(this.#oci) ?? this.#oci
  }

  /** Only once started. */
  get manager(): NodeManager {
    if (this.#manager === undefined) throw new SlicenetError('BUSY', 'the node is not running')
    return this.#manager
  }

  /** Whose packets left. Only once started. */
  get flows(): FlowRecord {
    if (this.#flows === undefined) throw new SlicenetError('BUSY', 'the node is not running')
    return this.#flows
  }

  /** How many agents hold its delegation now. */
  get delegations(): number {
    return this.#delegator?.agents().length ?? 0
  }

  /** What is worse on this machine than its administrator may think. */
  get warnings(): readonly string[] {
    return [...this.#oci.warnings, ...this.#network.troubles]
  }

  /** Who has which port of the node's address now. */
  async ports(): Promise<NodePortView[]> {
    const { config } = this.#init
    return nodePorts({
      records: this.manager.table.all(),
      own: ownPorts(config),
      heard: [
        ...(await listeningPorts(await this.#findUplinks(), new Set(PORT_PROTOCOLS))),
        ...(await tunnelKeys())
      ],
      shared: SHARED_CLAIM.ports,
      now: this.#components.clock.now()
    })
  }

  async start(): Promise<void> {
    if (this.#parts !== undefined) return
    const { key, store, host, directory, frauds, memberships, measuring, imageSupply, clock, logger } =
      this.#components
    const { config, node, epoch, decorators } = this.#init
    await this.#enforcer.start()
    const { resources: capacity, attributes } = await this.#enforcer.capacity()
    const found = await this.#findUplinks()
    const uplinksNow = (): readonly Uplink[] => (this.#network.isUp ? this.#network.uplinks : found)
    const address = (): string => uplinksNow()[0]?.address ?? ''
    const manager = new NodeManager(
      {
        key,
        store,
        enforcer: this.#enforcer,
        clock,
        logger: logger.child('node'),
        delegations: {
          fault: (chain) => delegator.fault(chain),
          isAgent: (principal) => delegator.isAgent(principal),
          freed: (ticket) => delegator.freed(ticket)
        },
        observe: (object) => frauds.observe(object),
        audit: this.audit,
        ...(node.images.fetch
          ? {
              obtainImage: async (image: string) =>
                obtainImage({ clock, fetch: (id, options) => imageSupply.fetch(id, options) }, image)
            }
          : {})
      },
      {
        capacity,
        address,
        epoch,
        ...(node.accepts === undefined ? {} : { accepts: node.accepts }),
        ...(node.administrative === undefined ? {} : { administrative: node.administrative })
      }
    )
    const shares = sharesOf(config, node)
    for (const { agent, address: at } of shares) await host.addAddresses(agent, [at])
    const delegator: Delegator = new Delegator(
      {
        key,
        store,
        clock,
        logger: logger.child('delegator'),
        callAgent: (agent) => host.caller(agentProtocol, agent),
        leasedTo: (agent) => manager.table.leasedTo(agent),
        isOver: (ticket) => manager.isOver(ticket),
        isProven: (principal) => frauds.isProven(principal)
      },
      { capacity, epoch, shares, termMs: node.delegationTerm, retryMs: DELEGATE_RETRY_MS }
    )
    const uplink = createUplinkMeter(this.#components, config, node, () => delegator.agents())
    const topics = [regionTopic(config.region), organisationTopic(config.organisation)]
    const monitor = new ResourceMonitor(
      {
        key,
        manager,
        clock,
        logger: logger.child('monitor'),
        images: () => this.#imageNames(),
        agents: () => delegator.agents(),
        delegatedPercent: () => delegator.delegatedPercent,
        multiaddrs: () => host.multiaddrs(),
        addressAttributes: () => this.#familyAttributes(),
        memberships: () => memberships.shown(),
        measured: () => measuredBy(measuring, uplink),
        publish: (advert, record) => directory.publish(advert, { topics, agents: delegator.agents(), record })
      },
      {
        name: config.name,
        epoch,
        capacity,
        attributes: {
          ...attributes,
          ...placeAttributes(config),
          ...(node.images.fetch ? { [FETCHES_IMAGES]: 'yes' } : {})
        },
        rights: [...new Set(shares.flatMap(({ rights }) => rights))].sort(),
        egressShare: Math.max(1, ...shares.map(({ shaping }) => shaping?.egressShare ?? 1)),
        administrators: node.administrative?.holders ?? [],
        ...(node.accepts === undefined ? {} : { accepts: node.accepts }),
        intervalMs: config.advertEvery,
        lifetimeMs: config.advertLife
      }
    )
    // Whoever takes a delegation is to hear of the node at once.
    delegator.onChange(() => monitor.reportSoon())
    const addressWatch = new AddressWatch({
      clock,
      logger: logger.child('monitor'),
      addresses: () => [...host.multiaddrs(), ...Object.values(this.#familyAttributes())],
      report: () => monitor.reportSoon()
    })
    this.#unsubscribe = memberships.onChange(() => monitor.reportSoon())
    this.#manager = manager
    this.#delegator = delegator
    const watch = new ProcessWatch({
      manager,
      enforcer: this.#enforcer,
      audit: this.audit,
      clock,
      logger: logger.child('audit')
    })
    const flowWatch = this.#watchFlows()
    const flows = new FlowRecord(
      { flows: flowWatch, manager, key, store, clock, logger: logger.child('flows') },
      { directory: join(this.#init.stateDirectory, 'flows'), bytesMax: node.flowLog }
    )
    this.#flows = flows
    const hasSix = (): boolean => this.#network.uplinks.some(({ address6 }) => address6 !== undefined)
    const ends = new LeaseEnds({ hasSix })
    const trafficEnds = new TrafficEnds({
      manager,
      set: async (all) => (this.#network.isUp ? ends.set(all) : undefined),
      addressOf: (vserver) => this.#network.addressOf(vserver),
      hasSix,
      clock,
      logger: logger.child('network')
    })
    this.#parts = new Lifecycle([
      this.audit,
      flowWatch,
      manager,
      trafficEnds,
      flows,
      watch,
      delegator,
      ...(uplink === undefined ? [] : [uplink]),
      monitor,
      addressWatch
    ])
    await this.#parts.start()
    const plain = nodeHandlers({ manager, enforcer: this.#enforcer })
    const handlers = auditedHandlers(plain, { manager, audit: this.audit })
    await host.serve(nodeProtocol, decorators.nodeHandlers?.(handlers) ?? handlers)
    if (servesImages(node)) {
      await host.serve(imageProtocol, imageHandlers({ images: this.#images, clock }))
    }
  }

  /** The one whose address is to be named first. */
  async #findUplinks(): Promise<readonly Uplink[]> {
    if (this.#network.isUp) return this.#network.uplinks
    return (await findUplinks(uplinkInits(this.#init.node))).there
  }

  /** What vservers are reached by over IPv6, of a node whose own network they have. */
  #familyAttributes(): Record<string, string> {
    const address6 = this.#network.uplinks.find((each) => each.address6 !== undefined)?.address6
    return address6 === undefined ? {} : { address6 }
  }

  /** Another monitor than the node's own uses no network of its, and the machine's is left alone. */
  #watchFlows(): FlowSource {
    if (!this.#network.isUp) return NO_FLOWS
    return new FlowWatch({
      clock: this.#components.clock,
      logger: this.#components.logger.child('flows'),
      ownerOf: (inside) => this.#network.ownerOf(inside),
      nodeAddress: (like, device) => addressOn(this.#network.uplinks, like, device),
      userOwners: () => this.#network.userOwners()
    })
  }

  async stop(): Promise<void> {
    await this.#stopParts()
    await this.#enforcer.stop()
  }

  async #stopParts(): Promise<void> {
    const parts = this.#parts
    this.#parts = undefined
    this.#unsubscribe()
    await parts?.stop()
    this.#manager = undefined
    this.#flows = undefined
  }

  /** Ends every lease and takes away all that the node has on the machine. Its key and records stay. */
  async giveUp(): Promise<void> {
    const { manager } = this
    await Promise.all(manager.table.holding().map((record) => manager.end(record, 'the node is given up')))
    for (const { id } of await this.#enforcer.list()) await this.#enforcer.destroy(id)
    await this.#oci.discardSpares()
    await this.#stopParts()
    await this.#network.remove()
    await this.#enforcer.stop()
    await this.#oci.close()
  }

  async #imageNames(): Promise<Record<string, string>> {
    const images = await this.#images.list()
    const names = images.flatMap(({ id, names }) =>
      names.filter(canAdvertiseImage).map((name) => [name, id] as const)
    )
    return Object.fromEntries(names.slice(0, 16))
  }
}

function measuredBy(measuring: Measuring | undefined, uplink: UplinkMeter | undefined): Measured {
  const coordinate = measuring?.coordinate()
  const uplinkBps = uplink?.bps()
  return {
    ...(coordinate === undefined ? {} : { coordinate }),
    ...(uplinkBps === undefined ? {} : { attributes: { uplinkBps } })
  }
}

function policyOf(node: NodeConfig): Partial<Resources> {
  const { cpu, memory, disk, egress, egressPerDay, pids } = node.capacity
  const egressBps = Math.min(egress ?? Number.MAX_SAFE_INTEGER, leasableBps(node))
  return {
    egressBps,
    egressBpsMax: largestRootBps(node),
    ...(cpu === undefined ? {} : { cpuMillis: cpu }),
    ...(memory === undefined ? {} : { memoryBytes: memory }),
    ...(disk === undefined ? {} : { diskBytes: disk }),
    ...(egressPerDay === undefined ? {} : { egressBytesPerDay: egressPerDay }),
    ...(pids === undefined ? {} : { pids })
  }
}

function placeAttributes({ organisation, region, site, country }: DaemonConfig): Record<string, string> {
  return {
    organisation,
    region,
    ...(site === undefined ? {} : { site }),
    ...(country === undefined ? {} : { country })
  }
}

/** What the node itself listens on by its configuration. */
function ownPorts(config: DaemonConfig): PortRange[] {
  return tcpPorts(config.listen).map((port) => ({ protocol: 'tcp', first: port, last: port }))
}

/**
 * Each agent's share; where the policy does not say, capacity and ports are split evenly. What no slice can own is no
 * agent's to grant.
 */
function sharesOf(config: DaemonConfig, node: NodeConfig): (AgentShare & { readonly address: string })[] {
  const taken = [...ownPorts(config), ...SHARED_CLAIM.ports]
  const evenly = Math.floor(100 / Math.max(1, node.agents.length))
  return node.agents.map(({ address, sharePercent, ports, rights, shaping, ...rest }, index) => ({
    ...rest,
    shaping: delegatedShaping(shaping, node.shaping),
    address,
    agent: address.slice(address.lastIndexOf('/') + 1),
    rights: leasableRights(node.administrative, rights),
    sharePercent: sharePercent ?? evenly,
    ports: portsWithout(
      ports ??
        node.ports
          .map((range) => part(range, index, node.agents.length))
          .filter((range) => range !== undefined),
      taken
    )
  }))
}

/** The `index`-th of `count` equal parts of a range. */
function part(range: PortRange, index: number, count: number): PortRange | undefined {
  const size = Math.floor((range.last - range.first + 1) / count)
  if (size === 0) return undefined
  const first = range.first + index * size
  return { protocol: range.protocol, first, last: first + size - 1 }
}
