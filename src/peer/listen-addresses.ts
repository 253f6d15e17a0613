/**
 * Announces the addresses that this peer listens on, public ones too: libp2p keeps those back until another peer has
 * dialed them, which takes an AutoNAT service that an overlay may not have. Which of them others are told is another matter:
 * see `AnnouncedAddresses`.
 */
import type { TypedEventTarget } from '@libp2p/interface'
import type { Multiaddr } from '@multiformats/multiaddr'

interface Components {
  readonly addressManager: {
    confirmObservedAddr(address: Multiaddr, options: { type: 'transport'; ttl: number }): void
  }
  readonly transportManager: { getAddrs(): Multiaddr[] }
  readonly events: TypedEventTarget<{ 'transport:listening': CustomEvent<unknown> }>
}

export function listenAddressConfirmer(): (components: Components) => object {
  return ({ addressManager, transportManager, events }) => {
    events.addEventListener('transport:listening', () => {
      for (const address of transportManager.getAddrs()) {
        addressManager.confirmObservedAddr(address, { type: 'transport', ttl: 365 * 24 * 3_600_000 })
      }
    })
    return {}
  }
}
