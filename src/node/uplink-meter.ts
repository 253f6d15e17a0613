/**
 * Measures what a node's uplink carries: it sends a bounded amount to one of its agents, which throws it away, once at the
 * start and then rarely. What one stream carries to one agent is the least that the uplink can do.
 */
import * as v from 'valibot'
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { fraction, type Random } from '../base/random.ts'
import { within } from '../base/time-limit.ts'
import type { Remembered } from '../peer/measuring.ts'
import type { measureProtocol } from '../protocol/measure-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'
import { amountSchema, timeSchema } from '../ticket/signed-object.ts'
import { cborCodec } from '../wire/codec.ts'

const CHUNK = new Uint8Array(32 * 1024)
/** Of so many measurements the median is told. */
const KEPT = 5
/** How long it sends at most, and waits for the answer beyond that. */
const SEND_MS_MAX = 4000
const ANSWER_MS_MAX = 10_000
/** When nobody took the measurement; twice as long each time that follows. */
const RETRY_MS = 5 * 60_000
/** A sink that says that all came in no time is believed by so much. */
const BELIEVED_TIMES = 2

export interface UplinkMeterComponents {
  readonly principal: Principal
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly remembered: Remembered
  /** Those who may be asked to take it. */
  readonly sinks: () => readonly Principal[]
  readonly callPeer: (principal: Principal) => Caller<typeof measureProtocol.methods>
}

export interface UplinkMeterInit {
  readonly intervalMs: number
  /** After the start; the node has its agents by then. */
  readonly initialDelayMs: number
  /** What one measurement sends at most; never more than `LIMITS.sinkBytesMax`. */
  readonly bytesMax: number
  /** What the administrator lets out at most, in bits a second. */
  readonly capBps: number
}

const measuredSchema = v.strictObject({ at: timeSchema, bps: amountSchema })
const keptCodec = cborCodec(v.pipe(v.array(measuredSchema), v.maxLength(KEPT)))

export class UplinkMeter implements Startable {
  readonly #components: UplinkMeterComponents
  readonly #init: UplinkMeterInit
  #kept: readonly v.InferOutput<typeof measuredSchema>[] = []
  #failures = 0
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: UplinkMeterComponents, init: UplinkMeterInit) {
    this.#components = components
    this.#init = init
  }

  /** Bits a second, the median of the last measurements; `undefined` before the first. */
  bps(): number | undefined {
    const sorted = this.#kept.map(({ bps }) => bps).sort((one, other) => one - other)
    const median = sorted[Math.floor((sorted.length - 1) / 2)]
    return median === undefined ? undefined : Math.min(median, this.#init.capBps)
  }

  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { clock, logger } = this.#components
    await this.#recall()
    this.#loop = repeat(
      async (signal) => {
        await clock.sleep(this.#pauseMs(), { signal })
        await this.#measure(signal)
      },
      { clock, onError: (error) => logger.debug('the uplink could not be measured', { error }) },
      { intervalMs: 0 }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    await loop?.stop()
  }

  /** To the next: from the last on, also if that was before a restart; sooner when it failed. */
  #pauseMs(): number {
    const { clock, random } = this.#components
    const { intervalMs, initialDelayMs } = this.#init
    const last = this.#kept.at(-1)
    const due = last === undefined ? 0 : last.at + intervalMs - clock.now()
    const least = this.#failures > 0 ? RETRY_MS * 2 ** (this.#failures - 1) : initialDelayMs
    return Math.round(Math.min(Math.max(due, least), intervalMs) * (1 + fraction(random) / 4))
  }

  async #measure(signal: AbortSignal): Promise<void> {
    const { principal, clock, random, sinks } = this.#components
    this.#failures += 1
    const others = sinks().filter((sink) => sink !== principal)
    const sink = others[Math.floor(fraction(random) * others.length)]
    if (sink === undefined) return
    const bps = await this.#send(sink, within(clock, SEND_MS_MAX + ANSWER_MS_MAX, signal))
    this.#failures = 0
    this.#kept = [...this.#kept, { at: clock.now(), bps }].slice(-KEPT)
    await this.#components.remembered.save(keptCodec.encode([...this.#kept]))
  }

  async #send(sink: Principal, signal: AbortSignal): Promise<number> {
    const { clock, callPeer } = this.#components
    const most = Math.min(this.#init.bytesMax, LIMITS.sinkBytesMax)
    let began = clock.monotonic()
    let sent = 0
    // oxlint-disable-next-line typescript/require-await -- the input of a call is asynchronous.
    async function* chunks(): AsyncGenerator<{ bytes: Uint8Array }> {
      began = clock.monotonic()
      while (sent + CHUNK.length <= most && clock.monotonic() - began < SEND_MS_MAX) {
        sent += CHUNK.length
        yield { bytes: CHUNK }
      }
    }
    const { bytes, micros } = await callPeer(sink)('sink', {}, { input: chunks(), signal })
    const own = (clock.monotonic() - began) * 1000
    if (bytes !== sent || sent === 0) {
      throw new SlicenetError('PROTOCOL_ERROR', `${sink} took ${bytes} of ${sent} bytes`)
    }
    // The time began with the first of them.
    const bits = (bytes - CHUNK.length) * 8
    return Math.floor((bits * 1e6) / Math.max(micros, own / BELIEVED_TIMES, 1))
  }

  async #recall(): Promise<void> {
    const { remembered, logger } = this.#components
    try {
      const bytes = await remembered.load()
      if (bytes !== undefined) this.#kept = keptCodec.decode(bytes)
    } catch (error) {
      logger.warn('what was measured of the uplink before is of no use', { error })
    }
  }
}
