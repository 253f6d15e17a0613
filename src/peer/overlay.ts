/**
 * What the directory needs of the network under it, and no more: the libp2p host is one, a simulated overlay another,
 * so that the same directory runs over both.
 */
import type { Caller, Handlers, Methods, Protocol } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'
import type { OverlayRules } from './overlay-rules.ts'

export interface DirectoryHost {
  readonly principal: Principal
  /** Principals at the other end of open connections. */
  connected(): Principal[]
  /** A caller of one principal; see `createCaller` for what calls throw. */
  caller<M extends Methods>(protocol: Protocol<M>, principal: Principal): Caller<M>
  /** Answers calls of a protocol, from now on or from the start. */
  serve<M extends Methods>(protocol: Protocol<M>, handlers: Handlers<M>): Promise<void>
  /** Adds to where a principal may be found. */
  addAddresses(principal: Principal, multiaddrs: readonly string[]): Promise<void>
  /** Sets what passes through gossip and DHT. Only before `start`. */
  useRules(rules: OverlayRules): void
  /**
   * Tells of each peer that speaks the protocol once it is connected, those that are first, and of each peer that is
   * connected no more, until the function given back is called. Only once started.
   */
  watchPeers(protocolId: string, watcher: PeerWatcher): Promise<() => void>
  /** Only once started. */
  readonly gossip: OverlayGossip
  /** Only once started. */
  readonly dht: OverlayDht
}

export interface PeerWatcher {
  onMeet(peer: Principal): void
  onLeave(peer: Principal): void
}

/** `reject` counts against whoever sent a message; only what is accepted is forwarded. */
export type Judgement = 'accept' | 'ignore' | 'reject'

export interface OverlayGossip {
  /** How many listen to a topic as far as this peer knows, and how many of them it can send to now. */
  audience(topic: string): { readonly known: number; readonly atHand: number }
  /** Hands a message to some of the audience; gives to how many. Subscribing is not needed. */
  publish(topic: string, bytes: Uint8Array): Promise<number>
  /** Listens to a topic; each message is judged before it is forwarded. */
  subscribe(topic: string, judge: (bytes: Uint8Array, from: Principal) => Judgement): void
  unsubscribe(topic: string): void
  /** Calls the listener with each topic that another peer begins to listen to. */
  onListener(listener: (topic: string) => void): void
  /** Calls the listener every second or so. */
  onHeartbeat(listener: () => void): void
}

/** Each operation ends by its signal at the latest, and throws when it fails after what it gave. */
export interface OverlayDht {
  /** Has a record kept; gives each peer that keeps it. */
  put(key: Uint8Array, value: Uint8Array, options: { readonly signal: AbortSignal }): AsyncIterable<Principal>
  /** Every value that a peer answers with, as it comes, valid ones only. */
  get(key: Uint8Array, options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array>
  /** Has this peer found under a SHA-256 digest; gives each peer that was told. */
  provide(digest: Uint8Array, options: { readonly signal: AbortSignal }): AsyncIterable<Principal>
  /** Has this peer no longer found under a digest, as far as that is up to it: others forget in time. */
  withdraw(digest: Uint8Array): Promise<void>
  /** Whom peers name under a digest, as they answer. */
  findProviders(digest: Uint8Array, options: { readonly signal: AbortSignal }): AsyncIterable<ProvidersNamed>
}

/** One peer's answer. */
export interface ProvidersNamed {
  readonly by: Principal
  readonly providers: readonly Provider[]
}

export interface Provider {
  readonly principal: Principal
  readonly multiaddrs: readonly string[]
}
