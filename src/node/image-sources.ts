/**
 * Which nodes say that they have an image: those whose adverts this peer knows, else those that agents know of, for a node
 * gathers no adverts itself.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import { within } from '../base/time-limit.ts'
import type { Directory } from '../peer/directory.ts'
import type { PeerHost } from '../peer/host.ts'
import { agentProtocol } from '../protocol/agent-protocol.ts'
import { advertisementObject, type Advertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'

export interface ImageSourcesComponents {
  readonly host: Pick<PeerHost, 'principal' | 'caller' | 'addAddresses'>
  readonly directory: Pick<Directory, 'entries' | 'refresh' | 'findAgents'>
  readonly clock: Clock
  /** Those that this peer delegates to. */
  readonly agents: readonly Principal[]
}

const AGENT_MS = 10_000

export async function imageSources(
  components: ImageSourcesComponents,
  image: string,
  signal: AbortSignal
): Promise<Principal[]> {
  const { directory, agents } = components
  const sources = new Set<Principal>()
  const note = async (advert: Advertisement): Promise<void> => noteSource(components, sources, image, advert)
  for (const { advert } of directory.entries()) await note(advert.body)
  if (sources.size > 0) return [...sources]
  await directory.refresh({ signal })
  for (const { advert } of directory.entries()) await note(advert.body)
  if (sources.size > 0) return [...sources]
  const asked = new Set(agents)
  const ask = async (all: readonly Principal[]): Promise<void> => {
    await Promise.all(all.map(async (agent) => askAgent(components, agent, note, signal)))
  }
  await ask(agents)
  if (sources.size > 0) return [...sources]
  const others = (await directory.findAgents({ signal })).filter((agent) => !asked.has(agent))
  await ask(others.slice(0, LIMITS.agentsAskedMax))
  return [...sources]
}

async function noteSource(
  { host, clock }: ImageSourcesComponents,
  sources: Set<Principal>,
  image: string,
  advert: Advertisement
): Promise<void> {
  if (advert.role !== 'node' || advert.leaving === true || advert.issuer === host.principal) return
  if (advert.notAfter <= clock.now()) return
  if (sources.size >= LIMITS.imageSourcesMax || !Object.values(advert.images).includes(image)) return
  await host.addAddresses(advert.issuer, advert.multiaddrs)
  sources.add(advert.issuer)
}

/** An agent that does not answer knows of none. */
async function askAgent(
  { host, clock }: ImageSourcesComponents,
  agent: Principal,
  note: (advert: Advertisement) => Promise<void>,
  signal: AbortSignal
): Promise<void> {
  const enough = new AbortController()
  const until = AbortSignal.any([within(clock, AGENT_MS, signal), enough.signal])
  let heard = 0
  const onItem = async (offer: { readonly advert: Uint8Array }): Promise<void> => {
    if (++heard > LIMITS.indexedAdvertsMax) enough.abort(new Error('enough was heard'))
    else await note(advertisementObject.open(offer.advert).body)
  }
  try {
    await host.caller(agentProtocol, agent)('getAds', {}, { onItem, signal: until })
  } catch {
    signal.throwIfAborted()
  }
}
