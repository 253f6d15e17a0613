/**
 * Agents are found in the DHT as providers of a topic: of the topic of all agents, and of the regions and
 * organisations that they serve.
 */
import { createHash } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import { Patience } from '../base/time-limit.ts'
import type { Principal } from '../ticket/principal.ts'
import { dhtError } from './dht-records.ts'
import type { OverlayDht, Provider } from './overlay.ts'

/** A search that has found somebody waits so long for more. */
const SETTLE_MS = 1500

function rendezvousKey(topic: string): Uint8Array {
  return createHash('sha256').update(`slicenet/rendezvous/v1${topic}`).digest()
}

/** Tells the DHT that this peer is to be found under the topic; gives the number of peers told. */
export async function announce(
  dht: OverlayDht,
  topic: string,
  options: { signal: AbortSignal }
): Promise<number> {
  let told = 0
  try {
    for await (const _peer of dht.provide(rendezvousKey(topic), options)) told += 1
  } catch (error) {
    if (told === 0) throw dhtError(error)
  }
  return told
}

/** Whom the DHT knows under the topic, at most `max`. Anybody can announce: only their adverts tell what they are. */
export async function findProviders(
  components: { readonly clock: Clock },
  dht: OverlayDht,
  topic: string,
  options: { max: number; signal: AbortSignal }
): Promise<Provider[]> {
  const found = new Map<Principal, Provider>()
  using patience = new Patience(components, SETTLE_MS, options.signal)
  try {
    for await (const providers of dht.findProviders(rendezvousKey(topic), { signal: patience.signal })) {
      for (const provider of providers) found.set(provider.principal, provider)
      if (found.size >= options.max) break
      patience.shorten()
    }
  } catch (error) {
    if (found.size === 0) throw dhtError(error)
  }
  return [...found.values()].slice(0, options.max)
}
