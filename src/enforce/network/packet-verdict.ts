/**
 * What the node's rules make of an IPv4 packet that a program in a vserver sends through a raw socket, told from its lease
 * alone: the same decisions as those of the tables in `node-table.ts`, `gre-keys.ts` and `source-check.ts`. Pure. What
 * depends on connections that there are, or on the node's policy, is said to.
 */
import { BlockList, isIPv6 } from 'node:net'
import { formatPortRange, portsOverlap, type PortProtocol, type PortRange } from '../../ticket/ports.ts'
import { SHARED_PORTS, VSERVER_POOL } from './address-plan.ts'
import { DENIED } from './node-table.ts'
import { ALLOWED_OPTIONS, PIECE_BYTES_MIN } from './source-check.ts'

export interface RawLease {
  readonly ports: readonly PortRange[]
  readonly rawSockets: boolean
  /** The vserver's own address; any of the node's for vservers when absent. */
  readonly address?: string | undefined
  readonly address6?: string | undefined
  /** The node's, by its first uplink. */
  readonly nodeAddress?: string | undefined
  readonly nodeAddress6?: string | undefined
  /** Private ranges that the node's policy lets vservers reach, for whoever knows it; a lease does not tell. */
  readonly allowedRanges?: readonly string[] | undefined
}

/** Whom the frame around a packet is for: the node's end of the link, a group of hosts or all. */
export type FrameTarget = 'node' | 'group' | 'all'

/** `reason` is the name under which the node counts what it drops. */
export interface PacketVerdict {
  /**
   * `kept`: leaves with its port, identifier or key, or is taken by the node itself. `shared`: leaves from the range that all
   * vservers share. `related`: only with a connection that there is, or to a port that another vserver owns. `dropped`: goes nowhere.
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

/**
 * `packet` begins with its IPv4 header; what the kernel fills in (its checksum, its length) is taken for filled in. `to`: of one in
 * a frame.
 */
export function packetVerdict(packet: Buffer, lease: RawLease, to?: FrameTarget): PacketVerdict {
  if (!lease.rawSockets) return withoutRight()
  const headerBytes = ((packet[0] ?? 0) % 16) << 2
  if (packet.length < 20 || packet[0]! >> 4 !== 4 || headerBytes < 20 || packet.length < headerBytes) {
    return dropped(
      'other',
      'this is no IPv4 packet, and nothing else leaves a vserver but ARP, and IPv6 where the node has it'
    )
  }
  const [source, target] = [addressAt(packet, 12), addressAt(packet, 16)]
  const data = packet.subarray(headerBytes)
  const ports = packet[9] === UDP && data.length >= 4 ? `${data.readUInt16BE(0)} ${data.readUInt16BE(2)}` : ''
  // Instead of none the kernel fills in its own, but not in frames; who asks for an address has none yet.
  const mayBeNone = to === undefined || ports === DHCP_REQUEST
  const isOwn = lease.address === undefined ? isIn(source, [VSERVER_POOL]) : source === lease.address
  if (!isOwn && (source !== '0.0.0.0' || !mayBeNone)) return foreignSource(source)
  if (DHCP.includes(ports)) return dropped('dhcp', 'a vserver has its address and asks nobody for one')
  const protocol = PROTOCOLS.get(packet[9] ?? 0)
  if (protocol === undefined) {
    return dropped('protocol', `protocol ${packet[9]} is none of ICMP, TCP, UDP and GRE with an owned key`)
  }
  if (target === '255.255.255.255' || to === 'all') return toAll()
  if (isIn(target, ['224.0.0.0/4']) || to === 'group') return toGroup()
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
  // How long the whole is shows in its last piece.
  const bytes = (fragment & MORE) === 0 ? data.length : Infinity
  const toNode = target === lease.nodeAddress ? nodeVerdict(protocol, data, lease) : undefined
  return toNode ?? unreachable(target, lease) ?? portVerdict(protocol, data, lease, bytes)
}

const UDP = 17
/** Ports of source and destination. */
const DHCP_REQUEST = '68 67'
const DHCP = ['67 67', '67 68', DHCP_REQUEST]
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
  const refused =
    typesOf(options).find((type) => SOURCE_ROUTES.includes(type)) ??
    (first === undefined || ALLOWED_OPTIONS.includes(first) ? undefined : first)
  if (refused === undefined) return undefined
  return dropped('options', `IP option ${refused} does not leave; ${ALLOWED_OPTIONS.join(', ')} do`)
}

/** Refused behind others, too. */
const SOURCE_ROUTES: readonly number[] = [131, 137]
const [END, NOTHING] = [0, 1]

