/**
 * Which adverts a peer gathers: all, or those of the topics it listens to and of nodes that delegate to it. Peers that
 * exchange adverts tell each other, so that nobody is sent what it does not care for.
 */
import type { Advertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { AGENTS_TOPIC, organisationTopic, regionTopic } from './topics.ts'

/** Topics, or `undefined` for everything. */
export type Interests = readonly string[] | undefined

/** Gives what says whether an advert matters to `principal`, who has these interests. */
export function mattersTo(
  principal: Principal | undefined,
  interests: Interests
): (advert: Advertisement) => boolean {
  if (interests === undefined) return () => true
  const topics = new Set(interests)
  return (advert) => {
    if (advert.role === 'agent') {
      return (
        topics.has(AGENTS_TOPIC) ||
        advert.regions.some((place) => topics.has(regionTopic(place))) ||
        advert.organisations.some((place) => topics.has(organisationTopic(place)))
      )
    }
    const { region, organisation } = advert.attributes
    return (
      (typeof region === 'string' && topics.has(regionTopic(region))) ||
      (typeof organisation === 'string' && topics.has(organisationTopic(organisation))) ||
      (principal !== undefined && advert.agents.includes(principal))
    )
  }
}
