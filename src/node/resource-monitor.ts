/**
 * The resource monitor (paper §4.2.1): says what the node has and what is free, in signed advertisements that live
 * minutes, now and then and whenever a lease was made or ended.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { waitAtMost } from '../base/time-limit.ts'
import type { Accepts } from '../ticket/accepts.ts'
import { advertisementObject, type Advertisement } from '../ticket/advertisement.ts'
import type { Coordinate } from '../ticket/coordinate.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import type { Right } from '../ticket/rights.ts'
import type { Resources } from '../ticket/resources.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { NodeManager } from './node-manager.ts'

export interface ResourceMonitorComponents {
  readonly key: SigningKey
  readonly manager: Pick<NodeManager, 'free' | 'onChange'>
  readonly clock: Clock
  readonly logger: Logger
  /** Content ids of the images here, by name. */
  readonly images: () => Promise<Readonly<Record<string, string>>>
  readonly agents: () => readonly Principal[]
  /** What it has delegated at most, of its capacity. */
  readonly delegatedPercent: () => number
  readonly multiaddrs: () => readonly string[]
  /** Attributes that say by what else it is reached. */
  readonly addressAttributes?: () => Readonly<Record<string, string>>
  /** Envelopes: who vouches for the node. */
  readonly memberships?: () => readonly Uint8Array[]
  /** Where the node is, and what else is measured, as attributes. */
  readonly measured?: () => Measured
  /** `record` makes one that is good for longer, for where adverts are put rarely. */
  readonly publish: (
    advert: Signed<Advertisement>,
    record: () => Promise<Signed<Advertisement>>
  ) => Promise<void>
}

export interface Measured {
  readonly coordinate?: Coordinate
  readonly attributes?: Readonly<Record<string, number>>
}

export interface ResourceMonitorInit {
  readonly name: string
  readonly epoch: number
  readonly capacity: Resources
  readonly attributes: Readonly<Record<string, string | number>>
  /** Whom it leases to; everybody when absent. */
  readonly accepts?: Accepts
  /** What it delegates to any of its agents. */
  readonly rights?: readonly Right[]
  /** The largest share of what is left on its uplink; default 1. */
  readonly egressShare?: number
  /** Who may hold administrative slices; nobody when absent. */
  readonly administrators?: readonly Principal[]
  readonly intervalMs: number
  /** How long an advert is good for; several intervals, so that one lost is no death. */
  readonly lifetimeMs: number
}

interface Leaving {
  readonly leaving?: true
}

/** Changes that come together are told together. */
const SETTLE_MS = 200
/** A node that goes waits so long at most until that is told. */
const LEAVE_MS = 1500

export class ResourceMonitor implements Startable {
  readonly #components: ResourceMonitorComponents
  readonly #init: ResourceMonitorInit
  #loop: { stop(): Promise<void> } | undefined
  #unsubscribe: (() => void) | undefined
  /** Aborts the report that waits its moment. */
  #pending: AbortController | undefined
  #seq = 0

  constructor(components: ResourceMonitorComponents, init: ResourceMonitorInit) {
    this.#components = components
    this.#init = init
  }

  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { manager, clock, logger } = this.#components
    this.#unsubscribe = manager.onChange(() => this.reportSoon())
    this.#loop = repeat(
      () => this.#report(),
      { clock, onError: (error) => logger.warn('advertising failed', { error }) },
      { intervalMs: this.#init.intervalMs }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    this.#unsubscribe?.()
    this.#pending?.abort()
    this.#pending = undefined
    await loop?.stop()
    if (loop !== undefined && this.#seq > 0) await this.#leave()
  }

  /** Reports within a moment; many calls make one report. */
  reportSoon(): void {
    if (this.#pending !== undefined || this.#loop === undefined) return
    const pending = new AbortController()
    this.#pending = pending
    void this.#reportAfterAll(pending)
  }

  async #reportAfterAll(pending: AbortController): Promise<void> {
    const { clock, logger } = this.#components
    try {
      await clock.sleep(SETTLE_MS, { signal: pending.signal })
      this.#pending = undefined
      await this.#report()
    } catch (error) {
      if (!pending.signal.aborted) logger.warn('advertising failed', { error })
    }
  }

  /** Says that the node is there no more, so that nobody counts on it until its advert runs out. */
  async #leave(): Promise<void> {
    const { clock, logger } = this.#components
    const telling = this.#report({ leaving: true }).catch((error: unknown) =>
      logger.debug('the leaving was not told', { error })
    )
    await waitAtMost(clock, LEAVE_MS, telling)
  }

  async #report(more: Leaving = {}): Promise<void> {
    const advert = await this.#sign(this.#init.lifetimeMs, more)
    await this.#components.publish(advert, async () => this.#sign(LIMITS.advertLifetimeMsMax, more))
  }

  async #sign(lifetimeMs: number, more: Leaving): Promise<Signed<Advertisement>> {
    const { key, manager, clock, images, agents, multiaddrs } = this.#components
    const memberships = this.#components.memberships?.() ?? []
    const { name, epoch, capacity, attributes, accepts, rights = [], administrators = [] } = this.#init
    const { egressShare = 1 } = this.#init
    const measured = this.#components.measured?.() ?? {}
    const now = clock.now()
    this.#seq = Math.max(this.#seq + 1, now)
    return advertisementObject.sign(
      {
        role: 'node',
        issuer: key.principal,
        notBefore: now,
        notAfter: now + lifetimeMs,
        seq: this.#seq,
        name,
        epoch,
        multiaddrs: [...multiaddrs()],
        attributes: {
          ...attributes,
          ...this.#components.addressAttributes?.(),
          ...measured.attributes
        },
        capacity,
        free: manager.free(),
        delegatedPercent: this.#components.delegatedPercent(),
        images: await images(),
        agents: [...agents()],
        ...(measured.coordinate === undefined ? {} : { coordinate: measured.coordinate }),
        ...(rights.length === 0 ? {} : { rights: [...rights] }),
        ...(egressShare === 1 ? {} : { egressShare }),
        ...(administrators.length === 0 ? {} : { administrators: [...administrators] }),
        ...(accepts === undefined ? {} : { accepts }),
        ...(memberships.length === 0 ? {} : { memberships: [...memberships] }),
        ...more
      },
      key
    )
  }
}
