/**
 * A simulated network of peers: connections that are dialed, break and are noticed late to have died, messages that take
 * their time or are lost, parts that are cut off from each other, and every byte that a peer's link carries.
 */
import type { Clock } from '../../src/base/clock.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import type { KnownPeer } from '../../src/peer/known-peers.ts'
import { principalOfPublicKey, type Principal, type SigningKey } from '../../src/ticket/principal.ts'
import { nativeEd25519 } from '../../src/wire/ed25519.ts'
import { Chance } from '../sim/chance.ts'
import { COSTS } from './costs.ts'
import { Kademlia, kadId, type KademliaInit } from './kademlia.ts'
import type { SimulatedHost } from './simulated-host.ts'
import { VirtualTime } from './virtual-time.ts'

/** The wall clock of all when a simulation begins. */
export const BEGINNING = Date.UTC(2026, 0, 1)
const LATENCY_MS = { min: 2, max: 80 }
/** How long a dial to where nobody answers takes, and until a connection is known to be dead. */
const DEAD_DIAL_MS = 5000
const DEATH_NOTICED_MS = { min: 20_000, max: 75_000 }
/** As in `libp2p-options.ts`. */
export const DHT = { paths: 2, alpha: 3 } satisfies KademliaInit

export interface NetworkInit {
  readonly seed: number
  /** How many of a thousand gossip messages and calls are lost. */
  readonly lossPermille?: number
  readonly dht?: KademliaInit
}

/** A machine: what outlives a crash of its peer. */
export class Station {
  readonly index: number
  readonly key: SigningKey
  readonly kadId: number
  readonly address: string
  /** What its known-peers file holds. */
  known: readonly KnownPeer[] = []
  /** The part of the network that it is in. */
  part = 0
  host: SimulatedHost | undefined
  /** Bytes that went in or out, and what for. */
  bytes = 0
  readonly bytesFor = new Map<string, number>()
  /** Peers that queries of the DHT, its own or theirs, left it connected to. */
  readonly contacts = new Set<Station>()

  constructor(index: number, key: SigningKey) {
    this.index = index
    this.key = key
    this.kadId = kadId(key.principal)
    const octets = [10, (index >> 16) & 255, (index >> 8) & 255, index & 255]
    this.address = `/ip4/${octets.join('.')}/tcp/4001/p2p/${key.principal}`
  }

  count(bytes: number, what: string): void {
    this.bytes += bytes
    this.bytesFor.set(what, (this.bytesFor.get(what) ?? 0) + bytes)
  }
}

export class Network {
  readonly time = new VirtualTime()
  readonly chance: Chance
  readonly stations: Station[] = []
  readonly kademlia: Kademlia<Station>
  readonly #lossPermille: number
  readonly #byPrincipal = new Map<Principal, Station>()

  constructor({ seed, lossPermille = 0, dht = DHT }: NetworkInit) {
    this.chance = new Chance(seed)
    this.kademlia = new Kademlia((max) => this.chance.between(0, max - 1), dht)
    this.#lossPermille = lossPermille
  }

  addStation(): Station {
    const seed = this.chance.bytes(32)
    const key = { seed, principal: principalOfPublicKey(nativeEd25519.publicKey(seed)) }
    const station = new Station(this.stations.length, key)
    this.stations.push(station)
    this.#byPrincipal.set(key.principal, station)
    return station
  }

  /** Once peers came or went for good: routing tables have settled on those there are. */
  settleTables(): void {
    this.kademlia.setContacts(this.stations.filter(({ host }) => host !== undefined))
  }

  stationOf(principal: Principal): Station | undefined {
    return this.#byPrincipal.get(principal)
  }

  areApart(a: Station, b: Station): boolean {
    return a.part !== b.part
  }

  /** One way, the same each time. */
  latencyMs(a: Station, b: Station): number {
    const mixed = Math.imul(a.kadId ^ b.kadId, 0x9e3779b1) >>> 8
    return LATENCY_MS.min + (mixed % (LATENCY_MS.max - LATENCY_MS.min))
  }

