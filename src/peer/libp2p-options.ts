/**
 * How libp2p is set up: TCP and relays, Noise, Yamux, identify, ping, kad-dht under a protocol of its own, gossipsub. Neither
 * of these two runs over relayed connections: their upkeep would eat what a relay lends for calls. Defaults that do not fit an overlay of few addresses, or that let strangers fill memory, are set here with the reason.
 */
import { createHash } from 'node:crypto'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { gossipsub, StrictNoSign, type GossipSub } from '@libp2p/gossipsub'
import { dcutr } from '@libp2p/dcutr'
import { identify, identifyPush, type Identify, type IdentifyPush } from '@libp2p/identify'
import type { PeerInfo } from '@libp2p/interface'
import { kadDHT, passthroughMapper, type KadDHT } from '@libp2p/kad-dht'
import type { ConnectionGater } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping, type Ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import type { Libp2p, Libp2pOptions } from 'libp2p'
import { LIMITS } from '../base/limits.ts'
import type { SigningKey } from '../ticket/principal.ts'
import type { AnnouncedAddresses } from './announced-addresses.ts'
import { BoundedDatastore } from './bounded-datastore.ts'
import { listenAddressConfirmer } from './listen-addresses.ts'
import { nearbyDiscovery } from './nearby.ts'
import type { OverlayRules } from './overlay-rules.ts'
import { relaying, relayTransport, type Relaying } from './relaying.ts'

export interface PeerServices extends Record<string, unknown> {
  identify: Identify
  identifyPush: IdentifyPush
  ping: Ping
  dht: KadDHT
  pubsub: GossipSub
  listenAddresses: object
  relaying: Relaying
  dcutr: unknown
}
export type PeerLibp2p = Libp2p<PeerServices>

export interface Libp2pOptionsInit {
  readonly key: SigningKey
  readonly listen: readonly string[]
  readonly announce: readonly string[]
  readonly dhtMode: 'server' | 'client'
  /** What of all addresses is told to others. */
  readonly announced: AnnouncedAddresses
  /** Told of peers on the LAN; without it none are looked for. */
  readonly onNearby: ((peer: PeerInfo) => void) | undefined
  /** Asked about every connection. */
  readonly gater: ConnectionGater | undefined
}

export async function peerLibp2pOptions(
  init: Libp2pOptionsInit,
  rules: OverlayRules
): Promise<Libp2pOptions<PeerServices>> {
  return {
    start: false,
    privateKey: await generateKeyPairFromSeed('Ed25519', init.key.seed),
    nodeInfo: { name: 'slicenet', version: '0.5.0', userAgent: 'slicenet/0.5.0' },
    addresses: {
      listen: [...init.listen],
      announce: [...init.announce],
      announceFilter: (addresses) => init.announced.filter(addresses)
    },
    datastore: datastore(init.key.principal),
    transports: [tcp(), relayTransport()],
    peerDiscovery: init.onNearby === undefined ? [] : [nearbyDiscovery(init.onNearby)],
    ...(init.gater === undefined ? {} : { connectionGater: init.gater }),
    connectionEncrypters: [noise()],
    // A paused stream keeps what is under way in its buffer and aborts beyond 4 MiB: the window stays well below.
    streamMuxers: [
      yamux({
        streamOptions: { maxStreamWindowSize: LIMITS.streamWindowBytesMax },
        // Streams opened while the other side still sets the connection up; beyond the default of ten they are reset.
        maxEarlyStreams: LIMITS.streamsPerPeerMax * 4
      })
    ],
    connectionManager: {
      maxConnections: LIMITS.connectionsMax,
      // The default of five a second from one address breaks joins from behind one.
      inboundConnectionThreshold: LIMITS.inboundConnectionsPerSecondMax,
      maxIncomingPendingConnections: LIMITS.inboundConnectionsPendingMax,
      addressDialTimeout: LIMITS.dialMsMax / 3
    },
    // Finds connections that died without a word; every ten seconds, the default, is most of an idle peer's load. Who
    // counts on another calls it: agents their nodes, and everybody the partners of its exchanges.
    connectionMonitor: { pingInterval: 300_000, pingTimeout: { minTimeout: 15_000 } },
    services: {
      identify: identify({ timeout: 15_000 }),
      // Those connected learn that a peer became a relay, or is reached through one.
      identifyPush: identifyPush({ timeout: 15_000 }),
      // The DHT and the monitor ping as well; the default is one at a time.
      ping: ping({ maxInboundStreams: 8, maxOutboundStreams: 8 }),
      dht: dht(init.dhtMode, rules),
      pubsub: pubsub(rules),
      listenAddresses: listenAddressConfirmer(),
      relaying: relaying(),
      dcutr: dcutr()
    }
  }
}

/** What the class of kad-dht has beyond its interface. */
interface RefreshingDht {
  readonly routingTableRefresh: { refreshInterval: number }
}

/**
 * Has the DHT look through every part of its routing table twice a day, not every five minutes: who asks and who answers
 * is put into it anyway, and the looking through would be most of an idle peer's traffic. Before the start.
 */
