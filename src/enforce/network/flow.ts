/** What a flow record says of the packets of one connection of a vserver, before anybody has asked whose vserver it is. */
import type { PortProtocol } from '../../ticket/ports.ts'
import { indexOfAddress } from './address-plan.ts'
import type { FlowProtocol, TrackedLine, Tuple } from './tracked-line.ts'

export interface FlowCount {
  readonly packets: number
  readonly bytes: number
}

export interface Flow {
  /** Tells it from others of the same addresses and ports that there are at the same time. */
  readonly id: string
  /** The vserver's. */
  readonly vserver: string
  readonly protocol: PortProtocol
  /**
   * As the world saw it: the node's end and the other one. Of ICMP the port is the identifier, and the other 0; both are 0
   * of GRE, and of ICMP outside of any connection.
   */
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
  /** Who sent the first packet. */
  readonly begunBy: 'vserver' | 'remote'
  /** UTC ms, of the first packet and the last, as far as that is known: the last one came no later. */
  readonly first: number
  readonly last: number
  /** All that went out and came in since `first`. */
  readonly sent: FlowCount
  readonly received: FlowCount
  /** False of packets that the kernel's connection tracking takes for no part of a connection. */
  readonly isTracked: boolean
  readonly isOpen: boolean
}

/** One vserver's end of a connection. */
export interface FlowEnd extends Pick<
  Flow,
  'protocol' | 'localAddress' | 'localPort' | 'remoteAddress' | 'remotePort' | 'begunBy'
> {
  /** The vserver's address inside. */
  readonly address: string
  readonly sent: FlowCount
  readonly received: FlowCount
}

/** The ends of a connection that vservers have: none, one, or two where they talk to each other. */
export function flowEnds({ protocol, original, reply }: TrackedLine): FlowEnd[] {
  const isEcho = protocol === 'icmp'
  // As the world saw them: translation changes the sender's end in what comes back, the receiver's end behind it.
  const sender = { address: reply.destination, port: isEcho ? reply.sourcePort : reply.destinationPort }
  const receiver = {
    address: original.destination,
    port: isEcho ? original.sourcePort : original.destinationPort
  }
  const [there, back] = [countOf(original), countOf(reply)]
  const ends: FlowEnd[] = []
  if (isInside(original.source)) {
    const counts = { sent: there, received: back }
    ends.push({
      address: original.source,
      begunBy: 'vserver',
      ...between(protocol, sender, receiver),
      ...counts
    })
  }
  if (isInside(reply.source)) {
    const counts = { sent: back, received: there }
    ends.push({ address: reply.source, begunBy: 'remote', ...between(protocol, receiver, sender), ...counts })
  }
  return ends
}

interface Place {
  readonly address: string
  readonly port: number
}

function between(
  protocol: FlowProtocol,
  local: Place,
  remote: Place
): Pick<Flow, 'protocol' | 'localAddress' | 'localPort' | 'remoteAddress' | 'remotePort'> {
  return {
    protocol,
    localAddress: local.address,
    localPort: local.port,
    remoteAddress: remote.address,
    remotePort: protocol === 'icmp' ? 0 : remote.port
  }
}

const NOTHING: FlowCount = { packets: 0, bytes: 0 }

function countOf({ packets, bytes }: Tuple): FlowCount {
  return packets === undefined || bytes === undefined ? NOTHING : { packets, bytes }
}

/** Whether an address is one of `VSERVER_POOL`, or a vserver's of IPv6. */
export function isInside(address: string): boolean {
  if (address.includes(':')) return indexOfAddress(address) !== undefined
  const [first, second] = address.split('.', 2).map(Number)
  return first === 100 && second !== undefined && second >= 64 && second < 80
}
