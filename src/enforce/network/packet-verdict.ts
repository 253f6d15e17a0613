/**
 * What the node's rules make of an IPv4 packet that a program in a vserver sends through a raw socket, told from its lease
 * alone: the same decisions as those of the tables in `node-table.ts`, `gre-keys.ts` and `source-check.ts`. Pure. What
 * depends on connections that there are, or on the node's policy, is said to.
 */
import { BlockList } from 'node:net'
import { formatPortRange, portsOverlap, type PortProtocol, type PortRange } from '../../ticket/ports.ts'
import { SHARED_PORTS, VSERVER_POOL } from './address-plan.ts'
import { DENIED } from './node-table.ts'
import { ALLOWED_OPTIONS, PIECE_BYTES_MIN } from './source-check.ts'

export interface RawLease {
  readonly ports: readonly PortRange[]
  readonly rawSockets: boolean
  /** The vserver's own address; any of the node's for vservers when absent. */
  readonly address?: string | undefined
  /** The node's. */
  readonly nodeAddress?: string | undefined
}

/** `reason` is the name under which the node counts what it drops. */
export interface PacketVerdict {
  /**
   * `kept`: leaves with its port, identifier or key. `shared`: leaves from the range that all vservers share. `related`: only
   * with a connection that there is. `dropped`: goes nowhere.
   */
  readonly outcome: 'kept' | 'shared' | 'related' | 'dropped'
  readonly reason?: string
  /** For people. */
  readonly text: string
}

const TCP = { fin: 1, syn: 2, rst: 4, ack: 16, urg: 32 } as const
/** PSH, ECE and CWR tell nothing of a connection. */
const TELLING = TCP.fin | TCP.syn | TCP.rst | TCP.ack | TCP.urg
/** Of segments that no connection explains, those that begin one for the kernel's tracking, which picks up running ones too. */
const BEGINNING: readonly number[] = [TCP.syn, TCP.syn | TCP.urg, TCP.ack, TCP.ack | TCP.urg]
/** Of ICMP, what bears an identifier: questions, and their answers. */
const QUESTIONS: readonly number[] = [8, 13]
const ANSWERS: readonly number[] = [0, 14]
const ICMP_ERRORS: readonly number[] = [3, 11, 12]
/** Version 0 with a key, and perhaps a sequence number. */
const GRE_KEYED = [0x2000, 0x3000]

/** `packet` begins with its IPv4 header; what the kernel fills in (its checksum, its length) is taken for filled in. */
export function packetVerdict(packet: Buffer, lease: RawLease): PacketVerdict {
  if (!lease.rawSockets) return dropped('EPERM', 'the lease has no right raw-socket, so no socket sends this')
  if (packet[0]! >> 4 === 6 && packet.length >= 40) {
    return dropped(
      'ipv6',
      'IPv6 leaves where the node has it, from the same ports; no packets of it are told of here'
    )
  }
  const headerBytes = ((packet[0] ?? 0) % 16) << 2
  if (packet.length < 20 || packet[0]! >> 4 !== 4 || headerBytes < 20 || packet.length < headerBytes) {
    return dropped(
      'other',
      'this is no IPv4 packet, and nothing else leaves a vserver but ARP, and IPv6 where the node has it'
    )
  }
  const [source, target] = [addressAt(packet, 12), addressAt(packet, 16)]
  // The kernel fills in its own for none.
  if (
    source !== '0.0.0.0' &&
    (lease.address === undefined ? !isIn(source, [VSERVER_POOL]) : source !== lease.address)
  ) {
    return dropped('source', `the source ${source} is not the address of the vserver’s own device`)
  }
  const data = packet.subarray(headerBytes)
  if (
    packet[9] === UDP &&
    data.length >= 4 &&
    DHCP.includes(`${data.readUInt16BE(0)} ${data.readUInt16BE(2)}`)
  ) {
    return dropped('dhcp', 'a vserver has its address and asks nobody for one')
  }
  const protocol = PROTOCOLS.get(packet[9] ?? 0)
  if (protocol === undefined) {
    return dropped('protocol', `protocol ${packet[9]} is none of ICMP, TCP, UDP and GRE with an owned key`)
  }
  if (target === '255.255.255.255') return dropped('broadcast', 'nothing leaves to all hosts of a network')
  if (isIn(target, ['224.0.0.0/4'])) return dropped('multicast', 'nothing leaves to groups of hosts')
  const fragment = packet.readUInt16BE(6)
  if (protocol === 'gre') {
    if ((fragment & (RESERVED | MORE | OFFSET)) !== 0)
      return dropped('protocol', 'GRE does not leave in fragments')
    return optionVerdict(packet.subarray(20, headerBytes)) ?? greVerdict(data, lease, target)
  }
  const outside =
    pieceVerdict(protocol, fragment, packet.length) ??
    cutVerdict(protocol, fragment, data, packet.length) ??
    optionVerdict(packet.subarray(20, headerBytes))
  if (outside !== undefined) return outside
  // A later piece is put together with the first, which has the ports.
  if ((fragment & OFFSET) !== 0)
    return { outcome: 'related', text: 'a later fragment leaves if the whole packet does' }
  return unreachable(target, lease) ?? portVerdict(protocol, data, lease)
}