export function refreshRarely({ services }: PeerLibp2p): void {
  const { routingTableRefresh } = services.dht as unknown as RefreshingDht
  routingTableRefresh.refreshInterval = LIMITS.dhtRefreshMs
}

function datastore(principal: string): BoundedDatastore {
  return new BoundedDatastore({
    maxima: {
      '/peers/': LIMITS.peersRememberedMax,
      '/dht/record/': LIMITS.dhtRecordsMax,
      '/dht/provider/': LIMITS.dhtProvidersMax,
      '': 256
    },
    pinned: new Set([`/peers/${peerIdFromString(principal).toCID().toString()}`])
  })
}

function dht(mode: 'server' | 'client', rules: OverlayRules): ReturnType<typeof kadDHT> {
  const names = Object.keys(rules.records)
  return kadDHT({
    protocol: '/slicenet/kad/1.0.0',
    // Not given, a peer is a client until it sees itself at a public address.
    clientMode: mode === 'client',
    // The default drops private addresses, which leaves the routing tables of test networks empty.
    peerInfoMapper: passthroughMapper,
    // What a busy machine does not answer in time is dropped from the table; the defaults begin at five seconds.
    pingNewContactTimeout: { minTimeout: 15_000 },
    pingOldContactTimeout: { minTimeout: 15_000 },
    onPeerConnectTimeout: 20_000,
    networkDialTimeout: { minTimeout: 10_000 },
    // Every query waits for the first of these; later ones find little that queries and callers have not told.
    initialQuerySelfInterval: 50,
    querySelfInterval: 30 * 60_000,
    // Each path has its own twenty nearest: by default there are ten, and in an overlay of thousands a query asks
    // hundreds of peers.
    alpha: 3,
    disjointPaths: 2,
    // Whoever is to be found announces itself again in time; the default is two days, which keeps the dead.
    reprovide: { validity: LIMITS.providerLifetimeMs, interval: LIMITS.providerLifetimeMs / 9, threshold: 1 },
    validators: {
      ...Object.fromEntries(
        names.map((name) => [
          name,
          (key: Uint8Array, value: Uint8Array) => rules.records[name]?.validate(key, value)
        ])
      ),
      // Ed25519 peer IDs hold their key: records of keys would be anybody's storage.
      pk: refuseRecord
    },
    selectors: Object.fromEntries(
      names.map((name) => [
        name,
        (key: Uint8Array, values: Uint8Array[]) => rules.records[name]?.select(key, values) ?? 0
      ])
    )
  })
}

function refuseRecord(): void {
  throw new Error('records of this kind are not kept')
}

function pubsub(rules: OverlayRules): ReturnType<typeof gossipsub> {
  return gossipsub({
    // Adverts carry their own signature, so that they are worth the same whichever way they come.
    globalSignaturePolicy: StrictNoSign,
    // With the topic in the id, one advert may go to several topics.
    msgIdFn: ({ topic, data }) => createHash('sha256').update(topic).update('\0').update(data).digest(),
    dataTransform: {
      // Throws before anything of the message is kept or forwarded. `allowedTopics` cannot do it: it is fixed at
      // the start, and would hide the subscriptions of others that publishing depends on.
      inboundTransform(topic, data) {
        if (rules.acceptsMessage(topic, data)) return data
        throw new Error('not a topic of this peer')
      },
      outboundTransform: (_topic, data) => data
    },
    fallbackToFloodsub: false,
    floodPublish: false,
    emitSelf: false,
    allowPublishToZeroTopicPeers: true,
    ignoreDuplicatePublishError: true,
    doPX: false,
    D: 4,
    Dlo: 3,
    // Whoever misses an advert gets it by exchange: a mesh of more peers would only cost each listener more.
    Dhi: 5,
    Dscore: 3,
    Dout: 1,
    maxInboundDataLength: 2 * 1024 * 1024,
    maxOutboundBufferSize: 4 * 1024 * 1024,
    maxTopicBytesPerPeer: 1200 * LIMITS.topicsPerPeerMax,
    decodeRpcLimits: {
      maxSubscriptions: LIMITS.topicsPerPeerMax,
      maxMessages: 1000,
      maxIhaveMessageIDs: 5000,
      maxIwantMessageIDs: 5000,
      maxIdontwantMessageIDs: 512,
      maxControlMessages: 1000,
      maxPeerInfos: 16
    },
    // A busy peer answers late; the default of three seconds counts that as a broken promise.
    gossipsubIWantFollowupMs: 30_000,
    scoreParams: {
      appSpecificScore: (peer) => rules.scoreOf(peer),
      appSpecificWeight: 1,
      // Peers of one site share an address; identity costs nothing, so this would hit only the honest.
      IPColocationFactorWeight: 0,
      behaviourPenaltyWeight: -1,
      behaviourPenaltyThreshold: 6
    },
    scoreThresholds: { gossipThreshold: -10, publishThreshold: -50, graylistThreshold: -80 }
  })
}
