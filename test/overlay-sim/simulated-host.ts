/** One run of a simulated peer: what a directory and joining need of a host, over the simulated network. */
import type { Clock } from '../../src/base/clock.ts'
import { SlicenetError, asSlicenetError } from '../../src/base/errors.ts'
import type { JoiningNetwork } from '../../src/peer/joining.ts'
import type { KnownPeer } from '../../src/peer/known-peers.ts'
import type { DirectoryHost, PeerWatcher } from '../../src/peer/overlay.ts'
import { NO_RULES, type OverlayRules } from '../../src/peer/overlay-rules.ts'
import type { Caller, CallOptions, Handlers, Methods, Protocol } from '../../src/protocol/method.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import { cborSize } from './cbor-size.ts'
import { COSTS } from './costs.ts'
import { GossipMesh } from './gossip-mesh.ts'
import { clockOf, type Network, type Station } from './network.ts'
import { SimulatedDht } from './simulated-dht.ts'

interface Asked {
  readonly protocolId: string
  readonly method: string
  readonly params: unknown
}

export class SimulatedHost implements DirectoryHost, JoiningNetwork {
  readonly station: Station
  readonly principal: Principal
  readonly clock: Clock
  readonly gossip: GossipMesh
  readonly dht: SimulatedDht
  rules: OverlayRules = NO_RULES
  readonly #network: Network
  readonly #neighbours = new Set<SimulatedHost>()
  readonly #served = new Map<string, Handlers<Methods>>()
  readonly #watchers = new Set<PeerWatcher>()
  readonly #disconnects = new Set<() => void>()
  /** Where others may be found. */
  readonly #book = new Set<Principal>()
  /** Calls that fail when the connection to a peer breaks. */
  readonly #calls = new Map<SimulatedHost, Set<(error: Error) => void>>()
  #isAlive = true

