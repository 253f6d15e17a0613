/** What the vserver backend needs of the node's network: a link per vserver with the checks of design §5 on the host's end. */
import type { Startable } from '../base/lifecycle.ts'
import type { PortRange } from '../ticket/ports.ts'
import type { Resources } from '../ticket/resources.ts'
import type { Shaping } from '../ticket/shaping.ts'

export interface VserverNetwork extends Startable {
  /**
   * Moves one end of a veth pair into the network namespace of process `pid`, addresses and routes it; source check, owned
   * ports and shaping stand before the link is up. Idempotent. Returns the address inside. Throws `PORT_IN_USE`,
   * `VSERVER_FAILED` when its rate cannot be guaranteed, `KERNEL_REFUSED`, and what `pid` is rejected with.
   */
  attach(link: VserverLink): Promise<{ readonly address: string }>
  /**
   * For a vserver that shares the node's network: what programs with its ids send counts as its own and is held to its
   * share, and nothing goes out that they made below IP. Idempotent. Returns the node's address.
   */
  attachIds(user: NetworkUser): Promise<{ readonly address: string }>
  /** What is attached as `id` is `to` from now on, with the same link. Throws `NOT_FOUND`. */
  rename(id: string, to: string): Promise<void>
  /** Removes all of it. Idempotent. */
  detach(id: string): Promise<void>
  /** Ids attached now, also those left by an earlier daemon. */
  list(): Promise<string[]>
  egressBytes(id: string): Promise<number>
  /** Whether the day's bytes run out, so that it is or will soon be held to a lower rate than its lease's. */
  isEgressNarrowed(id: string): Promise<boolean>
  /** Packets that the checks dropped of what it sent, by reason. Throws `NOT_FOUND`. */
  dropped(id: string): Promise<Readonly<Record<string, number>>>
}

export interface VserverLink {
  readonly id: string
  /** A promise while the process is being made, so that what needs no process is done meanwhile. */
  readonly pid: number | Promise<number>
  readonly ports: readonly PortRange[]
  /** Whether its programs may use raw sockets: then its kernel answers on no owned port that none of its sockets listens on. */
  readonly rawSockets?: boolean
  readonly resources: Resources
  readonly shaping?: Shaping | undefined
}

/** A vserver without a network of its own. */
export interface NetworkUser {
  readonly id: string
  /** Of the users that its programs run as, on the host; both included. */
  readonly firstId: number
  readonly lastId: number
  readonly resources: Resources
  readonly shaping?: Shaping | undefined
}