function typesOf(options: Buffer): number[] {
  const types: number[] = []
  for (let at = 0; at < options.length && options[at] !== END;) {
    types.push(options[at]!)
    // What has no length that can be ends the list.
    const length = options[at] === NOTHING ? 1 : (options[at + 1] ?? 0)
    at += length === 0 ? options.length : length
  }
  return types
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

function portVerdict(
  protocol: 'tcp' | 'udp' | 'icmp',
  data: Buffer,
  lease: RawLease,
  bytes: number
): PacketVerdict {
  if (protocol !== 'icmp') return portedVerdict(protocol, data, lease, bytes)
  // Behind a long header of IPv4 the source check takes it for whole; tracking does not.
  return data.length < 8 ? dropped('untracked', 'it ends within its ICMP header') : icmpVerdict(data, lease)
}

/**
 * Of what the source check lets pass, by the port that it comes from. `data` begins with the header of the protocol; `bytes`: that
 * the whole may have.
 */
export function portedVerdict(
  protocol: 'tcp' | 'udp',
  data: Buffer,
  lease: RawLease,
  bytes = data.length
): PacketVerdict {
  if (protocol === 'udp' && (data.length < 8 || data.readUInt16BE(4) > bytes)) {
    return dropped('malformed', 'its UDP header is cut, or says that it is longer than it is')
  }
  const port = data.readUInt16BE(0)
  const named = `${protocol}/${port}`
  if (owns(lease, protocol, port))
    return { outcome: 'kept', text: `leaves from ${named}, whatever its flags` }
  if (protocol === 'udp') return shared(named)
  if (data.length < 20 || data.length < (data[12]! >> 4) << 2)
    return dropped('untracked', 'it ends within its TCP header')
  if (BEGINNING.includes(data[13]! & TELLING)) return shared(named)
  return stray(`a segment with these flags from ${named}, which the lease does not own,`)
}

function icmpVerdict(data: Buffer, lease: RawLease): PacketVerdict {
  const [type, id] = [data[0] ?? 0, data.readUInt16BE(4)]
  if (QUESTIONS.includes(type)) return questionVerdict(id, lease)
  if (ANSWERS.includes(type)) return answerVerdict(id, lease)
  if (ICMP_ERRORS.includes(type)) return errorVerdict()
  return dropped('untracked', `ICMP of type ${type} leaves no vserver`)
}

/** Of ICMP of either family, by its identifier. */
export function questionVerdict(id: number, lease: RawLease): PacketVerdict {
  return owns(lease, 'icmp', id) ? withId(id) : shared(`icmp/${id}`)
}

export function answerVerdict(id: number, lease: RawLease): PacketVerdict {
  return owns(lease, 'icmp', id)
    ? withId(id)
    : stray(`an answer with icmp/${id}, which the lease does not own,`)
}

function withId(id: number): PacketVerdict {
  return { outcome: 'kept', text: `leaves with icmp/${id}` }
}

export function errorVerdict(): PacketVerdict {
  return {
    outcome: 'related',
    reason: 'untracked',
    text: 'an ICMP error leaves if it is about a connection of the vserver’s own'
  }
}

/** What begins no connection leaves as part of one only. */
function stray(what: string): PacketVerdict {
  return {
    outcome: 'related',
    reason: 'untracked',
    text: `${what} leaves if it is part of a connection that there is`
  }
}

function unreachable(target: string, lease: RawLease): PacketVerdict | undefined {
  if (target === lease.nodeAddress) return undefined
  if (isIn(target, [VSERVER_POOL])) return toVserver(target)
  return isIn(target, DENIED) && !isAllowed(target, lease) ? toDenied(target) : undefined
}

/** Of ranges of the address's family. */
export function isAllowed(target: string, { allowedRanges = [] }: RawLease): boolean {
  const own = allowedRanges.filter((range) => isIPv6(range.split('/')[0] ?? '') === isIPv6(target))
  return isIn(target, own)
}

/**
 * Of what is for the node's address; `undefined` where the lease owns what it is for. `data` begins with the protocol's header.
 * `identified`: the types of ICMP that bear an identifier, that of pings first.
 */
export function nodeVerdict(
  protocol: 'tcp' | 'udp' | 'icmp',
  data: Buffer,
  lease: RawLease,
  identified: readonly number[] = [...QUESTIONS, ...ANSWERS]
): PacketVerdict | undefined {
  if (protocol !== 'icmp') {
    if (data.length >= 4 && owns(lease, protocol, data.readUInt16BE(2))) return undefined
  } else if (data.length >= 8) {
    const [type, id] = [data[0]!, data.readUInt16BE(4)]
    if (identified.includes(type) && owns(lease, 'icmp', id)) return undefined
    if (type === identified[0])
      return { outcome: 'kept', text: 'the node answers pings, or who owns the identifier' }
  }
  return {
    outcome: 'related',
    reason: 'node',
    text: 'the node’s own address takes what is part of a connection that there is, or for a port that a vserver owns'
  }
}

export function toVserver(target: string): PacketVerdict {
  return dropped('private', `${target} is the private address of a vserver`)
}

export function toDenied(target: string): PacketVerdict {
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

export function dropped(reason: string, text: string): PacketVerdict {
  return { outcome: 'dropped', reason, text }
}

export function withoutRight(): PacketVerdict {
  return dropped('EPERM', 'the lease has no right raw-socket, so no socket sends this')
}

export function foreignSource(source: string): PacketVerdict {
  return dropped('source', `the source ${source} is not the address of the vserver’s own device`)
}

export function toAll(): PacketVerdict {
  return dropped('broadcast', 'nothing leaves to all hosts of a network')
}

export function toGroup(): PacketVerdict {
  return dropped('multicast', 'nothing leaves to groups of hosts')
}

/** `undefined` of what ends before. */
export function sourceOf(packet: Buffer): string | undefined {
  return packet.length < 16 ? undefined : addressAt(packet, 12)
}

function addressAt(packet: Buffer, offset: number): string {
  return [...packet.subarray(offset, offset + 4)].join('.')
}

/** All of one family. */
export function isIn(address: string, ranges: readonly string[]): boolean {
  const family = isIPv6(address) ? 'ipv6' : 'ipv4'
  const list = new BlockList()
  for (const range of ranges) {
    const [net = '', bits = family === 'ipv6' ? '128' : '32'] = range.split('/')
    list.addSubnet(net, Number(bits), family)
  }
  return list.check(address, family)
}
