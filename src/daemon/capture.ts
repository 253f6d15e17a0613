/**
 * Reads captures as sniffers write them: classic pcap and pcapng, in either byte order, of the link types that packets of
 * vservers are captured on. Pure.
 */
import { SlicenetError } from '../base/errors.ts'
import type { FrameEnds } from '../enforce/network/frame-verdict.ts'

/** A packet without its link's header. */
export interface CapturedPacket {
  /** The type of Ethernet that it was sent as. */
  readonly etherType: number
  /** Hardware addresses of the frame, where the capture has them. */
  readonly ends?: FrameEnds
  readonly bytes: Buffer
  /** How many of its bytes were not captured. */
  readonly missingBytes: number
}

export const ETHER_TYPES = { ipv4: 0x0800, arp: 0x0806, ipv6: 0x86dd, vlan: [0x8100, 0x88a8] } as const

const CLASSIC = [0xa1b2c3d4, 0xa1b23c4d]
const SECTION = 0x0a0d0d0a
const SECTION_ORDER = 0x1a2b3c4d
const BLOCKS = { interface: 1, simple: 3, enhanced: 6 } as const

/** Whether these bytes begin as a capture does, and no text. */
export function isCapture(bytes: Buffer): boolean {
  if (bytes.length < 8) return false
  return bytes.readUInt32BE(0) === SECTION || orderOf(bytes, 0, CLASSIC) !== undefined
}

/** At most `max` packets, from the first on; what a sniffer was still writing is left out. Throws `USAGE`. */
export function readCapture(bytes: Buffer, max: number): CapturedPacket[] {
  if (!isCapture(bytes)) throw bad('expected a capture in the format of pcap or pcapng')
  const packets: CapturedPacket[] = []
  const found = bytes.readUInt32BE(0) === SECTION ? sectionPackets(bytes) : classicPackets(bytes)
  for (const packet of found) {
    if (packets.length === max) break
    packets.push(packet)
  }
  return packets
}

type Order = 'LE' | 'BE'

function orderOf(bytes: Buffer, offset: number, magics: readonly number[]): Order | undefined {
  if (magics.includes(bytes.readUInt32BE(offset))) return 'BE'
  return magics.includes(bytes.readUInt32LE(offset)) ? 'LE' : undefined
}

type Read = (at: number) => number

function reader(bytes: Buffer, order: Order): { readonly u32: Read; readonly u16: Read } {
  return {
    u32: (at) => (order === 'LE' ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at)),
    u16: (at) => (order === 'LE' ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at))
  }
}

function* classicPackets(bytes: Buffer): Iterable<CapturedPacket> {
  if (bytes.length < 24) return
  const { u32 } = reader(bytes, orderOf(bytes, 0, CLASSIC) ?? 'BE')
  // The upper bits say how long the check sequences of frames are.
  const linkType = u32(20) & 0x0fff_ffff
  for (let at = 24; at + 16 <= bytes.length;) {
    const [captured, whole] = [u32(at + 8), u32(at + 12)]
    const end = at + 16 + captured
    if (end > bytes.length) return
    yield packetOf(linkType, bytes.subarray(at + 16, end), whole)
    at = end
  }
}

function* sectionPackets(bytes: Buffer): Iterable<CapturedPacket> {
  let order: Order = 'LE'
  let linkTypes: { readonly linkType: number; readonly most: number }[] = []
  for (let at = 0; at + 12 <= bytes.length;) {
    if (bytes.readUInt32BE(at) === SECTION) {
      order = orderOf(bytes, at + 8, [SECTION_ORDER]) ?? 'LE'
      linkTypes = []
    }
    const { u32, u16 } = reader(bytes, order)
    const [type, length] = [u32(at), u32(at + 4)]
    if (length < 12 || length % 4 !== 0) throw bad('a block of the capture has a length that none can have')
    if (at + length > bytes.length) return
    const body = at + 8
    if (type === BLOCKS.interface && length >= 20) {
      linkTypes.push({ linkType: u16(body), most: u32(body + 4) || Infinity })
    }
    if (type === BLOCKS.enhanced && length >= 32) {
      const [captured, whole] = [u32(body + 12), u32(body + 16)]
      const of = linkTypes[u32(body)]
      if (of === undefined || captured > length - 32)
        throw bad('a packet of the capture is on no interface of it')
      yield packetOf(of.linkType, bytes.subarray(body + 20, body + 20 + captured), whole)
    }
    if (type === BLOCKS.simple && length >= 16) {
      const of = linkTypes[0]
      if (of === undefined) throw bad('a packet of the capture is on no interface of it')
      const whole = u32(body)
      const captured = Math.min(whole, of.most, length - 16)
      yield packetOf(of.linkType, bytes.subarray(body + 4, body + 4 + captured), whole)
    }
    at += length
  }
}

/** With its addresses and type in front, and no tag. */
export const ETHERNET_BYTES = 14
const ETHERNET = 1

/** What is in a frame of `ETHERNET_BYTES` at least. */
export function framedPacket(frame: Buffer): CapturedPacket {
  const [to = '', from = ''] = [0, 6].map((at) =>
    frame
      .subarray(at, at + 6)
      .toString('hex')
      .replaceAll(/(?!^)(?=(?:..)+$)/g, ':')
  )
  return {
    etherType: frame.readUInt16BE(12),
    ends: { to, from },
    bytes: frame.subarray(ETHERNET_BYTES),
    missingBytes: 0
  }
}

/** What comes before the packet, and where in it its type is, by the numbers of the tcpdump project. */
const HEADERS: ReadonlyMap<number, { readonly bytes: number; readonly typeAt: number }> = new Map([
  [ETHERNET, { bytes: ETHERNET_BYTES, typeAt: 12 }],
  [113, { bytes: 16, typeAt: 14 }],
  [276, { bytes: 20, typeAt: 0 }]
])
/** Nothing but an IP packet. */
const BARE: readonly number[] = [101, 228, 12]

function packetOf(linkType: number, frame: Buffer, whole: number): CapturedPacket {
  const missingBytes = Math.max(0, whole - frame.length)
  if (BARE.includes(linkType)) {
    const etherType = (frame[0] ?? 0) >> 4 === 6 ? ETHER_TYPES.ipv6 : ETHER_TYPES.ipv4
    return { etherType, bytes: frame, missingBytes }
  }
  const header = HEADERS.get(linkType)
  if (header === undefined)
    throw bad(`the capture is of link type ${linkType}: Ethernet, Linux cooked and raw IP can be read`)
  if (frame.length < header.bytes) return { etherType: 0, bytes: Buffer.alloc(0), missingBytes }
  if (linkType === ETHERNET) return { ...framedPacket(frame), missingBytes }
  return {
    etherType: frame.readUInt16BE(header.typeAt),
    bytes: frame.subarray(header.bytes),
    missingBytes
  }
}

function bad(message: string): SlicenetError {
  return new SlicenetError('USAGE', message, { hint: 'write it with `tcpdump -w FILE`' })
}
