/** What a lease lets programs do with raw sockets, and what becomes of one packet; for the authors of such programs. Pure. */
import { isIPv4, isIPv6 } from 'node:net'
import { asSlicenetError, SlicenetError } from '../base/errors.ts'
import { canonicalAddress } from '../base/ip-address.ts'
import { indexOfAddress, planLink } from '../enforce/network/address-plan.ts'
import { foreignFrameVerdict, sentVerdict } from '../enforce/network/frame-verdict.ts'
import type { PacketVerdict, RawLease } from '../enforce/network/packet-verdict.ts'
import { requireRanges } from '../enforce/network/node-table.ts'
import { SHARED_CLAIM } from '../enforce/network/owned-ports.ts'
import { ETHER_TYPES, ETHERNET_BYTES, framedPacket, readCapture, type CapturedPacket } from './capture.ts'
import { formatPortRange, parsePortRange, type PortRange } from '../ticket/ports.ts'

export { isCapture } from './capture.ts'
export { parsePortRange }
export type { PacketVerdict, PortRange }

export interface RawAllowance {
  /** Whether the sockets below may be made; without the right each is `EPERM`. */
  readonly rawSockets: boolean
  readonly sockets: readonly string[]
  /** What leaves with its own number, whatever else is in the packet. */
  readonly owned: readonly string[]
  /** Where what begins at other ports and identifiers leaves from. */
  readonly shared: readonly string[]
}

const SOCKETS = [
  'socket(AF_INET, SOCK_RAW, any protocol), with IP_HDRINCL',
  'socket(AF_INET6, SOCK_RAW, any protocol), where the node has IPv6',
  'socket(AF_PACKET, SOCK_RAW or SOCK_DGRAM, any protocol) on the devices of the vserver'
]

export function rawAllowance(lease: RawLease): RawAllowance {
  const formatted = (ranges: readonly PortRange[]): string[] => ranges.map(formatPortRange)
  return {
    rawSockets: lease.rawSockets,
    sockets: lease.rawSockets ? SOCKETS : [],
    owned: formatted(lease.ports),
    shared: formatted(SHARED_CLAIM.ports)
  }
}

/** A vserver's own addresses, by one of them of either family; `undefined` of what is no address. */
export function ownAddresses(given: string): Pick<RawLease, 'address' | 'address6'> | undefined {
  if (!isIPv4(given) && (!isIPv6(given) || given.includes('%'))) return undefined
  const own = canonicalAddress(given)
  const index = indexOfAddress(own)
  if (index === undefined) return isIPv4(own) ? { address: own } : { address6: own }
  const { address, address6 } = planLink(index)
  return { address, address6 }
}

/** Throws `USAGE` where one is no range of addresses. */
export function allowedRanges(given: readonly string[]): readonly string[] {
  try {
    requireRanges(given)
    return given
  } catch (error) {
    const { message, hint } = asSlicenetError(error)
    throw new SlicenetError('USAGE', message, hint === undefined ? {} : { hint })
  }
}

const PACKET_BYTES_MAX = 65_535

/**
 * `hex` is an IPv4 or IPv6 packet, or an Ethernet frame; spaces, colons and line ends do not count. Throws `USAGE`.
 */
export function checkPacket(hex: string, lease: RawLease): PacketVerdict {
  const digits = hex.replaceAll(/[\s:]|0x/g, '')
  if (!/^([0-9a-f]{2})+$/i.test(digits) || digits.length > 2 * (PACKET_BYTES_MAX + ETHERNET_BYTES)) {
    throw new SlicenetError('USAGE', 'a packet is expected as hexadecimal digits', {
      hint: 'print its bytes from the IP header on, such as 45000028… or 60000000…'
    })
  }
  const bytes = Buffer.from(digits, 'hex')
  if (isFrame(bytes)) return capturedVerdict(framedPacket(bytes), lease, 1)
  return sentVerdict({ family: bytes[0]! >> 4 === 6 ? 6 : 4, packet: bytes }, lease)
}

/** Frames may begin as packets do: then it is their type that tells. */
function isFrame(bytes: Buffer): boolean {
  const version = bytes[0]! >> 4
  if (version === 4 || bytes.length <= ETHERNET_BYTES) return false
  return version !== 6 || (KNOWN_TYPES.includes(bytes.readUInt16BE(12)) && !isSix(bytes))
}

const KNOWN_TYPES: readonly number[] = Object.values(ETHER_TYPES).flat()

/** Whether it is one from its first byte to its last. */
function isSix(bytes: Buffer): boolean {
  return bytes.length >= SIX_HEADER_BYTES && SIX_HEADER_BYTES + bytes.readUInt16BE(4) === bytes.length
}

const SIX_HEADER_BYTES = 40

/** What becomes of each packet of a capture (pcap, pcapng) if a program of the vserver sends it; `max` at most. Throws `USAGE`. */
export function checkCapture(bytes: Buffer, lease: RawLease, max: number): PacketVerdict[] {
  return readCapture(bytes, max).map((packet, at) => capturedVerdict(packet, lease, at + 1))
}

function capturedVerdict(packet: CapturedPacket, lease: RawLease, number: number): PacketVerdict {
  const { etherType, ends } = packet
  if (etherType === ETHER_TYPES.ipv4) {
    return sentVerdict({ family: 4, packet: withoutPadding(wholeOf(packet, 4, number)), ends }, lease)
  }
  if (etherType === ETHER_TYPES.ipv6) {
    return sentVerdict({ family: 6, packet: wholeOf(packet, 6, number), ends }, lease)
  }
  const foreign = ends === undefined ? undefined : foreignFrameVerdict(ends, lease)
  if (foreign !== undefined) return foreign
  if (etherType === ETHER_TYPES.arp) {
    return { outcome: 'related', text: 'ARP of its own addresses gets as far as the node' }
  }
  const reason = ETHER_TYPES.vlan.some((type) => type === etherType) ? 'vlan' : 'other'
  return {
    outcome: 'dropped',
    reason,
    text: 'this is no IP packet, and nothing else leaves a vserver but ARP'
  }
}

/** The rules look at headers and lengths alone, so the rest may be missing. Throws `USAGE` where more is. */
function wholeOf({ bytes, missingBytes }: CapturedPacket, family: 4 | 6, number: number): Buffer {
  if (missingBytes === 0) return bytes
  if (bytes.length < HEADERS_BYTES_MAX[family]) {
    throw new SlicenetError('USAGE', `packet ${number} of the capture has too little of what was sent`, {
      hint: 'capture whole packets: `tcpdump -s 0`'
    })
  }
  return Buffer.concat([bytes, Buffer.alloc(Math.min(missingBytes, PACKET_BYTES_MAX))])
}

/** The longest header, and what is looked at of what comes behind it. */
const HEADERS_BYTES_MAX = { 4: 60 + 20, 6: SIX_HEADER_BYTES + 20 } as const

/** Short frames are filled up; the packet says itself how long it is. */
function withoutPadding(bytes: Buffer): Buffer {
  const length = bytes.length < 20 ? 0 : bytes.readUInt16BE(2)
  return length >= 20 && length < bytes.length ? bytes.subarray(0, length) : bytes
}
