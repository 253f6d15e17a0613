/**
 * Keeps this peer's place in the network: now and then it times a few round trips to a peer that it is connected to and
 * asks it where it is, at first more often. Answers others who measure, and remembers the place over restarts.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { fraction, type Random } from '../base/random.ts'
import { within } from '../base/time-limit.ts'
import { measureProtocol } from '../protocol/measure-protocol.ts'
import { coordinateSchema, isPlaced, type Coordinate } from '../ticket/coordinate.ts'
import type { Principal } from '../ticket/principal.ts'
import { cborCodec } from '../wire/codec.ts'
import type { PeerHost } from './host.ts'
import { measureHandlers } from './measure-handlers.ts'
import { choosePartners } from './partner-choice.ts'
import { roundTripMicros } from './round-trips.ts'
import { SignerRate } from './signer-rate.ts'
import { Vivaldi } from './vivaldi.ts'

/** Round trips of which the fastest counts. */
const TRIPS = 3
const MEASURE_MS_MAX = 10_000
/** Until it has measured so much, it measures so many at a time, and so many times as often. */
const SETTLED_SAMPLES = 64
const UNSETTLED_PEERS = 4
const UNSETTLED_TIMES = 6
const SAVE_INTERVAL_MS = 10 * 60_000
/** Who was away may be elsewhere: nobody trusts a place from before more than this. */
const REMEMBERED_ERROR_MIN = 200

/** Where something small is kept over restarts. */
export interface Remembered {
  load(): Promise<Uint8Array | undefined>
  save(bytes: Uint8Array): Promise<void>
}

export interface MeasuringComponents {
  readonly host: PeerHost
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly remembered: Remembered
  /** Where a principal may be found, by its own signed advert; asks the DHT when `far`. `undefined` when there is none. */
  readonly addressesOf: (
    principal: Principal,
    options: { readonly far: boolean; readonly signal: AbortSignal }
  ) => Promise<readonly string[] | undefined>
}

export interface MeasuringInit {
  readonly intervalMs: number
  /** Whether others may measure their uplinks by sending bytes here. */
  readonly sink: boolean
}

const placeCodec = cborCodec(coordinateSchema)

