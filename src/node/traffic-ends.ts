/**
 * Has the traffic of each vserver end when its lease does, whether or not the daemon is there to see to it: the network is
 * told the end of every lease, and told anew when one is renewed.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { LeaseRecord } from './lease-table.ts'

export interface TrafficEndsComponents {
  readonly manager: {
    readonly table: { holding(): readonly Pick<LeaseRecord, 'lease' | 'state'>[] }
    onChange(listener: () => void): () => void
  }
  /** Takes the ends of all, UTC ms by the vserver's inside address. */
  readonly set: (ends: ReadonlyMap<string, number>) => Promise<void>
  /** The inside address of a vserver that has one. */
  readonly addressOf: (vserver: string) => string | undefined
  /** Whether vservers have IPv6 now: once they have, the ends of all are told of it as well. */
  readonly hasSix: () => boolean
  readonly clock: Clock
  readonly logger: Logger
}

/** A renewal, or that vservers have IPv6, is told within this: one that comes later before the end than that costs as much. */
const LOOK_INTERVAL_MS = 1000

export class TrafficEnds implements Startable {
  readonly #c: TrafficEndsComponents
  #loop: { stop(): Promise<void> } | undefined
  #unsubscribe = (): void => {}
  #told = ''
  /** When those that are ended before their time were first seen to be; UTC ms, by lease. */
  readonly #ending = new Map<string, number>()
  #last: Promise<void> = Promise.resolve()

  constructor(components: TrafficEndsComponents) {
    this.#c = components
  }

  /** The node manager must have started. */
  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { clock, logger, manager } = this.#c
    const onError = (error: unknown): void =>
      logger.error('the network does not know when leases end', { error })
    await this.#tell()
    this.#unsubscribe = manager.onChange(() => void this.#tell().catch(onError))
    this.#loop = repeat(async () => this.#tell(), { clock, onError }, { intervalMs: LOOK_INTERVAL_MS })
  }

  /** The kernel keeps what it was told. */
  async stop(): Promise<void> {
    this.#unsubscribe()
    await this.#loop?.stop()
    this.#loop = undefined
    await this.#last.catch(() => {})
    this.#told = ''
  }

  async #tell(): Promise<void> {
    const tell = async (): Promise<void> => {
      const ends = this.#ends()
      const told = JSON.stringify([this.#c.hasSix(), ...ends])
      if (told === this.#told) return
      await this.#c.set(ends)
      this.#told = told
    }
    this.#last = this.#last.then(tell, tell)
    await this.#last
  }

  #ends(): Map<string, number> {
    const ends = new Map<string, number>()
    const holding = this.#c.manager.table.holding()
    for (const { lease, state } of holding) {
      const { vserver, notAfter } = lease.body
      const address = this.#c.addressOf(vserver)
      if (state === 'ending' && !this.#ending.has(lease.id)) this.#ending.set(lease.id, this.#c.clock.now())
      const end = Math.min(notAfter, this.#ending.get(lease.id) ?? notAfter)
      if (address !== undefined) ends.set(address, Math.max(end, ends.get(address) ?? 0))
    }
    const ids = new Set(holding.map(({ lease }) => lease.id))
    for (const id of this.#ending.keys()) if (!ids.has(id)) this.#ending.delete(id)
    return ends
  }
}
