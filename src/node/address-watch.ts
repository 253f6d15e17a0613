/**
 * Has a node's advert said anew within seconds when the addresses in it change, of which nobody else tells: the kernel's are
 * looked at, as the uplinks are.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { SignerRate } from '../peer/signer-rate.ts'

const LOOK_MS = 1000
/** Of the adverts that others take of one signer; the rest are for leases, and for saying now and then that it is there. */
const PART = 1 / 2

export interface AddressWatchComponents {
  readonly clock: Clock
  readonly logger: Logger
  /** What an advert would say now, in any order. */
  readonly addresses: () => readonly string[]
  /** Has an advert made soon. */
  readonly report: () => void
}

export class AddressWatch implements Startable {
  readonly #components: AddressWatchComponents
  readonly #rate = new SignerRate({
    burst: LIMITS.advertsPerSignerBurst * PART,
    perMinute: LIMITS.advertsPerSignerPerMinute * PART
  })
  #said = ''
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: AddressWatchComponents) {
    this.#components = components
  }

  /** What there is now has been said, or is about to be. */
  // oxlint-disable-next-line typescript/require-await -- parts start asynchronously.
  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { clock, logger } = this.#components
    this.#said = this.#read()
    this.#loop = repeat(
      // oxlint-disable-next-line typescript/require-await -- a task is asynchronous.
      async () => this.#look(),
      { clock, onError: (error) => logger.error('the node’s addresses are not looked at', { error }) },
      { intervalMs: LOOK_MS, initialDelayMs: LOOK_MS }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    await loop?.stop()
  }

  #look(): void {
    const { clock, report } = this.#components
    const now = this.#read()
    // What changes too often is said once that is allowed, as it is then.
    if (now === this.#said || !this.#rate.take(clock.monotonic())) return
    this.#said = now
    report()
  }

  #read(): string {
    return [...new Set(this.#components.addresses())].sort().join(' ')
  }
}
