/** The topics of gossip. Those of adverts are also the keys that agents are found by in the DHT. */

/** Adverts of agents. Whoever brokers or serves as an agent subscribes to it. */
export const AGENTS_TOPIC = '/slicenet/ads/1/agents'

/** Under which peers that broker for others are found in the DHT. Nobody gossips on it. */
export const BROKERS_TOPIC = '/slicenet/brokers/1'

/** Proofs of fraud, which everybody listens to: they are rare. */
export const PROOFS_TOPIC = '/slicenet/proofs/1'

/** Under which the agents of nodes that meet a term are found in the DHT; `key` as of `indexKey`. Nobody gossips on it. */
export function indexTopic(key: string): string {
  return `/slicenet/index/1/${key}`
}

export function regionTopic(region: string): string {
  return `/slicenet/ads/1/region/${encodeURIComponent(region)}`
}

export function organisationTopic(organisation: string): string {
  return `/slicenet/ads/1/organisation/${encodeURIComponent(organisation)}`
}
