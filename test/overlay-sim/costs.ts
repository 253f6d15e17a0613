/**
 * What the parts of libp2p put on the wire beside what is sent, in bytes of TCP payload, both directions together;
 * measured between real peers on loopback. The benchmark of discovery shows what both come to for a hundred peers.
 */
export const COSTS = {
  /** TCP to identified: Noise, yamux, identify both ways, the streams of gossip and what they begin with. */
  connection: 9500,
  /** One call of a protocol: the stream, its negotiation, window updates, its end; without request and reply. */
  call: 520,
  /** One gossip message beside its bytes: topic, protobuf, yamux, Noise. */
  gossipMessage: 66,
  /** Telling of one topic that is listened to. */
  subscription: 98,
  /** One IHAVE or IWANT, and each message id in it. */
  gossipControl: 60,
  gossipId: 36,
  /** One call of the DHT beside the peers and the record in it, and each peer that an answer names. */
  dhtCall: 520,
  dhtPeer: 110,
  /** One ping of a connection. */
  ping: 530,
  /** A dial that nobody answers. */
  deadDial: 120
} as const
