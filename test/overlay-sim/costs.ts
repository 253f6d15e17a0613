/**
 * What the parts of libp2p put on the wire beside what is sent, in bytes of TCP payload, both directions together;
 * measured between two real peers on loopback (`test/bench/discovery/wire-costs.ts` measures them again).
 */
export const COSTS = {
  /** TCP to identified: Noise, yamux, identify both ways, the streams of gossip and what they begin with. */
  connection: 6800,
  /** One call of a protocol: the stream, its negotiation, window updates, its end; without request and reply. */
  call: 330,
  /** One gossip message beside its bytes: topic, protobuf, yamux, Noise. */
  gossipMessage: 80,
  /** Telling of one topic that is listened to. */
  subscription: 70,
  /** One IHAVE or IWANT, and each message id in it. */
  gossipControl: 60,
  gossipId: 36,
  /** One call of the DHT beside the peers and the record in it, and each peer that an answer names. */
  dhtCall: 230,
  dhtPeer: 100,
  /** One ping of a connection. */
  ping: 200,
  /** A dial that nobody answers. */
  deadDial: 120
} as const

/** How often a connection is pinged by either end (connectionMonitor). */
export const PING_INTERVAL_MS = 60_000
