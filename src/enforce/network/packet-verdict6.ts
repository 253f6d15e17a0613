/**
 * What the node's rules make of an IPv6 packet that a program in a vserver sends through a raw socket, where the node has IPv6, as
 * `packet-verdict.ts` tells it of IPv4: the same decisions as those of `source-check6.ts` and `node-table6.ts`. Pure.
 */
import { canonicalAddress } from '../../base/ip-address.ts'
import { indexOfAddress, VSERVER_POOL_6 } from './address-plan.ts'
import { DENIED_6 } from './node-table6.ts'
import {
  answerVerdict,
  dropped,
  errorVerdict,
  foreignSource,
  isAllowed,
  isIn,
  nodeVerdict,
  portedVerdict,
  questionVerdict,
  toAll,
  toDenied,
  toGroup,
  toVserver,
  withoutRight,
  type FrameTarget,
  type PacketVerdict,
  type RawLease
} from './packet-verdict.ts'
import { EXTENSION_HEADERS } from './source-check6.ts'

const HEADER_BYTES = 40
const [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION] = [0, 43, 44, 60]
const ICMP = 58
const PROTOCOLS: ReadonlyMap<number, 'tcp' | 'udp' | 'icmp'> = new Map([
  [6, 'tcp'],
  [17, 'udp'],
  [ICMP, 'icmp']
])
/** Types of ICMPv6. */
const [ECHO_REQUEST, ECHO_REPLY, ROUTER_ADVERT] = [128, 129, 134]
const LISTENERS: readonly number[] = [130, 131, 132, 143]
/** Of groups, routers and neighbours. */
const CARE = { first: 130, last: 143 } as const
const ERRORS: readonly number[] = [1, 2, 3, 4]
/** Ports of source and destination. */
const DHCP = ['546 547', '547 546', '547 547']

/**
 * `packet` begins with its IPv6 header, and has what comes behind its payload's end as well. Its checksums are taken for
 * right.
 */
export function packetVerdict6(packet: Buffer, lease: RawLease, to?: FrameTarget): PacketVerdict {
  if (!lease.rawSockets) return withoutRight()
  const verdict =
    careVerdict(packet) ??
    addressVerdict(packet, lease) ??
    headVerdict(packet, to) ??
    cutVerdict(packet) ??
    unreachable(packet, lease) ??
    leavingVerdict(packet, lease)
  return verdict.outcome === 'dropped'
    ? verdict
    : { ...verdict, text: `${verdict.text}, where the node has IPv6` }
}

/** What says something of routers, neighbours or groups, whoever sends it, and what hides something. */
function careVerdict(packet: Buffer): PacketVerdict | undefined {
  const next = packet[6]
  const type = icmpType(packet)
  const isCare = type !== undefined && type >= CARE.first && type <= CARE.last
  const care = dropped(
    'ipv6',
    `ICMPv6 of type ${type} is of groups, routers and neighbours, of which there are none`
  )
  if (next === HOP_BY_HOP && type !== undefined && LISTENERS.includes(type)) return care
  if (next !== undefined && EXTENSION_HEADERS.includes(next))
    return dropped(
      'extension',
      `no extension header leaves, such as this of number ${next}, and so no fragment`
    )
  if (type === ROUTER_ADVERT) return dropped('ra', 'no router advertises itself from a vserver')
  return isCare ? care : undefined
}

/** `undefined` of what ends before. */
export function sourceOf6(packet: Buffer): string | undefined {
  return packet.length < 24 ? undefined : addressAt(packet, 8)
}

function addressVerdict(packet: Buffer, { address6 }: RawLease): PacketVerdict | undefined {
  const source = sourceOf6(packet)
  if (source === undefined) return undefined
  const isOwn = address6 === undefined ? indexOfAddress(source) !== undefined : source === address6
  return isOwn ? undefined : foreignSource(source)
}

