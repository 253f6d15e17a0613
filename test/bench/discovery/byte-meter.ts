/**
 * Counts the bytes of TCP that each peer of this process sends and takes, exactly and from outside: Node tells of every
 * socket that a server accepts, and whoever accepted it knows who is at the other end.
 */
import { channel } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import type { Multiaddr } from '@multiformats/multiaddr'
import type { PeerHost } from '../../../src/peer/host.ts'
import type { Principal } from '../../../src/ticket/principal.ts'

interface Link {
  readonly socket: Socket
  readonly ends: readonly [Principal, Principal]
}

export class ByteMeter implements Disposable {
  readonly #sockets = new Map<string, Socket>()
  readonly #links = new Set<Link>()
  /** Of links that are closed. */
  readonly #past = new Map<Principal, number>()
  readonly #channel = channel('net.server.socket')
  readonly #onSocket = (message: unknown): void => {
    const { socket } = message as { socket: Socket }
    const key = `${socket.localPort}:${socket.remotePort}`
    this.#sockets.set(key, socket)
    socket.once('close', () => this.#sockets.delete(key))
  }

  constructor() {
    this.#channel.subscribe(this.#onSocket)
  }

  /** To be called before the first connection of a host that is started. */
  watch({ libp2p, principal }: PeerHost): void {
    libp2p.addEventListener('connection:open', ({ detail: connection }) => {
      if (connection.direction !== 'inbound') return
      const port = portOf(connection.remoteAddr)
      for (const address of libp2p.getMultiaddrs()) {
        const socket = this.#sockets.get(`${portOf(address)}:${port}`)
        if (socket !== undefined) this.#add({ socket, ends: [principal, connection.remotePeer.toString()] })
      }
    })
  }

  /** Since the beginning, of both directions. */
  bytesOf(principal: Principal): number {
    let bytes = this.#past.get(principal) ?? 0
    for (const { socket, ends } of this.#links) {
      if (ends.includes(principal)) bytes += socket.bytesRead + socket.bytesWritten
    }
    return bytes
  }

  #add(link: Link): void {
    if (this.#links.values().some(({ socket }) => socket === link.socket)) return
    this.#links.add(link)
    link.socket.once('close', () => {
      this.#links.delete(link)
      const bytes = link.socket.bytesRead + link.socket.bytesWritten
      for (const end of link.ends) this.#past.set(end, (this.#past.get(end) ?? 0) + bytes)
    })
  }

  [Symbol.dispose](): void {
    this.#channel.unsubscribe(this.#onSocket)
  }
}

function portOf(address: Multiaddr): string | undefined {
  return address.getComponents().find(({ name }) => name === 'tcp')?.value
}
