/** The network of a node as those see it who attach vservers to it: what it is told, takes and gives. */
import type { PortRange } from '../../ticket/ports.ts'
import type { VserverNetwork } from '../network.ts'
import type { NetworkCounters } from './network-counters.ts'
import type { ShapingPolicy } from './rates.ts'
import type { Uplink, UplinkInit } from './uplink.ts'
import type { NetworkUserOwner } from './user-flows.ts'

export interface NodeNetworkInit {
  /** One at least, the first being that whose address the node is known by. */
  readonly uplinks: readonly UplinkInit[]
  /** The node's own ports, which no vserver ever owns or sends from. */
  readonly reservedPorts: readonly PortRange[]
  /** CIDR ranges that vservers may reach although they are private. */
  readonly allowedPrivateRanges: readonly string[]
  /** What is kept here lets a later daemon find the links that run. */
  readonly stateDirectory: string
  /** Connections that one vserver may have open; default `LIMITS.flowsPerVserverMax`. */
  readonly flowsPerVserverMax?: number
  /** Destinations that count as known to one vserver; default `LIMITS.knownDestinationsPerVserverMax`. */
  readonly knownDestinationsMax?: number
  /** Default `DEFAULT_SHAPING`. */
  readonly shaping?: ShapingPolicy
  /** How often it is looked at who has used up the bytes of the day. Default: 5 seconds. */
  readonly budgetIntervalMs?: number
}

export interface NodeNetwork extends VserverNetwork {
  counters(): Promise<NetworkCounters>
  /** Whether it has been started. */
  readonly isUp: boolean
  /**
   * What the world knows the node by now, in the order of the configuration, those that are there first, without those that
   * never were. Empty unless it is up.
   */
  readonly uplinks: readonly Uplink[]
  /** Of each uplink that is away, or cannot be used: which, and why. */
  readonly troubles: readonly string[]
  /** The id of the vserver that has an inside address, or had it last if nobody has. */
  ownerOf(address: string): string | undefined
  /** Vservers that share the node's network, or did, by the first of their ids. */
  userOwners(): ReadonlyMap<number, NetworkUserOwner>
  /** The inside address of a vserver that is attached and has one. */
  addressOf(id: string): string | undefined
  /** Takes the tables and the uplink's queue away, for a node that is shut down for good. Throws `BUSY` while links are attached. */
  remove(): Promise<void>
}
