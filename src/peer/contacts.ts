/** The peers that this one is connected to, and how. */
import { peerIdFromString } from '@libp2p/peer-id'
import type { Libp2p } from 'libp2p'
import type { Principal } from '../ticket/principal.ts'
import { bestConnection } from './connections.ts'
import { pathOf, type PathView } from './pinging.ts'

export interface Contact extends PathView {
  readonly principal: Principal
  /** Who dialed. */
  readonly direction: 'inbound' | 'outbound'
  /** UTC ms. */
  readonly connectedAt: number
}

/** Each peer once, by the connection that calls to it use; the longest connected first. */
export function contactsOf(libp2p: Libp2p): Contact[] {
  const principals = new Set(libp2p.getPeers().map(String))
  return [...principals]
    .flatMap((principal) => {
      const connection = bestConnection(libp2p, peerIdFromString(principal))
      if (connection === undefined) return []
      const { direction, timeline } = connection
      return [{ principal, direction, connectedAt: timeline.open, ...pathOf(connection) }]
    })
    .sort((a, b) => a.connectedAt - b.connectedAt)
}
