/**
 * A simulated overlay: nodes, agents and researchers with the directories, joining and adverts of real peers, over the
 * simulated network. Nodes of a region delegate to agents of it.
 */
import { silentLogger } from '../../src/base/log.ts'
import type { Startable } from '../../src/base/lifecycle.ts'
import { createDirectory, type Directory, type DirectoryInit } from '../../src/peer/directory.ts'
import { Joining } from '../../src/peer/joining.ts'
import type { KnownPeer } from '../../src/peer/known-peers.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { openOnce } from './opened-once.ts'
import { partsOf, PULL_INTERVAL_MS, type Role } from './roles.ts'
import { Network, type NetworkInit, type Station } from './network.ts'
import { SimulatedHost } from './simulated-host.ts'

export interface OverlayInit extends NetworkInit {
  readonly nodes: number
  readonly agents: number
  readonly researchers: number
  readonly regions: number
  readonly without?: DirectoryInit['without']
  /** Whether peers forget whom they knew when they restart. */
  readonly forgetful?: boolean
}

const AGENTS_PER_NODE = 2
const BOOT_PEERS = 3
/** All start within this. */
const START_SPREAD_MS = 10_000

/** What a peer is, whether it runs or not. */
export interface Member {
  readonly role: Role
  readonly station: Station
  readonly region: string
  readonly organisation: string
  /** Of a node: whom it delegates to. */
  readonly agents: readonly Member[]
  readonly bootstrap: readonly string[]
  peer: Peer | undefined
}

interface Peer {
  readonly directory: Directory
  readonly host: SimulatedHost
  readonly parts: readonly Startable[]
}

export class Overlay {
  readonly network: Network
  readonly members: Member[] = []
  readonly #init: OverlayInit
  #epoch = 0

  constructor(init: OverlayInit) {
    openOnce()
    this.#init = init
    this.network = new Network(init)
    const { agents, researchers, nodes, regions } = init
    for (let i = 0; i < agents; i++) this.#add('agent', i % regions, i)
    for (let i = 0; i < researchers; i++) this.#add('researcher', i % regions, i % agents)
    for (let i = 0; i < nodes; i++) this.addNode()
  }

  ofRole(role: Role): Member[] {
    return this.members.filter((member) => member.role === role)
  }

  /** Adds a node somewhere that does not run yet. */
  addNode(): Member {
    const { chance } = this.network
    return this.#add('node', chance.between(0, this.#init.regions - 1), 0)
  }

  #add(role: Role, region: number, organisation: number): Member {
    const { chance } = this.network
    const inRegion = this.ofRole('agent').filter((agent) => agent.region === `region-${region}`)
    const agents = new Set<Member>()
    const delegates = role === 'node' ? Math.min(AGENTS_PER_NODE, inRegion.length) : 0
    while (agents.size < delegates) {
      agents.add(chance.pick(inRegion))
    }
    const member: Member = {
      role,
      station: this.network.addStation(),
      region: `region-${region}`,
      organisation: [...agents][0]?.organisation ?? `organisation-${organisation}`,
      agents: [...agents],
      bootstrap: this.members.slice(0, BOOT_PEERS).map(({ station }) => station.address),
      peer: undefined
    }
    this.members.push(member)
    return member
  }

  /** Starts all, and lets the overlay come to rest for `ms`. */
  async start(ms: number): Promise<void> {
    const { time, chance } = this.network
    for (const member of this.members) {
      time.after(chance.between(0, START_SPREAD_MS), () => void this.startPeer(member))
    }
    await this.pass(START_SPREAD_MS)
    this.network.settleTables()
    await this.pass(ms)
  }

  async pass(ms: number): Promise<void> {
    await this.network.time.pass(ms)
  }

  async startPeer(member: Member): Promise<void> {
    if (member.peer !== undefined) return
    const { network } = this
    const host = new SimulatedHost(network, member.station)
    member.station.host = host
    const components = { clock: host.clock, logger: silentLogger }
    const collects = member.role !== 'node'
    const directory = createDirectory(
      { ...components, host },
      {
        collects,
        onlyTopics: member.role === 'agent',
        pullIntervalMs: PULL_INTERVAL_MS,
        ...(this.#init.without === undefined ? {} : { without: this.#init.without })
      }
    )
    const joining = new Joining(
      { ...components, knownPeers: knownPeersOf(member.station) },
      {
        network: host,
        bootstrap: member.bootstrap.map((address) => ({
          principal: principalAt(address),
          multiaddrs: [address]
        }))
      }
    )
    const peer: Peer = { directory, host, parts: this.#partsOf(member, directory, host) }
    member.peer = peer
    await joining.start()
    await directory.start()
    for (const part of peer.parts) await part.start()
  }

  /** The process dies; with its machine, if `silently`. */
  crash(member: Member, how: { readonly silently?: boolean } = {}): void {
    member.peer = undefined
    if (this.#init.forgetful === true) member.station.known = []
    this.network.crash(member.station, how)
  }

  /** Stops a peer in order. */
  async stop(member: Member): Promise<void> {
    for (const part of [...(member.peer?.parts ?? [])].reverse()) await part.stop()
    this.crash(member)
  }

  #partsOf(
    { role, station, region, organisation, agents }: Member,
    directory: Directory,
    host: SimulatedHost
  ): Startable[] {
    for (const agent of agents) void host.addAddresses(agent.station.key.principal)
    return partsOf(
      { key: station.key, clock: host.clock, directory, multiaddrs: () => [station.address] },
      {
        role,
        index: station.index,
        epoch: ++this.#epoch,
        region,
        organisation,
        agents: agents.map((agent) => agent.station.key.principal)
      }
    )
  }

  /** The share of live nodes that agents who serve their region know, over all pairs of such. */
  recall(): number {
    let pairs = 0
    let known = 0
    const nodes = this.ofRole('node').filter(({ peer }) => peer !== undefined)
    for (const agent of this.ofRole('agent')) {
      const { peer } = agent
      if (peer === undefined) continue
      const listed = new Set(peer.directory.entries().map(({ advert }) => advert.body.issuer))
      for (const node of nodes) {
        if (node.region !== agent.region) continue
        pairs += 1
        if (listed.has(node.station.key.principal)) known += 1
      }
    }
    return pairs === 0 ? 1 : known / pairs
  }

  /** Whether any live agent still lists a node. */
  isListed(node: Member): boolean {
    return this.ofRole('agent').some(
      ({ peer }) => peer?.directory.get(node.station.key.principal, 'node') !== undefined
    )
  }

  /** Whether an agent that it delegates to still lists a node. */
  isServed(node: Member): boolean {
    return node.agents.some(
      ({ peer }) => peer?.directory.get(node.station.key.principal, 'node') !== undefined
    )
  }
}

function principalAt(address: string): Principal {
  return address.slice(address.lastIndexOf('/') + 1)
}

function knownPeersOf(station: Station): {
  list(): readonly KnownPeer[]
  remember(peers: readonly KnownPeer[]): Promise<void>
} {
  return {
    list: () => station.known,
    // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
    async remember(connected) {
      const now = new Set(connected.map(({ principal }) => principal))
      const before = station.known.filter(({ principal }) => !now.has(principal))
      station.known = [...connected, ...before].slice(0, LIMITS.knownPeersMax)
    }
  }
}
