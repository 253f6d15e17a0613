/** Which of the connections to a peer to use, and waiting for a relayed one to become direct. */
import type { Connection, PeerId } from '@libp2p/interface'
import type { Libp2p } from 'libp2p'
import { isRelayed } from './address-kinds.ts'

export function isDirect(connection: Connection): boolean {
  return !isRelayed(connection.remoteAddr)
}

/**
 * The direct one, else the newest through a relay. libp2p itself takes no limited connection for one and would make
 * another for every stream.
 */
export function bestConnection(libp2p: Libp2p, peer: PeerId): Connection | undefined {
  const open = libp2p.getConnections(peer).filter(({ status }) => status === 'open')
  return open.find(isDirect) ?? open.at(-1)
}

/** A direct connection to the peer, waited for until there is one or `ms` are over. */
export async function directConnection(
  libp2p: Libp2p,
  peer: PeerId,
  options: { readonly ms: number; readonly signal?: AbortSignal | undefined }
): Promise<Connection | undefined> {
  const present = bestConnection(libp2p, peer)
  if (present !== undefined && isDirect(present)) return present
  return new Promise((resolve) => {
    const onOpen = ({ detail }: CustomEvent<Connection>): void => {
      if (detail.remotePeer.equals(peer) && isDirect(detail)) end(detail)
    }
    const onEnd = (): void => end(undefined)
    const end = (connection: Connection | undefined): void => {
      clearTimeout(timer)
      libp2p.removeEventListener('connection:open', onOpen)
      options.signal?.removeEventListener('abort', onEnd)
      resolve(connection)
    }
    const timer = setTimeout(onEnd, options.ms)
    libp2p.addEventListener('connection:open', onOpen)
    options.signal?.addEventListener('abort', onEnd)
    if (options.signal?.aborted === true) onEnd()
  })
}
