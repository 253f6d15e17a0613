/** What an agent says of itself, now and then and as soon as it changed, and its listening to where its nodes are. */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { waitAtMost } from '../base/time-limit.ts'
import type { Directory } from '../peer/directory.ts'
import { AGENTS_TOPIC, indexTopic, organisationTopic, regionTopic } from '../peer/topics.ts'
import {
  advertisementObject,
  type Advertisement,
  type AgentAdvertisement,
  type NodeAdvertisement
} from '../ticket/advertisement.ts'
import { indexKeysOf } from '../ticket/index-term.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { listenTo, type Places } from './listening.ts'

const CHANGE_POLL_MS = 500

type Said = Pick<AgentAdvertisement, 'nodes' | 'leaving'>
/** An agent that goes waits so long at most until that is told. */
const LEAVE_MS = 1500

export interface AgentAdvertisingComponents {
  readonly key: SigningKey
  readonly directory: Directory
  readonly clock: Clock
  readonly logger: Logger
  /** Nodes whose delegation it holds now. */
  readonly served: () => readonly Principal[]
  readonly multiaddrs: () => readonly string[]
  /** What else it says, such as whom it serves. */
  readonly more: () => Partial<AgentAdvertisement>
}

export interface AgentAdvertisingInit {
  readonly name: string
  readonly epoch: number
  readonly attributes: AgentAdvertisement['attributes']
  readonly intervalMs: number
  readonly lifetimeMs: number
}

export class AgentAdvertising implements Startable {
  readonly #components: AgentAdvertisingComponents
  readonly #init: AgentAdvertisingInit
  #said = { at: -Infinity, what: '' }
  #places: Places = { regions: [], organisations: [] }
  #loop: { stop(): Promise<void> } | undefined
  #seq = 0

  constructor(components: AgentAdvertisingComponents, init: AgentAdvertisingInit) {
    this.#components = components
    this.#init = init
  }

  // oxlint-disable-next-line typescript/require-await -- the interface is asynchronous.
  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { directory, clock, logger } = this.#components
    directory.announceAgent()
    this.#loop = repeat(
      async () => this.#advertise(),
      { clock, onError: (error) => logger.warn('advertising failed', { error }) },
      { intervalMs: CHANGE_POLL_MS }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    await loop?.stop()
    if (loop !== undefined && this.#seq > 0) await this.#leave()
  }

  async #leave(): Promise<void> {
    const { clock, logger } = this.#components
    const telling = this.#publish({ nodes: 0, leaving: true }).catch((error: unknown) =>
      logger.debug('the leaving was not told', { error })
    )
    await waitAtMost(clock, LEAVE_MS, telling)
  }

  async #advertise(): Promise<void> {
    const { directory, clock, served } = this.#components
    const nodes = served()
    const adverts = nodes.flatMap((node) => {
      const body = directory.get(node, 'node')?.advert.body
      return body?.role === 'node' ? [body] : []
    })
    const places = {
      regions: valuesOf(adverts, 'region'),
      organisations: valuesOf(adverts, 'organisation')
    }
    listenTo(directory, places)
    const { accepts, memberships } = this.#components.more()
    const what = JSON.stringify([nodes.length, places, accepts, memberships?.length])
    const due = clock.monotonic() - this.#said.at >= this.#init.intervalMs
    if (!due && what === this.#said.what) return
    this.#said = { at: clock.monotonic(), what }
    directory.announceAgent(indexKeysOf(adverts, LIMITS.rendezvousKeysMax - 1).map(indexTopic))
    this.#places = places
    await this.#publish({ nodes: nodes.length })
  }

  async #publish(said: Said): Promise<void> {
    const advert = this.#sign(said, this.#init.lifetimeMs)
    // oxlint-disable-next-line typescript/require-await -- nodes make theirs asynchronously.
    const record = async (): Promise<Signed<Advertisement>> => this.#sign(said, LIMITS.advertLifetimeMsMax)
    await this.#components.directory.publish(advert, { topics: topicsOf(this.#places), agents: [], record })
  }

  #sign(said: Said, lifetimeMs: number): Signed<Advertisement> {
    const { key, clock, multiaddrs, more } = this.#components
    const { name, epoch, attributes } = this.#init
    const now = clock.now()
    this.#seq = Math.max(this.#seq + 1, now)
    const advert = advertisementObject.sign(
      {
        role: 'agent',
        issuer: key.principal,
        notBefore: now,
        notAfter: now + lifetimeMs,
        seq: this.#seq,
        name,
        epoch,
        multiaddrs: [...multiaddrs()],
        attributes,
        regions: [...this.#places.regions],
        organisations: [...this.#places.organisations],
        ...said,
        ...more()
      },
      key
    )
    return advert
  }
}

/** Who looks for agents anywhere listens to the first, those who serve the same places to the others. */
function topicsOf({ regions, organisations }: Places): string[] {
  return [
    AGENTS_TOPIC,
    ...regions.slice(0, LIMITS.topicsPerAgentMax).map(regionTopic),
    ...organisations.slice(0, LIMITS.topicsPerAgentMax).map(organisationTopic)
  ]
}

function valuesOf(adverts: readonly NodeAdvertisement[], attribute: string): string[] {
  const values = adverts
    .map(({ attributes }) => attributes[attribute])
    .filter((value) => typeof value === 'string')
  return [...new Set(values)].sort().slice(0, 64)
}