  loses(): boolean {
    return this.#lossPermille > 0 && this.chance.happens(this.#lossPermille)
  }

  /** Bytes between two peers, on the links of both. */
  carry(a: Station, b: Station, bytes: number, what: string): void {
    a.count(bytes, what)
    b.count(bytes, what)
  }

  /** A query of the DHT asks a peer: the connection that it takes stays. */
  contact(from: Station, to: Station): void {
    if (from.contacts.has(to)) return
    from.contacts.add(to)
    to.contacts.add(from)
    this.carry(from, to, COSTS.connection, 'dht')
  }

  /** Connects two peers; resolves when each has identified the other. Throws `PEER_UNREACHABLE`. */
  async connect(from: SimulatedHost, to: Station): Promise<void> {
    const { time } = this
    const latency = this.latencyMs(from.station, to)
    const host = to.host
    if (this.areApart(from.station, to) || host === undefined) {
      from.station.count(COSTS.deadDial, 'connections')
      // Where no program listens the machine says so, where the network is cut nobody does.
      await from.clock.sleep(
        host === undefined && !this.areApart(from.station, to) ? latency * 2 : DEAD_DIAL_MS
      )
      throw new SlicenetError('PEER_UNREACHABLE', `${to.address} does not answer`)
    }
    await new Promise<void>((resolve) => void time.after(latency * 8, resolve))
    if (to.host !== host || from.station.host !== from || this.areApart(from.station, to)) {
      throw new SlicenetError('PEER_UNREACHABLE', `${to.address} went away`)
    }
    if (from.isConnectedTo(host)) return
    this.carry(from.station, to, COSTS.connection, 'connections')
    from.joined(host)
    host.joined(from)
  }

  /** A process ends: its machine closes its connections, unless the machine itself is gone. */
  crash(station: Station, { silently = false } = {}): void {
    const host = station.host
    if (host === undefined) return
    station.host = undefined
    for (const contact of station.contacts) contact.contacts.delete(station)
    station.contacts.clear()
    for (const other of host.peers()) {
      const wait = silently
        ? this.chance.between(DEATH_NOTICED_MS.min, DEATH_NOTICED_MS.max)
        : this.latencyMs(station, other.station)
      this.time.after(wait, () => other.left(host))
    }
    host.die()
  }

  /** Cuts the network in two; connections between the parts die, and that is noticed late. */
  cut(isApart: (station: Station) => boolean): void {
    for (const station of this.stations) station.part = isApart(station) ? 1 : 0
    for (const { host } of this.stations) {
      for (const other of host?.peers() ?? []) {
        if (host === undefined || !this.areApart(host.station, other.station)) continue
        this.time.after(this.chance.between(DEATH_NOTICED_MS.min, DEATH_NOTICED_MS.max), () =>
          host.left(other)
        )
      }
    }
  }

  mend(): void {
    for (const station of this.stations) station.part = 0
  }
}

/** One for all: making one costs more than the rest of a time limit. */
const TIMED_OUT = new DOMException('timed out', 'TimeoutError')

/** A peer's clock: virtual, and stopped with its process. */
export function clockOf(network: Network, isAlive: () => boolean): Clock {
  const { time } = network
  const after = (ms: number, run: () => void): (() => void) =>
    time.after(ms, () => {
      if (isAlive()) run()
    })
  return {
    now: () => BEGINNING + time.now,
    monotonic: () => time.now,
    async sleep(ms, { signal } = {}) {
      signal?.throwIfAborted()
      await new Promise<void>((resolve, reject) => {
        const give = (): void => {
          forget()
          reject(signal?.reason as Error)
        }
        const forget = after(ms, () => {
          signal?.removeEventListener('abort', give)
          resolve()
        })
        signal?.addEventListener('abort', give, { once: true })
      })
    },
    timeout(ms) {
      const controller = new AbortController()
      after(ms, () => controller.abort(TIMED_OUT))
      return controller.signal
    }
  }
}