const UDP = 17
/** Ports of source and destination. */
const DHCP = ['67 67', '67 68', '68 67']
const [RESERVED, MORE, OFFSET] = [0x8000, 0x2000, 0x1fff]

function pieceVerdict(protocol: PortProtocol, fragment: number, bytes: number): PacketVerdict | undefined {
  if ((fragment & RESERVED) !== 0) return dropped('fragment', 'the reserved bit of fragments is set')
  if ((fragment & (MORE | OFFSET)) === 0) return undefined
  if (protocol === 'tcp') return dropped('fragment', 'TCP does not leave in fragments')
  return (fragment & MORE) !== 0 && bytes < PIECE_BYTES_MIN
    ? dropped('fragment', `a fragment but the last has ${PIECE_BYTES_MIN} bytes at least`)
    : undefined
}

/** What the source check sees is too short for its header; of pieces nobody can tell. */
function cutVerdict(
  protocol: PortProtocol,
  fragment: number,
  data: Buffer,
  bytes: number
): PacketVerdict | undefined {
  if ((fragment & (MORE | OFFSET)) !== 0) return undefined
  const isCut =
    bytes < HEADERS_BYTES_MIN.any ||
    (protocol === 'tcp' && (bytes < HEADERS_BYTES_MIN.tcp || (data[12] ?? WHOLE_TCP) >> 4 < 5)) ||
    (protocol === 'udp' && data.length >= 6 && data.readUInt16BE(4) < 8)
  return isCut ? dropped('length', `it ends within its ${protocol.toUpperCase()} header`) : undefined
}

/** Of IPv4 and what it carries, together. */
const HEADERS_BYTES_MIN = { any: 28, tcp: 40 } as const
/** The thirteenth byte of a TCP header without options. */
const WHOLE_TCP = 0x50

function optionVerdict(options: Buffer): PacketVerdict | undefined {
  const first = options[0]
  if (first === undefined || ALLOWED_OPTIONS.includes(first)) return undefined
  return dropped('options', `IP option ${first} does not leave; ${ALLOWED_OPTIONS.join(', ')} do`)
}

const PROTOCOLS: ReadonlyMap<number, PortProtocol> = new Map([
  [1, 'icmp'],
  [6, 'tcp'],
  [17, 'udp'],
  [47, 'gre']
])

