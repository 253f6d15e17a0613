/** The overlay that a directory works over and that joining joins, as libp2p gives it. */
import { TopicValidatorResult } from '@libp2p/gossipsub'
import { peerIdFromString } from '@libp2p/peer-id'
import { CID } from 'multiformats/cid'
import * as digests from 'multiformats/hashes/digest'
import { rememberAddresses } from './calling.ts'
import type { JoiningNetwork } from './joining.ts'
import type { KnownPeer } from './known-peers.ts'
import type { PeerLibp2p, PeerServices } from './libp2p-options.ts'
import type { Judgement, OverlayDht, OverlayGossip, PeerWatcher } from './overlay.ts'

type PubSub = PeerServices['pubsub']
type Dht = PeerServices['dht']

/** What the class of gossipsub has beyond its interface: peers that can be sent to, by peer ID. */
interface OutboundStreams {
  readonly streamsOutbound: ReadonlyMap<string, unknown>
}

const JUDGEMENTS: Readonly<Record<Judgement, TopicValidatorResult>> = {
  accept: TopicValidatorResult.Accept,
  ignore: TopicValidatorResult.Ignore,
  reject: TopicValidatorResult.Reject
}

export function libp2pGossip(pubsub: PubSub): OverlayGossip {
  const { streamsOutbound } = pubsub as unknown as OutboundStreams
  return {
    audience(topic) {
      const listeners = pubsub.getSubscribers(topic)
      const atHand = listeners.filter((listener) => streamsOutbound.has(listener.toString())).length
      return { known: listeners.length, atHand }
    },
    publish: async (topic, bytes) => (await pubsub.publish(topic, bytes)).recipients.length,
    subscribe(topic, judge) {
      pubsub.topicValidators.set(topic, (from, { data }) => JUDGEMENTS[judge(data, from.toString())])
      pubsub.subscribe(topic)
    },
    unsubscribe(topic) {
      pubsub.topicValidators.delete(topic)
      pubsub.unsubscribe(topic)
    },
    onListener(listener) {
      pubsub.addEventListener('subscription-change', ({ detail }) => {
        for (const { topic, subscribe } of detail.subscriptions) if (subscribe) listener(topic)
      })
    },
    onHeartbeat: (listener) => pubsub.addEventListener('gossipsub:heartbeat', listener)
  }
}

const RAW_CODE = 0x55
const SHA2_256_CODE = 0x12

function cidOf(digest: Uint8Array): CID {
  return CID.createV1(RAW_CODE, digests.create(SHA2_256_CODE, digest))
}

export function libp2pDht(dht: Dht): OverlayDht {
  return {
    async *put(key, value, options) {
      for await (const event of dht.put(key, value, options)) {
        if (event.name === 'PEER_RESPONSE' && event.messageName === 'PUT_VALUE') yield event.from.toString()
      }
    },
    async *get(key, options) {
      for await (const event of dht.get(key, options)) {
        if (event.name === 'PEER_RESPONSE' && event.record !== undefined) yield event.record.value
        if (event.name === 'VALUE') yield event.value
      }
    },
    async *provide(digest, options) {
      for await (const event of dht.provide(cidOf(digest), options)) {
        if (event.name === 'PEER_RESPONSE' && event.messageName === 'ADD_PROVIDER')
          yield event.from.toString()
      }
    },
    withdraw: async (digest) => dht.cancelReprovide(cidOf(digest)),
    async *findProviders(digest, options) {
      for await (const event of dht.findProviders(cidOf(digest), options)) {
        if (event.name !== 'PROVIDER') continue
        const providers = event.providers.map(({ id, multiaddrs }) => ({
          principal: id.toString(),
          multiaddrs: multiaddrs.map(String)
        }))
        yield { by: event.from.toString(), providers }
      }
    }
  }
}

/** Tells of peers that speak a protocol, until the function given back is called. */
export async function watchLibp2pPeers(
  libp2p: PeerLibp2p,
  protocolId: string,
  watcher: PeerWatcher
): Promise<() => void> {
  const onDisconnect = ({ detail }: { detail: { toString(): string } }): void =>
    watcher.onLeave(detail.toString())
  libp2p.addEventListener('peer:disconnect', onDisconnect)
  const topology = await libp2p.register(protocolId, { onConnect: (peer) => watcher.onMeet(peer.toString()) })
  // Those that were quicker than this.
  for (const peer of libp2p.getPeers()) {
    const stored = await libp2p.peerStore.get(peer).catch(() => undefined)
    if (stored?.protocols.includes(protocolId) === true) watcher.onMeet(peer.toString())
  }
  return () => {
    libp2p.removeEventListener('peer:disconnect', onDisconnect)
    libp2p.unregister(topology)
  }
}

export function libp2pJoining(libp2p: PeerLibp2p): JoiningNetwork {
  return {
    principal: libp2p.peerId.toString(),
    isConnected: (principal) => libp2p.getConnections(peerIdFromString(principal)).length > 0,
    async dial({ principal, multiaddrs }, options) {
      await rememberAddresses(libp2p, principal, multiaddrs)
      await libp2p.dial(peerIdFromString(principal), options)
    },
    async neighbours(max) {
      const connected: KnownPeer[] = []
      for (const peer of libp2p.getPeers().slice(0, max)) {
        // A peer that left between the two calls is in the store no more.
        const stored = await libp2p.peerStore.get(peer).catch(() => undefined)
        const multiaddrs = stored?.addresses.map((address) => address.multiaddr.toString()) ?? []
        if (multiaddrs.length > 0) connected.push({ principal: peer.toString(), multiaddrs })
      }
      return connected
    },
    onDisconnect(listener) {
      const onDisconnect = (): void => listener()
      libp2p.addEventListener('peer:disconnect', onDisconnect)
      return () => libp2p.removeEventListener('peer:disconnect', onDisconnect)
    }
  }
}
