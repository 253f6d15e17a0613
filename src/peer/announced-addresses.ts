/**
 * What a peer tells others of where it is. Behind a NAT its own addresses mean nothing to them, or somebody else: once a
 * relay has a slot for it, they are told of the relay alone.
 */
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import { LIMITS } from '../base/limits.ts'
import type { Principal } from '../ticket/principal.ts'
import { hostOf, isLoopback, isRelayed } from './address-kinds.ts'

export class AnnouncedAddresses {
  /** Whether the own addresses are of no use to others. */
  isUnreachable = false
  readonly #principal: Principal
  readonly #relayed = new Map<Principal, readonly Multiaddr[]>()

  constructor(principal: Principal) {
    this.#principal = principal
  }

  get relays(): readonly Principal[] {
    return [...this.#relayed.keys()]
  }

  /** Takes the addresses of a relay that has a slot for this peer. */
  addRelay(relay: Principal, addresses: readonly Multiaddr[]): void {
    const outside = withoutLoopback(addresses.filter((address) => !isRelayed(address)))
    const relayed = outside
      .slice(0, LIMITS.relayAddressesMax)
      .map((address) => multiaddr(`${address.toString()}/p2p-circuit/p2p/${this.#principal}`))
    this.#relayed.set(relay, relayed)
  }

  /** Whether it was there. */
  removeRelay(relay: Principal): boolean {
    return this.#relayed.delete(relay)
  }

  /** Of all addresses that libp2p has for this peer, each with its `/p2p/…`, those to be told. */
  filter(own: readonly Multiaddr[]): Multiaddr[] {
    const relayed = [...this.#relayed.values()].flat()
    const direct = this.isUnreachable && relayed.length > 0 ? [] : own.filter((each) => !isRelayed(each))
    return [...withoutLoopback(direct).slice(0, LIMITS.announcedAddressesMax - relayed.length), ...relayed]
  }
}

/** Loopback is for peers of this machine, and is told only where there is nothing else. */
function withoutLoopback(addresses: readonly Multiaddr[]): readonly Multiaddr[] {
  const outside = addresses.filter((address) => !isLoopback(hostOf(address) ?? ''))
  return outside.length > 0 ? outside : addresses
}
