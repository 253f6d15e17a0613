/**
 * Agents are found in the DHT as providers of a topic: of the topic of all agents, and of the regions and
 * organisations that they serve.
 */
import { createHash } from 'node:crypto'
import { CID } from 'multiformats/cid'
import * as digest from 'multiformats/hashes/digest'
import type { Principal } from '../ticket/principal.ts'
import { dhtError } from './dht-records.ts'
import type { PeerServices } from './libp2p-options.ts'

const RAW_CODE = 0x55
const SHA2_256_CODE = 0x12
/** A search that has found somebody waits so long for more. */
const SETTLE_MS = 1500

function rendezvousKey(topic: string): CID {
  const hash = createHash('sha256').update(`slicenet/rendezvous/v1${topic}`).digest()
  return CID.createV1(RAW_CODE, digest.create(SHA2_256_CODE, hash))
}

/** Tells the DHT that this peer is to be found under the topic; gives the number of peers told. */
export async function announce(
  dht: PeerServices['dht'],
  topic: string,
  options: { signal: AbortSignal }
): Promise<number> {
  let told = 0
  try {
    for await (const event of dht.provide(rendezvousKey(topic), options)) {
      if (event.name === 'PEER_RESPONSE' && event.messageName === 'ADD_PROVIDER') told += 1
    }
  } catch (error) {
    if (told === 0) throw dhtError(error)
  }
  return told
}

export interface Provider {
  readonly principal: Principal
  readonly multiaddrs: readonly string[]
}

/** Whom the DHT knows under the topic, at most `max`. Anybody can announce: only their adverts tell what they are. */
export async function findProviders(
  dht: PeerServices['dht'],
  topic: string,
  options: { max: number; signal: AbortSignal }
): Promise<Provider[]> {
  const found = new Map<Principal, Provider>()
  const settled = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const signal = AbortSignal.any([options.signal, settled.signal])
  try {
    for await (const event of dht.findProviders(rendezvousKey(topic), { signal })) {
      if (event.name !== 'PROVIDER') continue
      for (const { id, multiaddrs } of event.providers) {
        found.set(id.toString(), { principal: id.toString(), multiaddrs: multiaddrs.map(String) })
      }
      if (found.size >= options.max) break
      timer ??= setTimeout(() => settled.abort(new Error('found')), SETTLE_MS)
    }
  } catch (error) {
    if (found.size === 0) throw dhtError(error)
  } finally {
    clearTimeout(timer)
  }
  return [...found.values()].slice(0, options.max)
}
