/** What a lease lets programs do with raw sockets, and what becomes of one packet; for the authors of such programs. Pure. */
import { SlicenetError } from '../base/errors.ts'
import { packetVerdict, type PacketVerdict, type RawLease } from '../enforce/network/packet-verdict.ts'
import { SHARED_CLAIM } from '../enforce/network/owned-ports.ts'
import { ETHER_TYPES, readCapture, type CapturedPacket } from './capture.ts'
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

/** Ethernet addresses and a type of IPv4 before the packet, as sniffers show frames. */
const FRAME_BYTES = 14
const PACKET_BYTES_MAX = 65_535

/** `hex` is an IPv4 packet, or an Ethernet frame with one; spaces, colons and line ends do not count. Throws `USAGE`. */
export function checkPacket(hex: string, lease: RawLease): PacketVerdict {
  const digits = hex.replaceAll(/[\s:]|0x/g, '')
  if (!/^([0-9a-f]{2})+$/i.test(digits) || digits.length > 2 * (PACKET_BYTES_MAX + FRAME_BYTES)) {
    throw new SlicenetError('USAGE', 'a packet is expected as hexadecimal digits', {
      hint: 'print its bytes from the IPv4 header on, such as 45000028…'
    })
  }
  const bytes = Buffer.from(digits, 'hex')
  const isFrame = bytes[0]! >> 4 !== 4 && bytes.length > FRAME_BYTES && bytes.readUInt16BE(12) === 0x0800
  return packetVerdict(isFrame ? bytes.subarray(FRAME_BYTES) : bytes, lease)
}

/** What becomes of each packet of a capture (pcap, pcapng) if a program of the vserver sends it; `max` at most. Throws `USAGE`. */
export function checkCapture(bytes: Buffer, lease: RawLease, max: number): PacketVerdict[] {
  return readCapture(bytes, max).map((packet, at) => capturedVerdict(packet, lease, at + 1))
}

function capturedVerdict(packet: CapturedPacket, lease: RawLease, number: number): PacketVerdict {
  const { etherType, bytes, missingBytes } = packet
  if (etherType === ETHER_TYPES.arp) {
    return { outcome: 'related', text: 'ARP of its own addresses gets as far as the node' }
  }
  const reason = ETHER_TYPES.vlan.some((type) => type === etherType)
    ? 'vlan'
    : etherType === ETHER_TYPES.ipv6
      ? 'ipv6'
      : 'other'
  if (etherType !== ETHER_TYPES.ipv4) {
    const text = 'this is no IPv4 packet, and nothing else leaves a vserver but ARP'
    return { outcome: 'dropped', reason, text }
  }
  if (missingBytes === 0) return packetVerdict(withoutPadding(bytes), lease)
  if (bytes.length < HEADERS_BYTES_MAX) {
    throw new SlicenetError('USAGE', `packet ${number} of the capture has too little of what was sent`, {
      hint: 'capture whole packets: `tcpdump -s 0`'
    })
  }
  // The rules look at headers and lengths alone.
  return packetVerdict(withoutPadding(Buffer.concat([bytes, Buffer.alloc(missingBytes)])), lease)
}

/** The longest of IPv4, and what is looked at of what comes behind it. */
const HEADERS_BYTES_MAX = 60 + 20

/** Short frames are filled up; the packet says itself how long it is. */
function withoutPadding(bytes: Buffer): Buffer {
  const length = bytes.length < 20 ? 0 : bytes.readUInt16BE(2)
  return length >= 20 && length < bytes.length ? bytes.subarray(0, length) : bytes
}
