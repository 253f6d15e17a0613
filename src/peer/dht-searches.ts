/** What a directory asks the DHT: the advert of a principal by its key, and who is named under a topic or the index. */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { Principal } from '../ticket/principal.ts'
import { advertKey, type AdvertRole, type AdvertTable, type DirectoryEntry } from './advert-table.ts'
import { lookupAdvert } from './dht-records.ts'
import type { DirectoryHost } from './overlay.ts'
import { findProviders } from './rendezvous.ts'
import { indexTopic } from './topics.ts'

const LOOKUP_MS = 10_000
const ROLES = ['node', 'agent'] as const

export interface DhtSearchesComponents {
  readonly host: Pick<DirectoryHost, 'principal' | 'dht' | 'addAddresses'>
  readonly clock: Clock
  readonly logger: Logger
  readonly table: AdvertTable
}

export class DhtSearches {
  readonly #components: DhtSearchesComponents

  constructor(components: DhtSearchesComponents) {
    this.#components = components
  }

  /** See `Directory.lookup`. */
  async lookup(
    principal: Principal,
    { role, signal: outer }: { readonly role?: AdvertRole; readonly signal?: AbortSignal }
  ): Promise<DirectoryEntry | undefined> {
    const { clock, host, table } = this.#components
    const roles: readonly AdvertRole[] = role === undefined ? ROLES : [role]
    const known = (): DirectoryEntry | undefined =>
      roles.map((each) => table.get(advertKey(principal, each))).find((entry) => entry !== undefined)
    const found = new AbortController()
    const signal = AbortSignal.any([within(clock, LOOKUP_MS, outer), found.signal])
    const searches = roles.map(async (each) => {
      await lookupAdvert(this.#components, host.dht, { principal, role: each }, { signal })
      // The other role's search would go on to its end for nothing.
      if (known() !== undefined) found.abort(new Error('found'))
    })
    const failed = (await Promise.allSettled(searches)).find((search) => search.status === 'rejected')
    outer?.throwIfAborted()
    const entry = known()
    if (entry === undefined && failed !== undefined) throw failed.reason
    return entry
  }

  /** Others whom the DHT names under a topic, none where it does not answer. */
  async named(topic: string, signal: AbortSignal): Promise<Principal[]> {
    const { host, clock, logger } = this.#components
    try {
      const providers = await findProviders({ clock }, host.dht, topic, {
        max: LIMITS.agentsFoundMax,
        signal
      })
      const others = providers.filter(({ principal }) => principal !== host.principal)
      for (const { principal, multiaddrs } of others) await host.addAddresses(principal, multiaddrs)
      return others.map(({ principal }) => principal)
    } catch (error) {
      logger.debug('the DHT named nobody', { error })
      return []
    }
  }

  /** See `Directory.findIndexed`. */
  async indexed(
    demands: readonly (readonly string[])[],
    options: { readonly signal?: AbortSignal }
  ): Promise<Principal[]> {
    const signal = within(this.#components.clock, LOOKUP_MS, options.signal)
    let left = LIMITS.indexLookupsMax
    const lookups = demands.filter(({ length }) => (left -= length) >= 0)
    const named = await Promise.all(
      lookups.map(async (keys) => {
        const lists = await Promise.all(keys.map(async (key) => this.named(indexTopic(key), signal)))
        return new Set(lists.flat())
      })
    )
    options.signal?.throwIfAborted()
    const all = named.reduce((union, each) => union.union(each), new Set<Principal>())
    // An agent of very many places announces only those that most of its nodes are in.
    const common = named.reduce((rest, each) => rest.intersection(each), all)
    return [...(common.size > 0 ? common : all)].slice(0, LIMITS.agentsFoundMax)
  }
}
