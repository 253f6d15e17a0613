/**
 * How one who looks for nodes hears of them: agents are found through the DHT now and then, and where they say that they
 * serve nodes is listened to for as long as one of them says so. Agents are strangers: each has only so many places. An
 * agent finds the others only, and listens to where its own nodes are.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { DirectoryEntry } from '../peer/advert-table.ts'
import type { Directory } from '../peer/directory.ts'
import { AGENTS_TOPIC, indexTopic, organisationTopic, regionTopic } from '../peer/topics.ts'
import type { Advertisement } from '../ticket/advertisement.ts'
import { indexKey } from '../ticket/index-term.ts'
import type { Principal } from '../ticket/principal.ts'

const LOOK_MS = 2500
/** Between the first two searches, and all while none is known; then twice as long each time, up to the last. */
const FIND_AGENTS_FIRST_MS = 5_000
const FIND_AGENTS_MS_MAX = 120_000

export interface ListeningComponents {
  readonly directory: Pick<Directory, 'subscribe' | 'unsubscribe' | 'on' | 'findAgents'>
  readonly clock: Clock
  readonly logger: Logger
}

export interface ListeningInit {
  /** Whether to hear of all agents, and of the nodes of all. */
  readonly everywhere: boolean
  /** Under what the DHT is asked for agents, at each round; for all of them when absent. */
  readonly topic?: (round: number) => string | undefined
}

/** Of an agent: by turns where its own nodes are, as its own advert says; so it finds those who serve the same places. */
export function ownPlaces(
  directory: Pick<Directory, 'get'>,
  principal: Principal
): (round: number) => string | undefined {
  return (round) => {
    const own = directory.get(principal, 'agent')?.advert.body
    if (own?.role !== 'agent' || own.regions.length === 0) return undefined
    const region = own.regions[round % own.regions.length]
    const key = region === undefined ? undefined : indexKey({ attribute: 'region', equals: region })
    return key === undefined ? undefined : indexTopic(key)
  }
}

export function listening(components: ListeningComponents, init: ListeningInit): Startable {
  return new Listening(components, init)
}

export interface Places {
  readonly regions: readonly string[]
  readonly organisations: readonly string[]
}

/** Listens to the adverts of places, as far as there is room. */
export function listenTo(directory: Pick<Directory, 'subscribe'>, { regions, organisations }: Places): void {
  for (const region of regions) directory.subscribe(regionTopic(region))
  for (const organisation of organisations) directory.subscribe(organisationTopic(organisation))
}

class Listening implements Startable {
  readonly #components: ListeningComponents
  readonly #init: ListeningInit
  /** What each agent's newest advert names, as far as it is listened to. */
  readonly #places = new Map<Principal, ReadonlySet<string>>()
  readonly #unsubscribe: (() => void)[] = []
  #loop: { stop(): Promise<void> } | undefined
  #rounds = 0
  /** On the monotonic clock. */
  #dueAt = -Infinity
  #waitMs = FIND_AGENTS_FIRST_MS
  #hadPlace = false

  constructor(components: ListeningComponents, init: ListeningInit) {
    this.#components = components
    this.#init = init
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { directory, clock, logger } = this.#components
    if (this.#init.everywhere) {
      directory.subscribe(AGENTS_TOPIC)
      this.#followAgents()
    }
    this.#loop = repeat(
      async (signal) => this.#look(signal),
      { clock, onError: (error) => logger.debug('looking for agents failed', { error }) },
      { intervalMs: LOOK_MS }
    )
  }

  /** Looks for agents when it is time: soon after the start, or once it has places, and then ever more rarely. */
  async #look(signal: AbortSignal): Promise<void> {
    const { directory, clock } = this.#components
    const topic = this.#init.topic?.(this.#rounds)
    const isPlaced = topic !== undefined
    if (isPlaced && !this.#hadPlace) this.#waitMs = FIND_AGENTS_FIRST_MS
    else if (clock.monotonic() < this.#dueAt) return
    this.#hadPlace ||= isPlaced
    this.#rounds += 1
    const agents = await directory.findAgents({ ...(isPlaced ? { topic } : {}), signal })
    this.#dueAt = clock.monotonic() + this.#waitMs
    if (agents.length > 0) this.#waitMs = Math.min(this.#waitMs * 2, FIND_AGENTS_MS_MAX)
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    for (const unsubscribe of this.#unsubscribe.splice(0)) unsubscribe()
    await loop?.stop()
  }

  #followAgents(): void {
    const { directory } = this.#components
    this.#unsubscribe.push(
      directory.on('update', ({ advert }) => this.#listen(advert.body.issuer, topicsOf(advert.body))),
      directory.on('expire', ({ advert }: DirectoryEntry) => {
        if (advert.body.role === 'agent') this.#listen(advert.body.issuer, new Set())
      })
    )
  }

  /** `topics`: `undefined` where the advert is no agent's. */
  #listen(agent: Principal, topics: ReadonlySet<string> | undefined): void {
    if (topics === undefined) return
    const { directory } = this.#components
    const before = this.#places.get(agent) ?? new Set<string>()
    const heard = [...topics].filter((topic) => directory.subscribe(topic))
    if (heard.length > 0) this.#places.set(agent, new Set(heard))
    else this.#places.delete(agent)
    const gone = [...before].filter((topic) => !topics.has(topic))
    for (const topic of gone) if (!this.#isNamed(topic)) directory.unsubscribe(topic)
  }

  #isNamed(topic: string): boolean {
    return this.#places.values().some((topics) => topics.has(topic))
  }
}

function topicsOf(body: Advertisement): ReadonlySet<string> | undefined {
  if (body.role !== 'agent') return undefined
  return new Set([
    ...body.regions.slice(0, LIMITS.topicsPerAgentMax).map(regionTopic),
    ...body.organisations.slice(0, LIMITS.topicsPerAgentMax).map(organisationTopic)
  ])
}