function headVerdict(packet: Buffer, to: FrameTarget | undefined): PacketVerdict | undefined {
  if (!isWhole(packet))
    return dropped('length', 'its version is not 6, or its payload’s length is beyond the packet’s end')
  const next = packet[6]!
  const protocol = PROTOCOLS.get(next)
  if (protocol === undefined) return dropped('protocol', `protocol ${next} is none of ICMPv6, TCP and UDP`)
  const data = packet.subarray(HEADER_BYTES)
  if (
    protocol === 'udp' &&
    data.length >= 4 &&
    DHCP.includes(`${data.readUInt16BE(0)} ${data.readUInt16BE(2)}`)
  ) {
    return dropped('dhcp', 'a vserver has its address and asks nobody for one')
  }
  if (to === 'all') return toAll()
  return packet[24] === 0xff || to === 'group' ? toGroup() : undefined
}

/** Of what is whole. */
function cutVerdict(packet: Buffer): PacketVerdict | undefined {
  const protocol = PROTOCOLS.get(packet[6]!)
  const data = packet.subarray(HEADER_BYTES)
  const length = packet.readUInt16BE(4)
  const isCut =
    length < 8 ||
    (protocol === 'tcp' && (length < 20 || data[12]! >> 4 < 5)) ||
    (protocol === 'udp' && data.readUInt16BE(4) < 8)
  if (isCut) return dropped('length', 'it ends within the header behind that of IPv6')
  const type = icmpType(packet)
  const isKnown = type === undefined || type === ECHO_REQUEST || type === ECHO_REPLY || ERRORS.includes(type)
  return isKnown ? undefined : dropped('ipv6', `ICMPv6 of type ${type} leaves no vserver`)
}

function unreachable(packet: Buffer, lease: RawLease): PacketVerdict | undefined {
  const target = addressAt(packet, 24)
  // The node's kernel looks at this before any rule does.
  if (target === '::1') return { outcome: 'dropped', text: '::1 is nobody’s address but the sender’s own' }
  if (target === lease.nodeAddress6) return undefined
  if (isIn(target, [VSERVER_POOL_6])) return toVserver(target)
  return isIn(target, DENIED_6) && !isAllowed(target, lease) ? toDenied(target) : undefined
}

function leavingVerdict(packet: Buffer, lease: RawLease): PacketVerdict {
  const protocol = PROTOCOLS.get(packet[6]!)
  const data = packet.subarray(HEADER_BYTES, HEADER_BYTES + packet.readUInt16BE(4))
  if (protocol !== undefined && addressAt(packet, 24) === lease.nodeAddress6) {
    const verdict = nodeVerdict(protocol, data, lease, [ECHO_REQUEST, ECHO_REPLY])
    if (verdict !== undefined) return verdict
  }
  if (protocol === 'tcp' || protocol === 'udp') return portedVerdict(protocol, data, lease)
  const id = data.readUInt16BE(4)
  if (data[0] === ECHO_REQUEST) return questionVerdict(id, lease)
  return data[0] === ECHO_REPLY ? answerVerdict(id, lease) : errorVerdict()
}

/** Where version and length fit the packet does nft know what it carries. */
function isWhole(packet: Buffer): boolean {
  return (
    packet.length >= HEADER_BYTES &&
    packet[0]! >> 4 === 6 &&
    HEADER_BYTES + packet.readUInt16BE(4) <= packet.length
  )
}

/** Of ICMPv6, also behind extension headers, as far as the kernel follows them. */
function icmpType(packet: Buffer): number | undefined {
  if (!isWhole(packet)) return undefined
  let next = packet[6]!
  let at = HEADER_BYTES
  while (next === HOP_BY_HOP || next === ROUTING || next === DESTINATION || next === FRAGMENT) {
    if (at + 8 > packet.length) return undefined
    // Of a later piece it does not know.
    if (next === FRAGMENT && packet.readUInt16BE(at + 2) >> 3 !== 0) return undefined
    const bytes = next === FRAGMENT ? 8 : (packet[at + 1]! + 1) * 8
    next = packet[at]!
    at += bytes
  }
  return next === ICMP ? packet[at] : undefined
}

function addressAt(packet: Buffer, offset: number): string {
  const words =
    packet
      .subarray(offset, offset + 16)
      .toString('hex')
      .match(/.{4}/g) ?? []
  return canonicalAddress(words.join(':'))
}
