/**
 * What each number of a vserver's link stands for on its node: device, addresses, hardware addresses, traffic classes.
 * All of it follows from the number, so that kernel state can be recognised without asking anybody.
 */
import { LIMITS } from '../../base/limits.ts'

/** The prefix of every host end, and how nft writes it. */
export const DEVICE_PREFIX = 'sl'
export const ANY_LINK = `"${DEVICE_PREFIX}*"`
/** All inside addresses; they never leave the node. */
export const VSERVER_POOL = '100.64.0.0/12'
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
  readonly insideMac: string
  readonly hostMac: string
  /** Class numbers below `SHAPING_MAJOR`, hexadecimal: the vserver's, and its two leaves. */
  readonly vserverClass: string
  readonly dataClass: string
  readonly cautionClass: string
}

export function planLink(index: number): LinkPlan {
  if (!Number.isInteger(index) || index < 1 || index > LIMITS.linksPerNodeMax) {
    throw new TypeError(`no link has the number ${index}`)
  }
  const net = `100.${64 + (index >> 8)}.${index & 0xff}`
  const mac = `${hex(index >> 8)}:${hex(index & 0xff)}`
  // Numbers up to 15 belong to the root and to the node itself.
  const firstClass = 16 + index * 4
  return {
    index,
    device: `${DEVICE_PREFIX}${index}`,
    address: `${net}.2`,
    gateway: `${net}.1`,
    insideMac: `02:51:ce:02:${mac}`,
    hostMac: `02:51:ce:01:${mac}`,
    vserverClass: firstClass.toString(16),
    dataClass: (firstClass + 1).toString(16),
    cautionClass: (firstClass + 2).toString(16)
  }
}

/** The number of the link whose host end has this name; `undefined` for other devices. */
export function indexOfDevice(device: string): number | undefined {
  const digits = /^sl([1-9]\d{0,3})$/.exec(device)?.[1]
  const index = Number(digits)
  return digits === undefined || index > LIMITS.linksPerNodeMax ? undefined : index
}

/** The number of the link that a class (hexadecimal minor number) belongs to; `undefined` for the root's and node's. */
export function indexOfClass(minor: string): number | undefined {
  const index = Math.floor((Number.parseInt(minor, 16) - 16) / 4)
  return index < 1 || index > LIMITS.linksPerNodeMax ? undefined : index
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0')
}