function greVerdict(data: Buffer, lease: RawLease, target: string): PacketVerdict {
  if (data.length < 8 || !GRE_KEYED.includes(data.readUInt16BE(0))) {
    return dropped('protocol', 'GRE leaves in version 0 with a key and perhaps a sequence number only')
  }
  const key = data.readUInt32BE(4)
  if (!owns(lease, 'gre', key)) return dropped('protocol', `the lease does not own gre/${key}`)
  return unreachable(target, lease) ?? { outcome: 'kept', text: `leaves with gre/${key}` }
}

function portVerdict(protocol: 'tcp' | 'udp' | 'icmp', data: Buffer, lease: RawLease): PacketVerdict {
  // Behind a long header of IPv4 the source check takes it for whole; tracking does not.
  const isCut = data.length < (protocol === 'tcp' ? 20 : 8)
  if (protocol === 'udp' && (isCut || data.readUInt16BE(4) > data.length)) {
    return dropped('malformed', 'its UDP header is cut, or says that it is longer than it is')
  }
  if (protocol === 'icmp')
    return isCut ? dropped('untracked', 'it ends within its ICMP header') : icmpVerdict(data, lease)
  const port = data.readUInt16BE(0)
  const named = `${protocol}/${port}`
  if (owns(lease, protocol, port))
    return { outcome: 'kept', text: `leaves from ${named}, whatever its flags` }
  if (isCut) return dropped('untracked', 'it ends within its TCP header')
  if (protocol === 'udp' || BEGINNING.includes(data[13]! & TELLING)) return shared(named)
  return stray(`a segment with these flags from ${named}, which the lease does not own,`)
}

function icmpVerdict(data: Buffer, lease: RawLease): PacketVerdict {
  const [type, id] = [data[0] ?? 0, data.readUInt16BE(4)]
  const owned = owns(lease, 'icmp', id)
  const isQuestion = QUESTIONS.includes(type)
  if (owned && (isQuestion || ANSWERS.includes(type)))
    return { outcome: 'kept', text: `leaves with icmp/${id}` }
  if (isQuestion) return shared(`icmp/${id}`)
  if (ANSWERS.includes(type)) return stray(`an answer with icmp/${id}, which the lease does not own,`)
  if (ICMP_ERRORS.includes(type)) {
    return {
      outcome: 'related',
      reason: 'untracked',
      text: 'an ICMP error leaves if it is about a connection of the vserver’s own'
    }
  }
  return dropped('untracked', `ICMP of type ${type} leaves no vserver`)
}

/** What begins no connection leaves as part of one only. */
function stray(what: string): PacketVerdict {
  return {
    outcome: 'related',
    reason: 'untracked',
    text: `${what} leaves if it is part of a connection that there is`
  }
}

function unreachable(target: string, { nodeAddress }: RawLease): PacketVerdict | undefined {
  if (target === nodeAddress) return undefined
  if (isIn(target, [VSERVER_POOL])) return dropped('private', `${target} is the private address of a vserver`)
  if (!isIn(target, DENIED)) return undefined
  return dropped(
    'denied',
    `${target} is not on the internet; the node’s policy (allowedPrivateRanges) may allow it`
  )
}

function owns({ ports }: RawLease, protocol: PortProtocol, number: number): boolean {
  return portsOverlap(ports, [{ protocol, first: number, last: number }])
}

function shared(named: string): PacketVerdict {
  const range = formatPortRange({ protocol: 'tcp', ...SHARED_PORTS }).slice('tcp/'.length)
  return { outcome: 'shared', text: `leaves from ${range} instead of ${named}, which the lease does not own` }
}

function dropped(reason: string, text: string): PacketVerdict {
  return { outcome: 'dropped', reason, text }
}

function addressAt(packet: Buffer, offset: number): string {
  return [...packet.subarray(offset, offset + 4)].join('.')
}

function isIn(address: string, ranges: readonly string[]): boolean {
  const list = new BlockList()
  for (const range of ranges) {
    const [net = '', bits] = range.split('/')
    list.addSubnet(net, Number(bits))
  }
  return list.check(address)
}