export class Measuring implements Startable {
  readonly #components: MeasuringComponents
  readonly #init: MeasuringInit
  readonly #partners = new Set<Principal>()
  readonly #lookups = new SignerRate({
    burst: LIMITS.pingLookupsBurst,
    perMinute: LIMITS.pingLookupsPerMinute
  })
  #vivaldi: Vivaldi
  #samples = 0
  #saved: { readonly at: number; readonly samples: number } = { at: -Infinity, samples: 0 }
  #loop: { stop(): Promise<void> } | undefined
  #unwatch = (): void => {}

  constructor(components: MeasuringComponents, init: MeasuringInit) {
    this.#components = components
    this.#init = init
    this.#vivaldi = new Vivaldi(components)
    // Before the host starts, so that it is told whoever connects.
    void components.host.serve(measureProtocol, this.#handlers())
  }

  /** Where this peer is; `undefined` as long as it knows nothing of that. */
  coordinate(): Coordinate | undefined {
    const coordinate = this.#vivaldi.coordinate()
    return isPlaced(coordinate) ? coordinate : undefined
  }

  /** How often it measured another peer since it was made. */
  get samples(): number {
    return this.#samples
  }

  /** To be made before the host is started, and started after it. */
  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { host, clock, logger } = this.#components
    await this.#recall()
    this.#unwatch = await host.watchPeers(measureProtocol.id, {
      onMeet: (peer) => void this.#partners.add(peer),
      onLeave: (peer) => void this.#partners.delete(peer)
    })
    this.#loop = repeat(
      async (signal) => {
        await clock.sleep(this.#pauseMs(), { signal })
        await this.#round(signal)
        await this.#keep(SAVE_INTERVAL_MS)
      },
      { clock, onError: (error) => logger.debug('measuring failed', { error }) },
      { intervalMs: 0 }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    if (loop === undefined) return
    this.#unwatch()
    this.#partners.clear()
    await loop.stop()
    await this.#keep(0)
  }

  #handlers() {
    const { clock } = this.#components
    return measureHandlers(
      {
        clock,
        coordinate: () => this.#vivaldi.coordinate(),
        ping: async (target, { signal }) => this.#ping(target, signal)
      },
      { sink: this.#init.sink }
    )
  }

  /** Half as long again or half as long: peers that started together do not go on together. */
  #pauseMs(): number {
    const { intervalMs } = this.#init
    const usual = this.#samples < SETTLED_SAMPLES ? intervalMs / UNSETTLED_TIMES : intervalMs
    return Math.round(usual * (0.5 + fraction(this.#components.random)))
  }

  async #round(signal: AbortSignal): Promise<void> {
    const count = this.#samples < SETTLED_SAMPLES ? UNSETTLED_PEERS : 1
    for (const peer of this.#some(count)) {
      try {
        await this.#measure(peer, within(this.#components.clock, MEASURE_MS_MAX, signal))
      } catch (error) {
        signal.throwIfAborted()
        this.#components.logger.debug('a peer could not be measured', { principal: peer, error })
      }
    }
  }

  /** Those that are reached through a relay are not where they seem. */
  #some(count: number): readonly Principal[] {
    const { host, random } = this.#components
    const connections = Map.groupBy(host.libp2p.getConnections(), ({ remotePeer }) => remotePeer.toString())
    const partners = [...this.#partners].flatMap((principal) => {
      const its = connections.get(principal) ?? []
      const isRelayed = its.some(({ limits }) => limits !== undefined)
      if (its.length === 0 || isRelayed) return []
      return [{ principal, isDialed: its.some(({ direction }) => direction === 'outbound') }]
    })
    return choosePartners(partners, count, random)
  }

  async #measure(peer: Principal, signal: AbortSignal): Promise<void> {
    const { host } = this.#components
    const rtt = await this.#roundTrip(peer, signal)
    const { coordinate } = await host.caller(measureProtocol, peer)('coordinate', {}, { signal })
    if (this.#vivaldi.observe(peer, coordinate, rtt)) this.#samples += 1
  }

  async #roundTrip(peer: Principal, signal: AbortSignal): Promise<number> {
    const { host, clock, random } = this.#components
    const components = { libp2p: () => host.libp2p, clock, random }
    return roundTripMicros(components, peer, { count: TRIPS, signal })
  }

  /** For another: only those that this peer is connected to or that published where they are themselves. */
  async #ping(target: Principal, signal: AbortSignal): Promise<number | null> {
    const { host, clock, addressesOf } = this.#components
    if (target === host.principal) return 0
    if (!host.connected().includes(target)) {
      const near = await addressesOf(target, { far: false, signal })
      const mayLookUp = near === undefined && this.#lookups.take(clock.monotonic())
      const addresses = mayLookUp ? await addressesOf(target, { far: true, signal }) : near
      if (addresses === undefined) return null
      await host.addAddresses(target, addresses)
    }
    return this.#roundTrip(target, signal)
  }

  async #recall(): Promise<void> {
    const { remembered, logger } = this.#components
    if (this.#samples > 0) return
    try {
      const bytes = await remembered.load()
      if (bytes === undefined) return
      const place = placeCodec.decode(bytes)
      const error = Math.max(place.error, REMEMBERED_ERROR_MIN)
      this.#vivaldi = new Vivaldi(this.#components, { from: { ...place, error } })
    } catch (error) {
      logger.warn('the place in the network from before is of no use', { error })
    }
  }

  async #keep(intervalMs: number): Promise<void> {
    const { clock, remembered, logger } = this.#components
    const coordinate = this.coordinate()
    if (coordinate === undefined || this.#samples === this.#saved.samples) return
    if (clock.monotonic() - this.#saved.at < intervalMs) return
    this.#saved = { at: clock.monotonic(), samples: this.#samples }
    try {
      await remembered.save(placeCodec.encode(coordinate))
    } catch (error) {
      logger.warn('the place in the network could not be saved', { error })
    }
  }
}
