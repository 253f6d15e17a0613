/** Asking agents what they hold: offers of nodes, and what agents tell of nodes and of one another. */
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { within } from '../base/time-limit.ts'
import type { agentProtocol } from '../protocol/agent-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import { advertisementObject, type NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Candidate } from './choice.ts'
import type { Observations } from './observations.ts'

export interface AskingComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly callAgent: (agent: Principal) => Caller<typeof agentProtocol.methods>
  readonly observations: Observations
  readonly isProven: (principal: Principal) => boolean
  /** Which agents are asked about nodes. */
  readonly agentsFor: (nodes: readonly NodeAdvertisement[]) => readonly Principal[]
}

type Offered = Omit<Candidate['offers'][number], 'reliability'>

/** Numbers that were told of somebody, by whom. */
type Told = Map<Principal, Map<Principal, number>>

/**
 * What every agent offers of `nodes`, but for nodes and agents that were shown to cheat. An agent that does not answer
 * within `callMs` offers nothing.
 */
export async function askOffers(
  { clock, logger, callAgent, observations, isProven, agentsFor }: AskingComponents,
  nodes: readonly NodeAdvertisement[],
  callMs: number,
  signal?: AbortSignal
): Promise<Candidate[]> {
  const honest = nodes.filter(({ issuer }) => !isProven(issuer))
  // By node, then by agent: whoever says the same thing a thousand times is heard once.
  const offers = new Map(honest.map(({ issuer }) => [issuer, new Map<Principal, Offered>()]))
  const ofNodes: Told = new Map(honest.map(({ issuer }) => [issuer, new Map<Principal, number>()]))
  const asked = agentsFor(honest).filter((agent) => !isProven(agent))
  const ofAgents: Told = new Map(asked.map((agent) => [agent, new Map<Principal, number>()]))
  const ask = async (agent: Principal): Promise<void> => {
    const { ratings } = await callAgent(agent)(
      'getAds',
      {},
      {
        signal: within(clock, callMs, signal),
        onItem({ advert, available, until, reliability }) {
          const node = advertisementObject.open(advert).body.issuer
          offers.get(node)?.set(agent, { agent, available, until })
          ofNodes.get(node)?.set(agent, reliability)
        }
      }
    )
    for (const { agent: other, reliability } of ratings) {
      if (other !== agent) ofAgents.get(other)?.set(agent, reliability)
    }
  }
  await Promise.all(
    asked.map(async (agent) => {
      try {
        await ask(agent)
      } catch (error) {
        signal?.throwIfAborted()
        logger.debug('an agent did not say what it holds', { agent, error })
      }
    })
  )
  const now = clock.now()
  const agentRating = (agent: Principal): number =>
    observations.of('agent', agent, [...(ofAgents.get(agent)?.values() ?? [])], now)
  return honest.map(({ issuer, free }) => ({
    node: issuer,
    free,
    reliability: observations.of('node', issuer, [...(ofNodes.get(issuer)?.values() ?? [])], now),
    offers: [...(offers.get(issuer)?.values() ?? [])].map((offer) => ({
      ...offer,
      reliability: agentRating(offer.agent)
    }))
  }))
}
