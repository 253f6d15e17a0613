/**
 * What a peer answers to those who measure: where it is, how far others are, and how fast bytes come in. Each is bounded
 * per caller and in all, so that nobody can be attacked by way of this peer: it pings only whom it can learn of by itself,
 * each of them once in a while whoever asks, and takes so many bytes.
 */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { within } from '../base/time-limit.ts'
import type { measureProtocol } from '../protocol/measure-protocol.ts'
import type { Handlers } from '../protocol/method.ts'
import type { Coordinate } from '../ticket/coordinate.ts'
import type { Principal } from '../ticket/principal.ts'
import { CallerRates } from './caller-rates.ts'

/** How long one answer about a target is given to all who ask. */
const PINGED_MS = 10_000
const PING_MS_MAX = 4000

export interface MeasureHandlersComponents {
  readonly clock: Clock
  readonly coordinate: () => Coordinate
  /** Microseconds to a target; null where it is unknown or does not answer. */
  readonly ping: (target: Principal, options: { readonly signal: AbortSignal }) => Promise<number | null>
}

export interface MeasureHandlersInit {
  /** Whether others may measure their uplinks by sending bytes here. */
  readonly sink: boolean
}

type MeasureHandlers = Handlers<typeof measureProtocol.methods>

export function measureHandlers(
  components: MeasureHandlersComponents,
  init: MeasureHandlersInit
): MeasureHandlers {
  const pings = new Pings(components)
  const sink = new Sink(components)
  return {
    // oxlint-disable-next-line typescript/require-await -- handlers are asynchronous.
    coordinate: async () => ({ coordinate: components.coordinate() }),
    ping: async ({ targets }, { principal = '', signal }) => ({
      rttMicros: await pings.answer(principal, targets, signal)
    }),
    sink: async (_params, { principal = '', signal, input }) => {
      if (!init.sink) throw new SlicenetError('DENIED', 'this peer takes no measurements of uplinks')
      return sink.take(principal, input, signal)
    }
  }
}

interface Pinged {
  readonly at: number
  readonly rtt: Promise<number | null>
}

class Pings {
  readonly #components: MeasureHandlersComponents
  readonly #rates = new CallerRates({
    each: { burst: LIMITS.pingsPerCallerBurst, perMinute: LIMITS.pingsPerCallerPerMinute },
    all: { burst: LIMITS.pingsBurst, perMinute: LIMITS.pingsPerMinute }
  })
  /** By target, the oldest first. */
  readonly #pinged = new Map<Principal, Pinged>()
  #underWay = 0

  constructor(components: MeasureHandlersComponents) {
    this.#components = components
  }

  async answer(
    caller: Principal,
    targets: readonly Principal[],
    signal: AbortSignal
  ): Promise<(number | null)[]> {
    const now = this.#components.clock.monotonic()
    if (!this.#rates.take(caller, now, targets.length)) {
      throw new SlicenetError('BUSY', `too many pings are asked for`)
    }
    for (const [target, { at }] of this.#pinged) if (at <= now - PINGED_MS) this.#pinged.delete(target)
    if (this.#underWay + targets.length > LIMITS.pingsAtOnceMax) {
      throw new SlicenetError('BUSY', `more than ${LIMITS.pingsAtOnceMax} pings at a time`)
    }
    const answer = Promise.all(targets.map(async (target) => this.#once(target, now)))
    const gone = new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    })
    return Promise.race([answer, gone])
  }

  /** Joins the ping of a moment ago, also when whoever asked for it has gone. */
  async #once(target: Principal, now: number): Promise<number | null> {
    const before = this.#pinged.get(target)
    if (before !== undefined) return before.rtt
    const rtt = this.#ping(target)
    this.#pinged.set(target, { at: now, rtt })
    return rtt
  }

  async #ping(target: Principal): Promise<number | null> {
    const { clock, ping } = this.#components
    this.#underWay += 1
    try {
      return await ping(target, { signal: clock.timeout(PING_MS_MAX) })
    } catch {
      return null
    } finally {
      this.#underWay -= 1
    }
  }
}

class Sink {
  readonly #clock: Clock
  readonly #rates = new CallerRates({
    each: { burst: LIMITS.sinksPerCallerBurst, perMinute: LIMITS.sinksPerCallerPerHour / 60 },
    all: { burst: LIMITS.sinksBurst, perMinute: LIMITS.sinksPerMinute }
  })
  #underWay = 0

  constructor({ clock }: MeasureHandlersComponents) {
    this.#clock = clock
  }

  async take(
    caller: Principal,
    input: AsyncIterable<{ readonly bytes: Uint8Array }>,
    signal: AbortSignal
  ): Promise<{ bytes: number; micros: number }> {
    if (this.#underWay >= LIMITS.sinksAtOnceMax) {
      throw new SlicenetError('BUSY', `${LIMITS.sinksAtOnceMax} uplinks are being measured`)
    }
    if (!this.#rates.take(caller, this.#clock.monotonic())) {
      throw new SlicenetError('BUSY', 'uplinks are measured too often')
    }
    this.#underWay += 1
    try {
      return await this.#drain(input, within(this.#clock, LIMITS.sinkMsMax, signal))
    } finally {
      this.#underWay -= 1
    }
  }

  async #drain(
    input: AsyncIterable<{ readonly bytes: Uint8Array }>,
    signal: AbortSignal
  ): Promise<{ bytes: number; micros: number }> {
    let bytes = 0
    let first: number | undefined
    let last = 0
    const chunks = input[Symbol.asyncIterator]()
    const late = new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    })
    late.catch(() => {})
    for (;;) {
      const next = await Promise.race([chunks.next(), late])
      if (next.done === true) break
      last = this.#clock.monotonic()
      first ??= last
      bytes += next.value.bytes.length
      if (bytes > LIMITS.sinkBytesMax) {
        throw new SlicenetError(
          'TOO_LARGE',
          `an uplink is measured with ${LIMITS.sinkBytesMax} bytes at most`
        )
      }
    }
    return { bytes, micros: Math.round((last - (first ?? last)) * 1000) }
  }
}
