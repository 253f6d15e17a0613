/**
 * How one who looks for nodes hears of them: agents are found through the DHT now and then, and where they say that
 * they serve nodes is listened to.
 */
import type { Clock } from '../base/clock.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { Logger } from '../base/log.ts'
import type { Directory } from '../peer/directory.ts'
import { AGENTS_TOPIC, organisationTopic, regionTopic } from '../peer/topics.ts'

const FIND_AGENTS_INTERVAL_MS = 120_000
/** While none is known. */
const FIND_AGENTS_RETRY_MS = 5_000

export interface ListeningComponents {
  readonly directory: Directory
  readonly clock: Clock
  readonly logger: Logger
}

export function listening({ directory, clock, logger }: ListeningComponents): Startable {
  let loop: { stop(): Promise<void> } | undefined
  let unsubscribe = (): void => {}
  return {
    async start() {
      directory.subscribe(AGENTS_TOPIC)
      unsubscribe = directory.on('update', ({ advert: { body } }) => {
        if (body.role === 'agent') listenTo(directory, body, logger)
      })
      loop = repeat(
        async (signal) => {
          while ((await directory.findAgents({ signal })).length === 0) {
            await clock.sleep(FIND_AGENTS_RETRY_MS, { signal })
          }
        },
        { clock, onError: (error) => logger.debug('looking for agents failed', { error }) },
        { intervalMs: FIND_AGENTS_INTERVAL_MS }
      )
    },
    async stop() {
      unsubscribe()
      await loop?.stop()
    }
  }
}

export interface Places {
  readonly regions: readonly string[]
  readonly organisations: readonly string[]
}

/** Listens to the adverts of places, as many as a peer may: anybody can name more. */
export function listenTo(
  directory: Pick<Directory, 'subscribe'>,
  { regions, organisations }: Places,
  logger: Logger
): void {
  try {
    for (const region of regions) directory.subscribe(regionTopic(region))
    for (const organisation of organisations) directory.subscribe(organisationTopic(organisation))
  } catch (error) {
    logger.debug('not all places are listened to', { error })
  }
}
