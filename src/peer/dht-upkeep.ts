/**
 * Keeps in the DHT what this peer wants found there: its own adverts and, for agents, itself under their topics. Puts
 * each when it changes for the first time and then rarely, tries again when nobody took it.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import { putAdvert } from './dht-records.ts'
import type { OverlayDht } from './overlay.ts'
import { announce, withdraw } from './rendezvous.ts'
import type { Advertisement } from '../ticket/advertisement.ts'
import type { Signed } from '../ticket/signed-object.ts'

/** A walk through a slow overlay is cut off late: what was cut off is to be done again from its beginning. */
const OPERATION_MS_MAX = 60_000
const RETRY_MS = 5000
/** For each second that a failure took. Peers that are slow because of too many walks get fewer of them, not more. */
const RETRY_MS_PER_SECOND = 2000
/** A third of how long others keep it, and those who keep it may restart. */
const ANNOUNCE_INTERVAL_MS = LIMITS.providerLifetimeMs / 3
/**
 * Each announcement costs some 60 messages, and there is no hurry but with the first ones: where this peer is, which others
 * of the same places find it by.
 */
const FIRST_TOPICS = 3
const FIRST_PACE_MS = 3000

/** Makes an advert that is good until the next one is put: those of gossip live shorter than that. */
export type MakeRecord = () => Promise<Signed<Advertisement>>

export interface DhtUpkeepComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly dht: () => OverlayDht
}

const TOPIC_DUTY = 'topic '

/** Something kept in the DHT: what to do, and when it is due again. Times are of the monotonic clock. */
interface Duty {
  readonly run: (signal: AbortSignal) => Promise<number>
  readonly intervalMs: number
  dueAt: number
}

export class DhtUpkeep {
  readonly #components: DhtUpkeepComponents
  readonly #putIntervalMs: number
  readonly #duties = new Map<string, Duty>()
  readonly #adverts = new Map<string, { advert: Signed<Advertisement>; record: MakeRecord | undefined }>()
  #stopping = new AbortController()
  #wake: () => void = () => {}
  #running: Promise<void> | undefined

  constructor(components: DhtUpkeepComponents, init: { readonly putIntervalMs: number }) {
    this.#components = components
    this.#putIntervalMs = init.putIntervalMs
  }

  start(): void {
    this.#stopping = new AbortController()
    this.#running = this.#run(this.#stopping.signal)
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('stopped'))
    this.#wake()
    await this.#running
    this.#running = undefined
  }

  /** The newest of a key takes the place of the one before, when that is due. */
  advert(key: string, advert: Signed<Advertisement>, record?: MakeRecord): void {
    this.#adverts.set(key, { advert, record })
    this.#add(`advert ${key}`, this.#putIntervalMs, async (signal) => {
      const newest = this.#adverts.get(key) ?? { advert, record }
      const { body } = newest.advert
      // One that nobody renewed, or of one who leaves, is not worth a query.
      if (body.notAfter <= this.#components.clock.now() || body.leaving === true) return 1
      return putAdvert(this.#components.dht(), (await newest.record?.()) ?? newest.advert, { signal })
    })
  }

  /** Under which topics this peer is to be found from now on; the first are announced first, others are given up. */
  announce(topics: readonly string[]): void {
    const wanted = topics.slice(0, LIMITS.rendezvousKeysMax)
    const names = new Set(wanted.map((topic) => TOPIC_DUTY + topic))
    for (const name of this.#duties.keys()) {
      if (name.startsWith(TOPIC_DUTY) && !names.has(name)) this.#drop(name)
    }
    // Evenly over the interval, as they come again.
    const paceMs = ANNOUNCE_INTERVAL_MS / (wanted.length + 1)
    for (const [place, topic] of wanted.entries()) {
      const run = async (signal: AbortSignal): Promise<number> =>
        announce(this.#components.dht(), topic, { signal })
      const late = Math.max(0, place - FIRST_TOPICS + 1)
      const delayMs = Math.min(place, FIRST_TOPICS - 1) * FIRST_PACE_MS + late * paceMs
      this.#add(TOPIC_DUTY + topic, ANNOUNCE_INTERVAL_MS, run, delayMs)
    }
  }

  #add(name: string, intervalMs: number, run: Duty['run'], delayMs = 0): void {
    if (this.#duties.has(name)) return
    this.#duties.set(name, { run, intervalMs, dueAt: this.#components.clock.monotonic() + delayMs })
    this.#wake()
  }

  #drop(name: string): void {
    this.#duties.delete(name)
    if (this.#running === undefined) return
    withdraw(this.#components.dht(), name.slice(TOPIC_DUTY.length)).catch((error: unknown) =>
      this.#components.logger.debug('the DHT was not told', { error })
    )
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const now = this.#components.clock.monotonic()
      const due = [...this.#duties.values()].find(({ dueAt }) => dueAt <= now)
      if (due === undefined) {
        const next = Math.min(...[...this.#duties.values()].map(({ dueAt }) => dueAt), now + 60_000)
        await this.#pause(next - now, signal)
      } else {
        const isDone = await this.#tend(due, signal)
        const seconds = (this.#components.clock.monotonic() - now) / 1000
        due.dueAt = now + (isDone ? due.intervalMs : RETRY_MS + seconds * (1000 + RETRY_MS_PER_SECOND))
      }
    }
  }

  /** One at a time: these are the dearest things that an idle peer does. */
  async #tend(duty: Duty, signal: AbortSignal): Promise<boolean> {
    try {
      return (await duty.run(within(this.#components.clock, OPERATION_MS_MAX, signal))) > 0
    } catch (error) {
      if (!signal.aborted) this.#components.logger.debug('the DHT did not take it', { error })
      return false
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const woken = new AbortController()
    this.#wake = () => woken.abort(new Error('woken'))
    const either = AbortSignal.any([signal, woken.signal])
    await this.#components.clock.sleep(ms, { signal: either }).catch(() => {})
  }
}
