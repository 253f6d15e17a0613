/**
 * Gossip as gossipsub does it: a mesh of each topic among connected peers that listen to it, a few of them for who
 * only publishes, and once a second the names of recent messages to a few more.
 */
import type { Judgement, OverlayGossip } from '../../src/peer/overlay.ts'
import { PROOFS_TOPIC } from '../../src/peer/topics.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { COSTS } from './costs.ts'
import type { Network } from './network.ts'
import type { SimulatedHost } from './simulated-host.ts'

/** As in `libp2p-options.ts`, and gossipsub's own. */
const D = 4
const D_LOW = 3
const D_HIGH = 5
const D_LAZY = 6
const HEARTBEAT_MS = 1000
/** Messages of so many heartbeats are named to others. */
const GOSSIP_WINDOWS = 3

interface Message {
  readonly topic: string
  readonly bytes: Uint8Array
  readonly seenBy: Set<GossipMesh>
}

interface Topic {
  readonly judge: (bytes: Uint8Array, from: Principal) => Judgement
  readonly mesh: Set<GossipMesh>
  /** Of each of the last heartbeats, the newest first. */
  readonly recent: Message[][]
}

export class GossipMesh implements OverlayGossip {
  readonly #network: Network
  readonly #host: SimulatedHost
  readonly #topics = new Map<string, Topic>()
  /** Connected peers by what they listen to. */
  readonly #listeners = new Map<string, Set<GossipMesh>>()
  readonly #fanout = new Map<string, Set<GossipMesh>>()
  readonly #onListener: ((topic: string) => void)[] = []
  readonly #onHeartbeat: (() => void)[] = []
  #isBeating = false

  constructor(network: Network, host: SimulatedHost) {
    this.#network = network
    this.#host = host
  }

