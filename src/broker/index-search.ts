/**
 * Finding nodes that nobody has told of yet: the DHT's index names agents by what a query demands, and these are asked
 * for the adverts that match it. What they send is checked as every advert is; an agent that does not answer in time
 * costs nothing but that time.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { Directory } from '../peer/directory.ts'
import type { agentProtocol } from '../protocol/agent-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import type { Query } from '../query/query.ts'
import type { Principal } from '../ticket/principal.ts'

export interface IndexSearchComponents {
  readonly directory: Pick<Directory, 'findIndexed' | 'learn'>
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
  readonly clock: Clock
  readonly logger: Logger
}

export interface Evaluation<T> {
  /** How many matches are enough. */
  readonly wanted: number
  readonly run: () => Promise<T>
  readonly matches: (result: T) => number
}

/** The same demands are looked up so often at most: look-ups are dear, and the directory hears what changes meanwhile. */
const AGAIN_MS = 60_000
const REMEMBERED_MAX = 64
const AGENTS_AT_ONCE = 8

export class IndexSearch {
  readonly #components: IndexSearchComponents
  readonly #callMs: number
  /** When each set of demands was looked up last, on the monotonic clock. */
  readonly #searched = new Map<string, number>()

  constructor(components: IndexSearchComponents, init: { readonly callMs: number }) {
    this.#components = components
    this.#callMs = init.callMs
  }

  /**
   * Evaluates, and where too few nodes match, again when those that the index names were asked; else they are asked behind
   * the back of whoever waits, for the next time. Throws the signal's reason.
   */
  async evaluate<T>(
    query: Query,
    { wanted, run, matches }: Evaluation<T>,
    options: { readonly signal?: AbortSignal } = {}
  ): Promise<T> {
    const result = await run()
    if (matches(result) < wanted) return (await this.search(query, options)) ? run() : result
    this.search(query).catch((error: unknown) =>
      this.#components.logger.debug('the index was not searched', { error })
    )
    return result
  }

  /**
   * Resolves when the agents that the index names have answered or had their time; gives whether any was asked. Asks none
   * for a query without demands, and when the same was looked up a moment ago. Throws the signal's reason.
   */
  async search({ text, demands }: Query, options: { readonly signal?: AbortSignal } = {}): Promise<boolean> {
    const { clock, directory } = this.#components
    const name = JSON.stringify([text, demands])
    const last = this.#searched.get(name)
    if (demands.length === 0 || (last !== undefined && clock.monotonic() - last < AGAIN_MS)) return false
    this.#remember(name, clock.monotonic())
    const agents = await directory.findIndexed(demands, options)
    const waiting = agents[Symbol.iterator]()
    const work = Array.from({ length: AGENTS_AT_ONCE }, async () => {
      for (const agent of waiting) await this.#ask(agent, text, options.signal)
    })
    await Promise.all(work)
    options.signal?.throwIfAborted()
    return agents.length > 0
  }

  async #ask(agent: Principal, query: string, signal: AbortSignal | undefined): Promise<void> {
    const { callAgent, clock, directory, logger } = this.#components
    const enough = new AbortController()
    const limit = within(clock, this.#callMs, signal)
    let heard = 0
    try {
      await callAgent(agent)(
        'getAds',
        { query },
        {
          signal: AbortSignal.any([limit, enough.signal]),
          onItem({ advert }) {
            heard += 1
            if (heard > LIMITS.indexedAdvertsMax) enough.abort(new Error('enough adverts'))
            else directory.learn(advert)
          }
        }
      )
    } catch (error) {
      logger.debug('an agent that the index names did not answer', { agent, error })
    }
  }

  #remember(name: string, at: number): void {
    this.#searched.delete(name)
    this.#searched.set(name, at)
    const [oldest] = this.#searched.keys()
    if (this.#searched.size > REMEMBERED_MAX && oldest !== undefined) this.#searched.delete(oldest)
  }
}
