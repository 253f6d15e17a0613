/** Notices within seconds that an uplink of the node came, went away, came back as another device, or has another address or no queue. */
import { asSlicenetError } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { Uplink } from './uplink.ts'

export interface UplinkWatchComponents {
  readonly logger: Logger
  /** What it is called while nobody knows which device it is. */
  readonly name: string
  /** What the uplink is now; throws where there is none. */
  readonly find: () => Promise<Uplink>
  /** Whether its queue is the node's. */
  readonly isShaped: (uplink: Uplink) => Promise<boolean>
  /** Puts rules and queues in place for another uplink. */
  readonly renew: (uplink: Uplink) => Promise<void>
  /** Lets nothing more leave by one that is not as it was and cannot be put in place. */
  readonly shut: (uplink: Uplink) => Promise<void>
}

export class UplinkWatch {
  readonly #components: UplinkWatchComponents
  /** What was said last, so that it is said once. */
  #trouble: string | undefined

  constructor(components: UplinkWatchComponents) {
    this.#components = components
  }

  /** Whether it was not there, or could not be used, at the last look. */
  get isAway(): boolean {
    return this.#trouble !== undefined
  }

  /** Why. */
  get trouble(): string | undefined {
    return this.#trouble
  }

  /** Looks once. `known`: the uplink that rules and queues are for, where it ever was there. */
  async look(known: Uplink | undefined): Promise<void> {
    const { logger, find, renew } = this.#components
    try {
      const found = await find()
      if (known === undefined) {
        await renew(found)
        logger.warn('an uplink has come', { uplink: found.device, address: found.address })
      } else {
        await this.#follow(known, found)
      }
      this.#trouble = undefined
    } catch (error) {
      this.miss(error, known)
    }
  }

  /** Says why it is not there, unless that was said last. */
  miss(error: unknown, known?: Uplink): void {
    const { logger, name } = this.#components
    const { message } = asSlicenetError(error)
    if (message !== this.#trouble) {
      const about = known === undefined ? { uplink: name } : { uplink: known.device, address: known.address }
      logger.error('an uplink is not there, or cannot be used', { ...about, error })
    }
    this.#trouble = message
  }

  async #renew(known: Uplink, found: Uplink): Promise<void> {
    const { renew, shut } = this.#components
    try {
      await renew(found)
    } catch (error) {
      await shut(known)
      throw error
    }
  }

  async #follow(known: Uplink, found: Uplink): Promise<void> {
    const { logger, isShaped } = this.#components
    const about = { uplink: known.device, address: known.address }
    const isSame = (['device', 'ifindex', 'address', 'address6'] as const).every(
      (name) => found[name] === known[name]
    )
    const hasSameNeighbours = String(found.neighbours6) === String(known.neighbours6)
    const isWhole = await isShaped(found)
    // One that was away may have come back without its rules, whatever it looks like.
    if (!isSame || !hasSameNeighbours || !isWhole || this.isAway) await this.#renew(known, found)
    if (!isSame) {
      logger.error('an uplink has changed; leases that run name the address before', {
        before: about,
        after: { uplink: found.device, address: found.address }
      })
    } else if (this.isAway) {
      logger.warn('an uplink is back', about)
    } else if (!isWhole) {
      logger.warn('somebody took the queue of an uplink away; it is shaped again', about)
    }
  }
}