  audience(topic: string): { known: number; atHand: number } {
    const known = this.#listeners.get(topic)?.size ?? 0
    return { known, atHand: known }
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async publish(topic: string, bytes: Uint8Array): Promise<number> {
    const message = { topic, bytes, seenBy: new Set<GossipMesh>([this]) }
    const own = this.#topics.get(topic)
    const to = own === undefined ? this.#fanoutOf(topic) : own.mesh
    own?.recent[0]?.push(message)
    for (const peer of to) this.#send(peer, message)
    return to.size
  }

  subscribe(topic: string, judge: Topic['judge']): void {
    this.#topics.set(topic, { judge, mesh: new Set(), recent: [[]] })
    for (const other of this.#host.peers()) this.#tell(other, topic)
    if (topic !== PROOFS_TOPIC) this.#beat()
  }

  unsubscribe(topic: string): void {
    const gone = this.#topics.get(topic)
    if (!this.#topics.delete(topic)) return
    for (const peer of gone?.mesh ?? []) peer.#topics.get(topic)?.mesh.delete(this)
    for (const { gossip, station } of this.#host.peers()) {
      this.#network.carry(this.#host.station, station, COSTS.subscription, 'subscriptions')
      this.#deliver(gossip, () => {
        gossip.#listeners.get(topic)?.delete(this)
        gossip.#fanout.get(topic)?.delete(this)
      })
    }
  }

  onListener(listener: (topic: string) => void): void {
    this.#onListener.push(listener)
  }

  onHeartbeat(listener: () => void): void {
    this.#onHeartbeat.push(listener)
  }

  /** Tells a peer that is connected now what is listened to here. */
  met(other: SimulatedHost): void {
    for (const topic of this.#topics.keys()) this.#tell(other, topic)
  }

  left(other: SimulatedHost): void {
    for (const listeners of this.#listeners.values()) listeners.delete(other.gossip)
    for (const peers of this.#fanout.values()) peers.delete(other.gossip)
    for (const { mesh } of this.#topics.values()) mesh.delete(other.gossip)
  }

  #tell(other: SimulatedHost, topic: string): void {
    this.#network.carry(this.#host.station, other.station, COSTS.subscription, 'subscriptions')
    this.#deliver(other.gossip, () => other.gossip.#learn(this, topic))
  }

  #learn(from: GossipMesh, topic: string): void {
    const listeners = this.#listeners.get(topic) ?? new Set()
    if (listeners.has(from)) return
    this.#listeners.set(topic, listeners.add(from))
    for (const listener of this.#onListener) listener(topic)
  }

  #fanoutOf(topic: string): Set<GossipMesh> {
    const peers = this.#fanout.get(topic) ?? new Set()
    this.#fanout.set(topic, peers)
    this.#fill(peers, topic, D, () => true)
    return peers
  }

  /** Adds listeners of the topic to `peers`, by chance, until there are `enough`. */
  #fill(peers: Set<GossipMesh>, topic: string, enough: number, agrees: (peer: GossipMesh) => boolean): void {
    if (peers.size >= enough) return
    const others = [...(this.#listeners.get(topic) ?? [])].filter((peer) => !peers.has(peer))
    while (peers.size < enough && others.length > 0) {
      const [peer] = others.splice(this.#network.chance.between(0, others.length - 1), 1)
      if (peer !== undefined && agrees(peer)) peers.add(peer)
    }
  }

  #send(to: GossipMesh, message: Message): void {
    this.#network.carry(
      this.#host.station,
      to.#host.station,
      message.topic.length + message.bytes.length + COSTS.gossipMessage,
      'gossip'
    )
    if (this.#network.loses()) return
    this.#deliver(to, () => to.#receive(message, this))
  }

  /** Runs `arrive` at the other side, unless either is gone by then or they are cut off from each other. */
  #deliver(to: GossipMesh, arrive: () => void): void {
    const { time } = this.#network
    const [from, at] = [this.#host.station, to.#host.station]
    time.after(this.#network.latencyMs(from, at), () => {
      if (at.host === to.#host && !this.#network.areApart(from, at)) arrive()
    })
  }

  #receive(message: Message, from: GossipMesh): void {
    if (message.seenBy.has(this)) return
    const topic = this.#topics.get(message.topic)
    if (topic === undefined || !this.#host.rules.acceptsMessage(message.topic, message.bytes)) return
    message.seenBy.add(this)
    if (topic.judge(message.bytes, from.#host.principal) !== 'accept') return
    topic.recent[0]?.push(message)
    for (const peer of topic.mesh) if (peer !== from) this.#send(peer, message)
  }

  #beat(): void {
    if (this.#isBeating) return
    this.#isBeating = true
    const beat = (): void => {
      if (this.#host.station.host !== this.#host) return
      for (const listener of this.#onHeartbeat) listener()
      for (const [name, topic] of this.#topics) if (name !== PROOFS_TOPIC) this.#tend(name, topic)
      this.#network.time.after(HEARTBEAT_MS, beat)
    }
    this.#network.time.after(this.#network.chance.between(100, HEARTBEAT_MS), beat)
  }

  #tend(name: string, topic: Topic): void {
    if (topic.mesh.size < D_LOW) this.#fill(topic.mesh, name, D, (peer) => this.#graft(peer, name))
    this.#gossip(name, topic)
    topic.recent.unshift([])
    topic.recent.splice(GOSSIP_WINDOWS)
  }

  /** The other side takes it into its mesh as well, if there is room. */
  #graft(peer: GossipMesh, topic: string): boolean {
    this.#network.carry(this.#host.station, peer.#host.station, COSTS.gossipControl, 'gossip control')
    const theirs = peer.#topics.get(topic)
    if (theirs === undefined || theirs.mesh.size >= D_HIGH) return false
    if (this.#network.areApart(this.#host.station, peer.#host.station)) return false
    theirs.mesh.add(this)
    return true
  }

  #gossip(name: string, topic: Topic): void {
    const messages = topic.recent.flat()
    if (messages.length === 0) return
    const lazy = new Set<GossipMesh>()
    const others = [...(this.#listeners.get(name) ?? [])].filter((peer) => !topic.mesh.has(peer))
    while (lazy.size < D_LAZY && others.length > 0) {
      const [peer] = others.splice(this.#network.chance.between(0, others.length - 1), 1)
      if (peer !== undefined) lazy.add(peer)
    }
    for (const peer of lazy) {
      this.#network.carry(
        this.#host.station,
        peer.#host.station,
        COSTS.gossipControl + messages.length * COSTS.gossipId,
        'gossip control'
      )
      this.#deliver(peer, () => peer.#want(this, messages))
    }
  }

  #want(from: GossipMesh, messages: readonly Message[]): void {
    const wanted = messages.filter(({ seenBy }) => !seenBy.has(this))
    if (wanted.length === 0) return
    this.#network.carry(
      this.#host.station,
      from.#host.station,
      COSTS.gossipControl + wanted.length * COSTS.gossipId,
      'gossip control'
    )
    this.#deliver(from, () => {
      for (const message of wanted) from.#send(this, message)
    })
  }
}
