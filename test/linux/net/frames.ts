/** Builds frames byte by byte, wrong ones too, for tests that send what no kernel would. */

export interface Ipv4Init {
  readonly src: string
  readonly dst: string
  readonly protocol: number
  readonly body: Buffer
  readonly options?: readonly number[]
  /** Flags and offset, as they are in the header. */
  readonly fragment?: number
  readonly version?: number
  /** In words of four bytes; default what fits. */
  readonly headerWords?: number
  /** Default what fits. */
  readonly totalLength?: number
}

export const TCP = 6
export const UDP = 17
export const ICMP = 1

export function ipv4(init: Ipv4Init): Buffer {
  const { src, dst, protocol, body, options = [], fragment = 0, version = 4 } = init
  const length = 20 + options.length
  const head = Buffer.alloc(length)
  head.writeUInt8((version << 4) | (init.headerWords ?? length / 4), 0)
  head.writeUInt16BE(init.totalLength ?? length + body.length, 2)
  head.writeUInt16BE(7, 4)
  head.writeUInt16BE(fragment, 6)
  head.writeUInt8(64, 8)
  head.writeUInt8(protocol, 9)
  head.set(address(src), 12)
  head.set(address(dst), 16)
  head.set(options, 20)
  head.writeUInt16BE(checksum(head), 10)
  return Buffer.concat([head, body])
}

/** Without a checksum, which UDP allows; `length` default what fits. */
export function udpBody(sport: number, dport: number, payload: Buffer, length = 8 + payload.length): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt16BE(sport, 0)
  head.writeUInt16BE(dport, 2)
  head.writeUInt16BE(length, 4)
  return Buffer.concat([head, payload])
}

export interface TcpInit {
  readonly src: string
  readonly dst: string
  readonly sport: number
  readonly dport: number
  readonly flags: number
  readonly payload: Buffer
  /** In words of four bytes. */
  readonly headerWords?: number
}

export function tcpBody({ src, dst, sport, dport, flags, payload, headerWords = 5 }: TcpInit): Buffer {
  const head = Buffer.alloc(20)
  head.writeUInt16BE(sport, 0)
  head.writeUInt16BE(dport, 2)
  head.writeUInt32BE(1, 4)
  head.writeUInt8(headerWords << 4, 12)
  head.writeUInt8(flags, 13)
  head.writeUInt16BE(1000, 14)
  const whole = Buffer.concat([head, payload])
  const pseudo = Buffer.from([
    ...address(src),
    ...address(dst),
    0,
    TCP,
    whole.length >> 8,
    whole.length & 0xff
  ])
  whole.writeUInt16BE(checksum(Buffer.concat([pseudo, whole])), 16)
  return whole
}

export function icmpBody(type: number, code: number, rest: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt8(type, 0)
  head.writeUInt8(code, 1)
  head.writeUInt32BE(rest, 4)
  const whole = Buffer.concat([head, payload])
  whole.writeUInt16BE(checksum(whole), 2)
  return whole
}

/** From a link-local address to all nodes; `next` is the number of what `body` begins with. */
export function ipv6(next: number, body: Buffer): Buffer {
  const head = Buffer.alloc(40)
  head.writeUInt8(0x60, 0)
  head.writeUInt16BE(body.length, 4)
  head.writeUInt8(next, 6)
  head.writeUInt8(255, 7)
  head.set([0xfe, 0x80], 8)
  head.writeUInt8(9, 23)
  head.set([0xff, 2], 24)
  head.writeUInt8(1, 39)
  return Buffer.concat([head, body])
}

export function arp(senderMac: Buffer, sender: string, target: string): Buffer {
  return Buffer.concat([
    Buffer.from('0001080006040001', 'hex'),
    senderMac,
    Buffer.from(address(sender)),
    Buffer.alloc(6),
    Buffer.from(address(target))
  ])
}

export function ethernet(to: Buffer, from: Buffer, type: number, body: Buffer): Buffer {
  return Buffer.concat([to, from, Buffer.from([type >> 8, type & 0xff]), body])
}

export const address = (text: string): number[] => text.split('.').map(Number)

/** Of the internet protocols (RFC 1071). */
export function checksum(data: Buffer): number {
  const even = data.length % 2 === 0 ? data : Buffer.concat([data, Buffer.alloc(1)])
  let total = 0
  for (let at = 0; at < even.length; at += 2) total += even.readUInt16BE(at)
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000)
  return ~total & 0xffff
}
