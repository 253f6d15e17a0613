/**
 * Agents are found in the DHT as providers of a topic: of the topic of all agents, and of the terms of the index that
 * their nodes meet.
 */
import { createHash } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import { Patience } from '../base/time-limit.ts'
import type { Principal } from '../ticket/principal.ts'
import { dhtError } from './dht-records.ts'
import type { OverlayDht, Provider, ProvidersNamed } from './overlay.ts'

/** A search that has found somebody waits so long for more. */
const SETTLE_MS = 1500
/** Whoever names more providers than this is not heard to the end, nor more peers than that. */
const NAMED_BY_ONE_MAX = 32
const ANSWERS_MAX = 64

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

/** Has the DHT forget in time that this peer was to be found under the topic. */
export async function withdraw(dht: OverlayDht, topic: string): Promise<void> {
  await dht.withdraw(rendezvousKey(topic))
}

/**
 * Whom the DHT knows under the topic, at most `max`, those that most peers name first. Anybody can announce: only their
 * adverts tell what they are.
 */
export async function findProviders(
  components: { readonly clock: Clock },
  dht: OverlayDht,
  topic: string,
  options: { max: number; signal: AbortSignal }
): Promise<Provider[]> {
  // By whom they were named: a liar that answers twice is heard once.
  const answers = new Map<Principal, ProvidersNamed>()
  using patience = new Patience(components, SETTLE_MS, options.signal)
  try {
    for await (const answer of dht.findProviders(rendezvousKey(topic), { signal: patience.signal })) {
      answers.set(answer.by, answer)
      if (answers.size >= ANSWERS_MAX) break
      patience.shorten()
    }
  } catch (error) {
    if (answers.size === 0) throw dhtError(error)
  }
  return mostNamed([...answers.values()]).slice(0, options.max)
}

/**
 * Those that most peers name first, and of those named as often the first of each answer before the second of any: a
 * few liars can then neither crowd out those that the honest name nor fill the list.
 */
export function mostNamed(answers: readonly ProvidersNamed[]): Provider[] {
  const named = new Map<Principal, { provider: Provider; times: number; place: number }>()
  for (const { providers } of answers) {
    const once = new Map(providers.slice(0, NAMED_BY_ONE_MAX).map((one) => [one.principal, one]))
    for (const [place, provider] of [...once.values()].entries()) {
      const known = named.get(provider.principal)
      named.set(provider.principal, {
        provider: known?.provider ?? provider,
        times: (known?.times ?? 0) + 1,
        place: Math.min(known?.place ?? place, place)
      })
    }
  }
  return [...named.values()]
    .sort((a, b) => b.times - a.times || a.place - b.place)
    .map(({ provider }) => provider)
}
