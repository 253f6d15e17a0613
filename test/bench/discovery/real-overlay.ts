/** An overlay of real libp2p peers in this process, on loopback ports of their own, with the roles of `compose.ts`. */
import { randomBytes } from 'node:crypto'
import { systemClock } from '../../../src/base/clock.ts'
import type { Startable } from '../../../src/base/lifecycle.ts'
import { silentLogger } from '../../../src/base/log.ts'
import { createDirectory, type Directory } from '../../../src/peer/directory.ts'
import { createPeerHost, type PeerHost } from '../../../src/peer/host.ts'
import { principalOfPublicKey, type SigningKey } from '../../../src/ticket/principal.ts'
import { nativeEd25519 } from '../../../src/wire/ed25519.ts'
import { partsOf, PULL_INTERVAL_MS, type Role } from '../../overlay-sim/roles.ts'
import type { ByteMeter } from './byte-meter.ts'

const REGIONS = 4
const ORGANISATIONS = 8
const BOOT_PEERS = 3
const AGENTS_PER_NODE = 2
/** Peers that start at the same time. */
const STARTED_AT_ONCE = 4
const JOINED_MS_MAX = 5_000

export interface RealPeer {
  readonly role: Role
  readonly key: SigningKey
  readonly host: PeerHost
  readonly directory: Directory
  readonly parts: readonly Startable[]
  readonly agents: readonly RealPeer[]
}

export class RealOverlay implements AsyncDisposable {
  readonly peers: RealPeer[] = []
  readonly #meter: ByteMeter
  #made = 0

  constructor(components: { readonly meter: ByteMeter }) {
    this.#meter = components.meter
  }

  ofRole(role: Role): RealPeer[] {
    return this.peers.filter((peer) => peer.role === role)
  }

  /** Starts peers, a few at a time. */
  async add(role: Role, count: number, signal: AbortSignal): Promise<void> {
    for (let left = count; left > 0;) {
      signal.throwIfAborted()
      // The others join by the first ones.
      const atOnce = this.peers.length < BOOT_PEERS ? 1 : Math.min(left, STARTED_AT_ONCE)
      const some = Array.from({ length: atOnce }, () => this.make(role))
      await Promise.all(some.map(async (peer) => this.start(peer)))
      // All share one processor: more at a time would time each other's handshakes out.
      await this.#joined(some, signal)
      left -= atOnce
    }
  }

  async #joined(some: readonly RealPeer[], signal: AbortSignal): Promise<void> {
    const end = performance.now() + JOINED_MS_MAX
    const isAlone = ({ host }: RealPeer): boolean => this.peers.length > 1 && host.connected().length === 0
    while (some.some(isAlone) && performance.now() < end) await systemClock.sleep(50, { signal })
  }

  /** A peer that is not started. Every agent has nodes in every region. */
  make(role: Role): RealPeer {
    const index = this.#made++
    const seed = new Uint8Array(randomBytes(32))
    const key = { seed, principal: principalOfPublicKey(nativeEd25519.publicKey(seed)) }
    const components = { clock: systemClock, logger: silentLogger }
    const bootstrap = this.peers.slice(0, BOOT_PEERS).flatMap(({ host }) => host.multiaddrs())
    const host = createPeerHost(components, {
      key,
      listen: ['/ip4/127.0.0.1/tcp/0'],
      bootstrap,
      dhtMode: 'server'
    })
    const directory = createDirectory(
      { ...components, host },
      { collects: role !== 'node', onlyTopics: role === 'agent', pullIntervalMs: PULL_INTERVAL_MS }
    )
    const all = this.ofRole('agent')
    const agents =
      role === 'node'
        ? Array.from({ length: AGENTS_PER_NODE }, (_none, at) => all[(index + at * 3) % all.length]!)
        : []
    const parts = partsOf(
      { key, clock: systemClock, directory, multiaddrs: () => host.multiaddrs() },
      {
        role,
        index,
        epoch: 1,
        // Not in step with the agents, so that each of them has nodes in every region.
        region: `region-${Math.floor(index / Math.max(1, all.length)) % REGIONS}`,
        organisation: `organisation-${index % ORGANISATIONS}`,
        agents: agents.map((agent) => agent.key.principal)
      }
    )
    return { role, key, host, directory, parts, agents }
  }

  async start(peer: RealPeer): Promise<void> {
    const { host, directory, parts, agents } = peer
    this.peers.push(peer)
    await host.start()
    this.#meter.watch(host)
    for (const agent of agents) await host.addAddresses(agent.key.principal, agent.host.multiaddrs())
    await directory.start()
    for (const part of parts) await part.start()
  }

  /** In order. */
  async stop(peer: RealPeer): Promise<void> {
    for (const part of [...peer.parts].reverse()) await part.stop()
    await this.kill(peer)
  }

  /** Its connections are closed, and it has said nothing. */
  async kill(peer: RealPeer): Promise<void> {
    const at = this.peers.indexOf(peer)
    if (at >= 0) this.peers.splice(at, 1)
    await end(peer)
  }

  /** How many of the agents list a node. */
  listedBy(node: RealPeer, agents: readonly RealPeer[] = this.ofRole('agent')): number {
    return agents.filter(({ directory }) => directory.get(node.key.principal, 'node') !== undefined).length
  }

  /** The share of nodes that agents know, over all pairs. */
  recall(): number {
    const nodes = this.ofRole('node')
    const agents = this.ofRole('agent')
    const known = nodes.reduce((sum, node) => sum + this.listedBy(node, agents), 0)
    return known / (nodes.length * agents.length)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.peers.splice(0).map(async (peer) => end(peer).catch(() => {})))
  }
}

/** The host first: what its parts would say as they stop reaches nobody. */
async function end({ host, directory, parts }: RealPeer): Promise<void> {
  await host.stop()
  for (const part of parts) await part.stop()
  await directory.stop()
}
