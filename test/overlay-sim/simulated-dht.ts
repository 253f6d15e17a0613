/** The DHT of a simulated peer: the walks of Kademlia, and records and providers kept where the walk ends. */
import type { OverlayDht, ProvidersNamed } from '../../src/peer/overlay.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { COSTS } from './costs.ts'
import { kadId, type Walk } from './kademlia.ts'
import type { Network, Station } from './network.ts'
import type { SimulatedHost } from './simulated-host.ts'

const DEAD_MS = 1000
const LONELY_MS = 500
/** Peers that an answer names. */
const NAMED = 20

export class SimulatedDht implements OverlayDht {
  readonly #network: Network
  readonly #host: SimulatedHost
  /** What it keeps for others. */
  readonly records = new Map<string, Uint8Array>()
  readonly providers = new Map<string, Set<Station>>()

  constructor(network: Network, host: SimulatedHost) {
    this.#network = network
    this.#host = host
  }

  async *put(
    key: Uint8Array,
    value: Uint8Array,
    options: { readonly signal: AbortSignal }
  ): AsyncGenerator<Principal> {
    const { nearest } = await this.#walk(key, options.signal)
    for (const { host } of nearest) {
      if (host === undefined) continue
      this.#count(host.station, value.length)
      if (host.dht.#keep(key, value)) yield host.principal
    }
  }

  async *get(key: Uint8Array, options: { readonly signal: AbortSignal }): AsyncGenerator<Uint8Array> {
    const { asked } = await this.#walk(key, options.signal)
    for (const { host } of asked) {
      const value = host?.dht.records.get(nameOf(key))
      if (value !== undefined) yield value
    }
  }

  async *provide(digest: Uint8Array, options: { readonly signal: AbortSignal }): AsyncGenerator<Principal> {
    const { nearest } = await this.#walk(digest, options.signal)
    for (const { host } of nearest) {
      if (host === undefined) continue
      this.#count(host.station, COSTS.dhtPeer)
      const providers = host.dht.providers
      const name = nameOf(digest)
      providers.set(name, (providers.get(name) ?? new Set()).add(this.#host.station))
      yield host.principal
    }
  }

  /** Those told before forget in time. */
  async withdraw(): Promise<void> {}

  async *findProviders(
    digest: Uint8Array,
    options: { readonly signal: AbortSignal }
  ): AsyncGenerator<ProvidersNamed> {
    const { asked } = await this.#walk(digest, options.signal)
    for (const { host } of asked) {
      const found = [...(host?.dht.providers.get(nameOf(digest)) ?? [])]
      if (host === undefined || found.length === 0) continue
      this.#count(host.station, found.length * COSTS.dhtPeer)
      const providers = found.map(({ key, address }) => ({ principal: key.principal, multiaddrs: [address] }))
      yield { by: host.principal, providers }
    }
  }

  #keep(key: Uint8Array, value: Uint8Array): boolean {
    const [, namespace = ''] = Buffer.from(key).toString('utf8').split('/')
    try {
      const rule = this.#host.rules.records[namespace]
      if (rule === undefined) return false
      rule.validate(key, value)
    } catch {
      return false
    }
    this.records.set(nameOf(key), value)
    return true
  }

  async #walk(key: Uint8Array, signal: AbortSignal): Promise<Walk<Station>> {
    const { clock, station } = this.#host
    signal.throwIfAborted()
    while (this.#host.connections === 0) await clock.sleep(LONELY_MS, { signal })
    const walk = this.#network.kademlia.walk(
      station,
      kadId(key),
      (contact) => contact.host !== undefined && !this.#network.areApart(station, contact)
    )
    for (const contact of walk.asked) {
      this.#network.contact(station, contact)
      this.#count(contact, NAMED * COSTS.dhtPeer)
    }
    for (const _contact of walk.dead) station.count(COSTS.deadDial, 'dht')
    const ms = walk.asked.reduce((sum, contact) => sum + 2 * this.#network.latencyMs(station, contact), 0)
    const each = walk.asked.length === 0 ? 0 : ms / walk.asked.length
    await clock.sleep(walk.hops * each + (walk.dead.length > 0 ? DEAD_MS : 0), { signal })
    return walk
  }

  #count(other: Station, bytes: number): void {
    this.#network.carry(this.#host.station, other, COSTS.dhtCall + bytes, 'dht')
  }
}

function nameOf(key: Uint8Array): string {
  return Buffer.from(key).toString('latin1')
}