  constructor(network: Network, station: Station) {
    this.#network = network
    this.station = station
    this.principal = station.key.principal
    this.clock = clockOf(network, () => this.#isAlive)
    this.gossip = new GossipMesh(network, this)
    this.dht = new SimulatedDht(network, this)
  }

  get connections(): number {
    return this.#neighbours.size
  }

  connected(): Principal[] {
    return [...this.#neighbours].map(({ principal }) => principal)
  }

  isConnectedTo(other: SimulatedHost): boolean {
    return this.#neighbours.has(other)
  }

  caller<M extends Methods>(protocol: Protocol<M>, principal: Principal): Caller<M> {
    return async (method, params, options = {}) =>
      this.#call({ protocolId: protocol.id, method, params }, principal, options)
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async serve<M extends Methods>(protocol: Protocol<M>, handlers: Handlers<M>): Promise<void> {
    this.#served.set(protocol.id, handlers as Handlers<Methods>)
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async addAddresses(principal: Principal): Promise<void> {
    this.#book.add(principal)
  }

  useRules(rules: OverlayRules): void {
    this.rules = rules
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async watchPeers(_protocolId: string, watcher: PeerWatcher): Promise<() => void> {
    this.#watchers.add(watcher)
    for (const { principal } of this.#neighbours) watcher.onMeet(principal)
    return () => this.#watchers.delete(watcher)
  }

  isConnected(principal: Principal): boolean {
    const host = this.#network.stationOf(principal)?.host
    return host !== undefined && this.#neighbours.has(host)
  }

  async dial(peer: KnownPeer, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    signal.throwIfAborted()
    const station = this.#network.stationOf(peer.principal)
    if (station === undefined) throw new SlicenetError('PEER_UNREACHABLE', 'nobody has that key')
    this.#book.add(peer.principal)
    await this.#network.connect(this, station)
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async neighbours(max: number): Promise<KnownPeer[]> {
    return this.peers()
      .slice(0, max)
      .map(({ principal, station }) => ({ principal, multiaddrs: [station.address] }))
  }

  /** Those it is connected to. */
  peers(): SimulatedHost[] {
    return [...this.#neighbours]
  }

  onDisconnect(listener: () => void): () => void {
    this.#disconnects.add(listener)
    return () => this.#disconnects.delete(listener)
  }

  joined(other: SimulatedHost): void {
    this.#neighbours.add(other)
    this.#book.add(other.principal)
    this.gossip.met(other)
    for (const watcher of this.#watchers) watcher.onMeet(other.principal)
  }

  left(other: SimulatedHost): void {
    if (!this.#isAlive || !this.#neighbours.delete(other)) return
    this.gossip.left(other)
    const gone = new SlicenetError('PEER_UNREACHABLE', `the connection to ${other.principal} broke`)
    for (const fail of this.#calls.get(other) ?? []) fail(gone)
    for (const watcher of this.#watchers) watcher.onLeave(other.principal)
    for (const listener of this.#disconnects) listener()
  }

  /** Nothing that its parts wait for comes any more. */
  die(): void {
    this.#isAlive = false
    this.#neighbours.clear()
    this.#watchers.clear()
  }

  async #call<R>(asked: Asked, to: Principal, options: CallOptions<never>): Promise<R> {
    const { signal } = options
    signal?.throwIfAborted()
    const station = this.#network.stationOf(to)
    const isKnown = this.#book.has(to) || this.rules.addressesOf(to).length > 0
    if (station === undefined || !isKnown) {
      throw new SlicenetError('PEER_UNREACHABLE', `no address of ${to} is known`)
    }
    if (!this.isConnected(to)) await aborted(this.#network.connect(this, station), signal)
    const callee = station.host
    if (callee === undefined) throw new SlicenetError('PEER_UNREACHABLE', `${to} went away`)
    const running = Promise.withResolvers<R>()
    const calls = this.#calls.get(callee) ?? new Set()
    this.#calls.set(callee, calls.add(running.reject))
    this.#send(asked, callee, options, running)
    try {
      return await aborted(running.promise, signal)
    } finally {
      calls.delete(running.reject)
    }
  }

  /** A message that is lost, or comes where nobody is any more, is one that the caller waits for. */
  #send<R>(
    asked: Asked,
    callee: SimulatedHost,
    options: CallOptions<never>,
    running: PromiseWithResolvers<R>
  ): void {
    const { method, params } = asked
    this.#network.carry(this.station, callee.station, COSTS.call + cborSize({ method, params }), method)
    this.#travel(callee, async () => {
      const items: unknown[] = []
      let settle: () => Promise<void> | void
      try {
        const result = await callee.#answer(asked, this.principal, items)
        this.#network.carry(this.station, callee.station, cborSize({ result }) + cborSize(items), method)
        settle = async () => {
          for (const item of items) await options.onItem?.(item as never)
          running.resolve(result as R)
        }
      } catch (error) {
        settle = () => running.reject(asSlicenetError(error))
      }
      callee.#travel(this, settle)
    })
  }

  #travel(to: SimulatedHost, arrive: () => Promise<void> | void): void {
    if (this.#network.loses()) return
    this.#network.time.after(this.#network.latencyMs(this.station, to.station), () => {
      if (to.#isAlive && !this.#network.areApart(this.station, to.station)) void arrive()
    })
  }

  async #answer({ protocolId, method, params }: Asked, from: Principal, items: unknown[]): Promise<unknown> {
    const handler = this.#served.get(protocolId)?.[method]
    if (handler === undefined) throw new SlicenetError('PROTOCOL_ERROR', `${protocolId} is not served`)
    return handler(params, {
      principal: from,
      signal: NEVER,
      emit: async (item) => void items.push(item),
      input: nothing()
    })
  }
}

const NEVER = new AbortController().signal

async function* nothing(): AsyncGenerator<never> {}

async function aborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work
  let onAbort = (): void => {}
  const gone = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([work, gone])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
