/** What a lease lets programs do with raw sockets, and what becomes of one packet; for the authors of such programs. Pure. */
import { SlicenetError } from '../base/errors.ts'
import { packetVerdict, type PacketVerdict, type RawLease } from '../enforce/network/packet-verdict.ts'
import { SHARED_CLAIM } from '../enforce/network/owned-ports.ts'
import { formatPortRange, parsePortRange, type PortRange } from '../ticket/ports.ts'

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
