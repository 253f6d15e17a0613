/** Builds packets of IPv6 byte by byte, wrong ones too, as frames.ts does those of IPv4. */
import { addressBytes } from '../../../src/base/ip-address.ts'
import type { LinkPlan } from '../../../src/enforce/network/address-plan.ts'
import { checksum, TCP, UDP } from './frames.ts'

export const ICMP6 = 58

export interface Ends {
  readonly src: string
  readonly dst: string
}

export interface Ipv6Init extends Ends {
  /** The number of what `body` begins with. */
  readonly next: number
  readonly body: Buffer
  readonly version?: number
  /** Default what fits. */
  readonly payloadLength?: number
}

export function ipv6Packet({ src, dst, next, body, version = 6, payloadLength }: Ipv6Init): Buffer {
  const head = Buffer.alloc(40)
  head.writeUInt8(version << 4, 0)
  head.writeUInt16BE(payloadLength ?? body.length, 4)
  head.writeUInt8(next, 6)
  head.writeUInt8(64, 7)
  head.set(addressBytes(src), 8)
  head.set(addressBytes(dst), 24)
  return Buffer.concat([head, body])
}

export interface PortsInit {
  readonly sport: number
  readonly dport: number
  readonly payload?: Buffer
}

/** `length` default what fits. */
export function udp6(
  ends: Ends,
  { sport, dport, payload = Buffer.from('x'), length }: PortsInit & { length?: number }
): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt16BE(sport, 0)
  head.writeUInt16BE(dport, 2)
  head.writeUInt16BE(length ?? 8 + payload.length, 4)
  return summed(ends, 17, Buffer.concat([head, payload]), 6)
}

export interface Tcp6Init extends PortsInit {
  readonly flags: number
  /** In words of four bytes. */
  readonly headerWords?: number
}

export function tcp6(
  ends: Ends,
  { sport, dport, flags, headerWords = 5, payload = Buffer.alloc(0) }: Tcp6Init
): Buffer {
  const head = Buffer.alloc(20)
  head.writeUInt16BE(sport, 0)
  head.writeUInt16BE(dport, 2)
  head.writeUInt32BE(1, 4)
  head.writeUInt8(headerWords << 4, 12)
  head.writeUInt8(flags, 13)
  head.writeUInt16BE(1000, 14)
  return summed(ends, 6, Buffer.concat([head, payload]), 16)
}

export function icmp6(
  ends: Ends,
  type: number,
  rest = 0,
  payload: Buffer = Buffer.alloc(8),
  code = 0
): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt8(type, 0)
  head.writeUInt8(code, 1)
  head.writeUInt32BE(rest, 4)
  return summed(ends, 58, Buffer.concat([head, payload]), 2)
}

function summed({ src, dst }: Ends, number: number, body: Buffer, at: number): Buffer {
  const pseudo = Buffer.alloc(40)
  pseudo.set(addressBytes(src), 0)
  pseudo.set(addressBytes(dst), 16)
  pseudo.writeUInt32BE(body.length, 32)
  pseudo.writeUInt8(number, 39)
  body.writeUInt16BE(checksum(Buffer.concat([pseudo, body])), at)
  return body
}

/** Whole packets. */
export const segment6 = (ends: Ends, init: Tcp6Init): Buffer =>
  ipv6Packet({ ...ends, next: TCP, body: tcp6(ends, init) })
export const datagram6 = (ends: Ends, init: PortsInit): Buffer =>
  ipv6Packet({ ...ends, next: UDP, body: udp6(ends, init) })
export const message6 = (ends: Ends, type: number, rest = 0, payload?: Buffer): Buffer =>
  ipv6Packet({ ...ends, next: ICMP6, body: icmp6(ends, type, rest, payload) })

/** As frames from a vserver's own end of its link to the node's. */
export function framed6(
  packet: Buffer,
  { hostMac, insideMac }: Pick<LinkPlan, 'hostMac' | 'insideMac'>
): Buffer {
  const head = Buffer.from(`${hostMac}${insideMac}86dd`.replaceAll(':', ''), 'hex')
  return Buffer.concat([head, packet])
}
