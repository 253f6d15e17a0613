/**
 * Wires a peer of all its parts: the store, the libp2p host, the directory, the roles that its configuration turns
 * on, and the broker and service manager that every peer has. Parts start in order and stop in reverse.
 */
import * as v from 'valibot'
import type { Clock } from '../base/clock.ts'
import { Lifecycle, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { Random } from '../base/random.ts'
import { Broker } from '../broker/broker.ts'
import { createDirectory, type Directory } from '../peer/directory.ts'
import { createPeerHost, type PeerHost } from '../peer/host.ts'
import type { Measuring } from '../peer/measuring.ts'
import { agentProtocol } from '../protocol/agent-protocol.ts'
import { measureProtocol } from '../protocol/measure-protocol.ts'
import { nodeProtocol } from '../protocol/node-protocol.ts'
import { ServiceManager } from '../service/service-manager.ts'
import type { Store } from '../store/store.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import { cborCodec } from '../wire/codec.ts'
import type { AgentRole } from './agent-role.ts'
import { BrokerRole } from './broker-role.ts'
import { bootstrapPeers, type DaemonConfig } from './config.ts'
import { guardOf, type Guard } from './connections-file.ts'
import { FraudFinder } from './fraud-finder.ts'
import { listening, ownPlaces } from './listening.ts'
import { ImageSupply } from './image-supply.ts'
import { InvitedPeers } from './invited-peers.ts'
import { createMeasuring } from './measurements.ts'
import { Memberships } from './memberships.ts'
import type { NodeRole, RoleComponents } from './node-role.ts'
import { OtherBrokers } from './other-brokers.ts'
import type { PartDecorators } from './part-decorators.ts'
import { ProofKeeper } from './proof-keeper.ts'

export interface PeerParts {
  readonly host: PeerHost
  readonly directory: Directory
  readonly broker: Broker
  readonly services: ServiceManager
  readonly frauds: FraudFinder
  readonly memberships: Memberships
  readonly invitedPeers: InvitedPeers
  /** Absent where it is turned off, and in peers that live as long as one command. */
  readonly measuring: Measuring | undefined
  readonly clock: Clock
  readonly node: NodeRole | undefined
  readonly agent: AgentRole | undefined
  readonly brokering: BrokerRole | undefined
  readonly otherBrokers: OtherBrokers
  readonly imageSupply: ImageSupply
}

export interface ComposeComponents {
  readonly key: SigningKey
  readonly store: Store
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

export interface ComposeInit {
  readonly config: DaemonConfig
  readonly stateDirectory: string
  readonly imagesDirectory: string
  /** A peer that lives as long as one command answers nobody and keeps nothing for the DHT. */
  readonly shortLived: boolean
  readonly decorators?: PartDecorators
}

const RESUME_INTERVAL_MS = 10_000
const PULL_INTERVAL_MS = 30_000

/** Makes the parts; the store is started here, because the parts are made from what it holds. */
export class ComposedPeer implements Startable {
  readonly #components: ComposeComponents
  readonly #init: ComposeInit
  #parts: PeerParts | undefined
  #life: Lifecycle | undefined

  constructor(components: ComposeComponents, init: ComposeInit) {
    this.#components = components
    this.#init = init
  }

  /** Only once started. */
  get parts(): PeerParts {
    if (this.#parts === undefined) throw new TypeError('the peer is not started')
    return this.#parts
  }

  async start(): Promise<void> {
    if (this.#life !== undefined) return
    const { store } = this.#components
    const { config } = this.#init
    await store.start()
    try {
      const epoch = await countStart(store)
      const guard = guardOf(this.#components, config)
      const parts = await wire(this.#components, {
        ...this.#init,
        guard,
        bootstrap: await bootstrapPeers(config),
        epoch
      })
      this.#parts = parts
      const { host, directory, measuring, services, node, agent, brokering, otherBrokers, imageSupply } =
        parts
      this.#life = new Lifecycle([
        new ProofKeeper({ ...this.#components, proofs: directory.proofs }),
        ...(guard?.parts ?? []),
        host,
        directory,
        watching(parts),
        ...(measuring === undefined ? [] : [measuring]),
        imageSupply,
        ...(node === undefined ? [] : [node]),
        ...(agent === undefined ? [] : [agent]),
        ...(gathers(config)
          ? [
              listening(
                { ...this.#components, directory },
                looksEverywhere(config)
                  ? { everywhere: true }
                  : { everywhere: false, topic: ownPlaces(directory, host.principal) }
              )
            ]
          : []),
        otherBrokers,
        ...(brokering === undefined ? [] : [brokering]),
        services
      ])
      await this.#life.start()
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  async stop(): Promise<void> {
    const life = this.#life
    this.#life = undefined
    try {
      await life?.stop()
    } finally {
      this.#parts = undefined
      await this.#components.store.stop()
    }
  }
}

interface WireInit extends ComposeInit {
  readonly bootstrap: readonly string[]
  readonly epoch: number
  readonly guard: Guard | undefined
}

async function wire(components: ComposeComponents, init: WireInit): Promise<PeerParts> {
  const { key, store, clock, random, logger } = components
  const {
    config,
    stateDirectory,
    imagesDirectory,
    shortLived,
    bootstrap,
    epoch,
    guard,
    decorators = {}
  } = init
  const invitedPeers = new InvitedPeers({ logger }, { stateDirectory })
  await invitedPeers.load()
  const memberships = new Memberships(
    { clock, logger: logger.child('memberships') },
    { stateDirectory, member: key.principal }
  )
  await memberships.load()
  const host = createPeerHost(
    { logger: logger.child('peer'), clock },
    {
      key,
      listen: shortLived ? [] : config.listen,
      ...(config.announce === undefined ? {} : { announce: config.announce }),
      bootstrap: [...bootstrap, ...invitedPeers.list()],
      stateDirectory,
      dhtMode: shortLived ? 'client' : 'server',
      // One command is over before anybody would dial it.
      reach: shortLived ? { ...config.reach, relay: 'never', reserve: 'never' } : config.reach,
      ...(guard === undefined ? {} : { gate: guard.gate }),
      memberships
    }
  )
  const directory = createDirectory(
    { host, clock, logger: logger.child('directory') },
    {
      collects: gathers(config),
      // An agent hears of the nodes it serves and of those about them, however large the overlay.
      onlyTopics: !looksEverywhere(config),
      pullIntervalMs: PULL_INTERVAL_MS
    }
  )
  const frauds = new FraudFinder({ key, proofs: directory.proofs, clock, logger: logger.child('fraud') })
  const otherBrokers = new OtherBrokers(
    { host, directory, clock, logger: logger.child('brokers') },
    { brokers: config.brokers }
  )
  const brokerParts = {
    clock,
    logger: logger.child('broker'),
    callAgent: (agent: Principal) => host.caller(agentProtocol, agent),
    isProven: (principal: Principal) => frauds.isProven(principal)
  }
  const broker = new Broker({
    ...brokerParts,
    principal: key.principal,
    directory,
    callMeasure: (node) => host.caller(measureProtocol, node),
    askOthers: async (query, options) => otherBrokers.ask(query, options),
    memberships: () => memberships.shown()
  })
  // What others ask sends nobody but agents to work: the directory of a broker hears by itself what is new.
  const known = { entries: () => directory.entries(), refresh: async () => 0 }
  const brokerFor = (principal: Principal): Broker =>
    new Broker({ ...brokerParts, principal, directory: known })
  const services = new ServiceManager(
    {
      key,
      store,
      broker,
      callNode: (node) => host.caller(nodeProtocol, node),
      observe: (envelopes) => frauds.observeBytes(envelopes),
      memberships: () => memberships.shown(),
      clock,
      random,
      logger: logger.child('service')
    },
    { retryMs: RESUME_INTERVAL_MS }
  )
  const measuring = shortLived ? undefined : createMeasuring({ ...components, host, directory }, config)
  const imageSupply = new ImageSupply(
    { host, directory, clock, logger: logger.child('images') },
    {
      imagesDirectory,
      agents: (config.node?.agents ?? []).map(({ address }) => address.slice(address.lastIndexOf('/') + 1)),
      bytesMax: config.node?.images.largest ?? LIMITS.imageArchiveBytesMax,
      ...(config.node === undefined ? {} : { fetchedBytesMax: config.node.images.kept })
    }
  )
  const role: RoleComponents = { ...components, host, directory, frauds, memberships, measuring, imageSupply }
  const node =
    config.node === undefined
      ? undefined
      : { config, node: config.node, stateDirectory, imagesDirectory, epoch, decorators }
  const agent = config.agent === undefined ? undefined : { config, agent: config.agent, epoch }
  return {
    host,
    directory,
    broker,
    services,
    frauds,
    memberships,
    invitedPeers,
    measuring,
    clock,
    // A peer loads the roles that it has: a command in a hurry has none.
    node: node && new (await import('./node-role.ts')).NodeRole(role, node),
    agent: agent && new (await import('./agent-role.ts')).AgentRole(role, agent),
    brokering:
      config.broker && new BrokerRole({ host, directory, clock, brokerFor }, { config: config.broker }),
    otherBrokers,
    imageSupply
  }
}

/** Agents, brokers and researchers gather adverts; a node only makes its own. */
function gathers({ node, agent, broker }: DaemonConfig): boolean {
  return node === undefined || agent !== undefined || broker !== undefined
}

/** Brokers and researchers look for nodes wherever they are; an agent alone has to do with its own. */
function looksEverywhere({ agent, broker }: DaemonConfig): boolean {
  return agent === undefined || broker !== undefined
}

/** Looks at every advert that is heard for what it contradicts. */
function watching({ directory, frauds }: PeerParts): Startable {
  let unsubscribe = (): void => {}
  return {
    // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
    async start() {
      unsubscribe = directory.on('update', ({ advert }) => {
        frauds.observe({ type: 'advertisement', object: advert })
      })
    },
    // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
    async stop() {
      unsubscribe()
    }
  }
}

const epochCodec = cborCodec(v.pipe(v.number(), v.integer()))

/** Each start is a new epoch, so that others see that a peer began anew. */
async function countStart(store: Store): Promise<number> {
  const before = await store.get('daemon', 'epoch')
  const epoch = (before === undefined ? 0 : epochCodec.decode(before)) + 1
  await store.commit([{ table: 'daemon', key: 'epoch', value: epochCodec.encode(epoch) }])
  return epoch
}
