/**
 * What each number of a vserver's link stands for on its node: device, addresses, hardware addresses, traffic classes.
 * All of it follows from the number, so that kernel state can be recognised without asking anybody.
 */
import { SlicenetError } from '../../base/errors.ts'
import { LIMITS } from '../../base/limits.ts'

/** The prefix of every host end, and how nft writes it. */
export const DEVICE_PREFIX = 'sl'
export const ANY_LINK = `"${DEVICE_PREFIX}*"`
/** All inside addresses; they never leave the node. */
export const VSERVER_POOL = '100.64.0.0/12'
/** The same of nodes that have IPv6: unique local addresses (RFC 4193). */
export const VSERVER_POOL_6 = 'fd51:ce51:ce51::/48'
/** Source ports and ICMP identifiers that nobody owns leave the node from this range. */
export const SHARED_PORTS = { first: 40_000, last: 60_999 } as const
/** The major number of the uplink's classes; unusual, so that no other program's queue is taken for slicenet's. */
export const SHAPING_MAJOR = '51ce'

export interface LinkPlan {
  /** 1 … `LIMITS.linksPerNodeMax`. */
  readonly index: number
  /** The host's end. */
  readonly device: string
  /** The vserver's address, and the node's at the other end of the link. */
  readonly address: string
  readonly gateway: string
  /** The same two of IPv6, as the kernel prints them. */
  readonly address6: string
  readonly gateway6: string
  readonly insideMac: string
  readonly hostMac: string
  /** Class numbers below `SHAPING_MAJOR`, hexadecimal: the vserver's, and its leaves. */
  readonly vserverClass: string
  readonly dataClass: string
  readonly icmpClass: string
  readonly optionsClass: string
  /** Of packets to destinations that are new to the vserver. */
  readonly newClass: string
  /** The handle of its data's queue where the kernel has fair ones. */
  readonly fairQueue: string
}

/** Class numbers of each link, some to spare. */
const CLASSES_PER_LINK = 8
/** Numbers below belong to the root and to the node itself. */
const FIRST_CLASS = 16

export function planLink(index: number): LinkPlan {
  if (!Number.isInteger(index) || index < 1 || index > LIMITS.linksPerNodeMax) {
    throw new TypeError(`no link has the number ${index}`)
  }
  const net = `100.${64 + (index >> 8)}.${index & 0xff}`
  const net6 = `${VSERVER_POOL_6.slice(0, -'::/48'.length)}:${index.toString(16)}`
  const mac = `${hex(index >> 8)}:${hex(index & 0xff)}`
  const firstClass = FIRST_CLASS + index * CLASSES_PER_LINK
  const minor = (offset: number): string => (firstClass + offset).toString(16)
  return {
    index,
    device: `${DEVICE_PREFIX}${index}`,
    address: `${net}.2`,
    gateway: `${net}.1`,
    address6: `${net6}::2`,
    gateway6: `${net6}::1`,
    insideMac: `02:51:ce:02:${mac}`,
    hostMac: `02:51:ce:01:${mac}`,
    vserverClass: minor(0),
    dataClass: minor(1),
    icmpClass: minor(2),
    optionsClass: minor(3),
    newClass: minor(4),
    fairQueue: minor(5)
  }
}

/**
 * The number of the next link: they are used in turn, so that one just freed is not at once another's. Throws `BUSY` when
 * all are used.
 */
export function nextIndex(last: number, used: ReadonlySet<number>): number {
  for (let step = 1; step <= LIMITS.linksPerNodeMax; step++) {
    const index = ((last + step - 1) % LIMITS.linksPerNodeMax) + 1
    if (!used.has(index)) return index
  }
  throw new SlicenetError('BUSY', `the node has ${LIMITS.linksPerNodeMax} links, and no more are possible`)
}

/** The number of the link whose host end has this name; `undefined` for other devices. */
export function indexOfDevice(device: string): number | undefined {
  const digits = /^sl([1-9]\d{0,3})$/.exec(device)?.[1]
  const index = Number(digits)
  return digits === undefined || index > LIMITS.linksPerNodeMax ? undefined : index
}

/** The number of the link that an inside address of either family belongs to; `undefined` for all others, a node's end too. */
export function indexOfAddress(address: string): number | undefined {
  const [, high, low] = /^100\.(6[4-9]|7\d)\.(\d{1,3})\.2$/.exec(address) ?? []
  const six = /^fd51:ce51:ce51:([0-9a-f]{1,4})::2$/.exec(address)?.[1]
  const index = six === undefined ? ((Number(high) - 64) << 8) | Number(low) : Number.parseInt(six, 16)
  return (high ?? six) === undefined || index < 1 || index > LIMITS.linksPerNodeMax ? undefined : index
}

/** The number of the link that a class (hexadecimal minor number) belongs to; `undefined` for the root's and node's. */
export function indexOfClass(minor: string): number | undefined {
  const index = Math.floor((Number.parseInt(minor, 16) - FIRST_CLASS) / CLASSES_PER_LINK)
  return index < 1 || index > LIMITS.linksPerNodeMax ? undefined : index
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0')
}
