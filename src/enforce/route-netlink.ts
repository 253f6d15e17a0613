/**
 * Asks the kernel for changes by rtnetlink(7), for what every vserver waits for where the program for it, tc(8), reads all of the
 * node's devices before each change. Linux only.
 */
import { SlicenetError } from '../base/errors.ts'
import { atFirstUse, errnoName } from './syscall.ts'

const AF_NETLINK = 16
const SOCK_RAW_CLOEXEC = 0o2000003
const NETLINK_ROUTE = 0
const SOL_NETLINK = 270
const NETLINK_CAP_ACK = 10
const NETLINK_EXT_ACK = 11
const MSG_DONTWAIT = 0x40
const MSG_TRUNC = 0x20
const NLM_F_REQUEST = 0x01
const NLM_F_ACK = 0x04
const NLM_F_CAPPED = 0x100
const NLM_F_ACK_TLVS = 0x200
const NLMSG_ERROR = 2
const NLMSGERR_ATTR_MSG = 1
const HEADER_BYTES = 16
/** Requests that are sent at once: the answers to them fit what a socket holds by default. */
const REQUESTS_MAX = 64
const RECEIVED_BYTES_MAX = 64 * 1024

/** What `NLM_F_*` flags a request has beside those of all requests. */
export const NLM_F_REPLACE = 0x100
export const NLM_F_CREATE = 0x400

export interface NetlinkRequest {
  /** `RTM_*`. */
  readonly type: number
  readonly flags?: number
  /** The type's own header, and attributes. */
  readonly payload: Buffer
}

/** Why the kernel did not do what it was asked: the error's name (`ENOENT`), and what it said beside that. */
export interface NetlinkRefusal {
  readonly errno: string
  readonly message: string
}

/**
 * Has the kernel do these in their order, each whether or not those before it were done, and gives for each why it was not.
 * Throws `KERNEL_REFUSED` when the kernel does not answer.
 */
export async function askKernel(
  requests: readonly NetlinkRequest[]
): Promise<(NetlinkRefusal | undefined)[]> {
  const c = calls()
  const socket = c.socket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_ROUTE)
  if (socket < 0) throw silent(`it gives no netlink socket: ${errnoName()}`)
  try {
    const on = Buffer.from([1, 0, 0, 0])
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK]) c.setsockopt(socket, SOL_NETLINK, option, on, 4)
    const refusals: (NetlinkRefusal | undefined)[] = []
    for (let at = 0; at < requests.length; at += REQUESTS_MAX) {
      const messages = requests.slice(at, at + REQUESTS_MAX).map(messageOf)
      // It may wait for whoever else changes the network, and does all before it returns.
      const sent = await sendTo(socket, Buffer.concat(messages))
      if (!sent) throw silent('it took no netlink message')
      refusals.push(...answers(socket, messages.length))
    }
    return refusals
  } finally {
    c.close(socket)
  }
}

function silent(why: string): SlicenetError {
  return new SlicenetError('KERNEL_REFUSED', `the kernel cannot be asked for changes of the network: ${why}`)
}

/** The number of a network device of this process's namespace; undefined where there is none. */
export function deviceNumber(name: string): number | undefined {
  const number = calls().ifNameToIndex(name)
  return number === 0 ? undefined : number
}

/** An attribute, padded as netlink has them; `content` may be attributes itself. */
export function attribute(type: number, content: Buffer | readonly Buffer[]): Buffer {
  const value = Buffer.isBuffer(content) ? content : Buffer.concat(content)
  const head = Buffer.alloc(4)
  head.writeUInt16LE(4 + value.length, 0)
  head.writeUInt16LE(type, 2)
  return Buffer.concat([head, value, Buffer.alloc(-value.length & 3)])
}

function messageOf({ type, flags = 0, payload }: NetlinkRequest): Buffer {
  const head = Buffer.alloc(HEADER_BYTES)
  head.writeUInt32LE(HEADER_BYTES + payload.length, 0)
  head.writeUInt16LE(type, 4)
  head.writeUInt16LE(NLM_F_REQUEST | NLM_F_ACK | flags, 6)
  return Buffer.concat([head, payload])
}

async function sendTo(socket: number, bytes: Buffer): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  calls().send.async(socket, bytes, bytes.length, 0, (error: Error | null, sent: number) =>
    error === null ? resolve(sent) : reject(error)
  )
  return (await promise) === bytes.length
}

/** One for each request, in their order. */
function answers(socket: number, count: number): (NetlinkRefusal | undefined)[] {
  const found: (NetlinkRefusal | undefined)[] = []
  const buffer = Buffer.alloc(RECEIVED_BYTES_MAX)
  while (found.length < count) {
    const length = calls().recv(socket, buffer, buffer.length, MSG_DONTWAIT | MSG_TRUNC)
    if (length <= 0 || length > buffer.length) {
      throw silent(`it answered ${found.length} of ${count} netlink messages`)
    }
    for (let at = 0; at + HEADER_BYTES <= length;) {
      const size = buffer.readUInt32LE(at)
      if (buffer.readUInt16LE(at + 4) === NLMSG_ERROR) found.push(refusalIn(buffer.subarray(at, at + size)))
      at += (size + 3) & ~3
    }
  }
  return found
}

function refusalIn(message: Buffer): NetlinkRefusal | undefined {
  const error = -message.readInt32LE(HEADER_BYTES)
  return error === 0 ? undefined : { errno: errnoName(error), message: saidIn(message) }
}

/** What the kernel says in words, which most refusals have. */
function saidIn(message: Buffer): string {
  const flags = message.readUInt16LE(6)
  if ((flags & NLM_F_ACK_TLVS) === 0) return ''
  // Behind the error comes the request's header, and the rest of it where that was not left out.
  const asked = (flags & NLM_F_CAPPED) === 0 ? message.readUInt32LE(HEADER_BYTES + 4) : HEADER_BYTES
  for (let at = HEADER_BYTES + 4 + ((asked + 3) & ~3); at + 4 <= message.length;) {
    const size = message.readUInt16LE(at)
    if (message.readUInt16LE(at + 2) === NLMSGERR_ATTR_MSG) {
      return message.toString('utf8', at + 4, at + size).replace(/\0+$/, '')
    }
    at += Math.max(4, (size + 3) & ~3)
  }
  return ''
}

type Send = (socket: number, bytes: Buffer, size: number, flags: number) => number
interface Calls {
  readonly socket: (family: number, type: number, protocol: number) => number
  readonly setsockopt: (socket: number, level: number, option: number, value: Buffer, size: number) => number
  readonly send: {
    readonly async: (...args: [...Parameters<Send>, (error: Error | null, sent: number) => void]) => void
  }
  readonly recv: (socket: number, buffer: Buffer, size: number, flags: number) => number
  readonly close: (socket: number) => number
  readonly ifNameToIndex: (name: string) => number
}

const calls = atFirstUse((f): Calls => ({
  socket: f('socket', ['int', 'int', 'int']),
  setsockopt: f('setsockopt', ['int', 'int', 'int', 'void *', 'uint']),
  send: f('send', ['int', 'void *', 'size_t', 'int'], 'long'),
  recv: f('recv', ['int', 'void *', 'size_t', 'int'], 'long'),
  close: f('close', ['int']),
  ifNameToIndex: f('if_nametoindex', ['str'], 'uint')
}))
