/**
 * What the node's rules make of a frame that a program in a vserver sends through a packet socket: the decisions of the source
 * check on its Ethernet addresses, and of the packet in it. Pure.
 */
import { LIMITS } from '../../base/limits.ts'
import { indexOfAddress, planLink, type LinkPlan } from './address-plan.ts'
import {
  dropped,
  foreignSource,
  packetVerdict,
  sourceOf,
  withoutRight,
  type PacketVerdict,
  type RawLease
} from './packet-verdict.ts'
import { packetVerdict6, sourceOf6 } from './packet-verdict6.ts'
import { REFUSALS } from './source-check.ts'

/** As text, lower case, with colons. */
export interface FrameEnds {
  readonly to: string
  readonly from: string
}

export interface SentPacket {
  readonly family: 4 | 6
  /** From its own header on. */
  readonly packet: Buffer
  /** Absent where no frame is known. */
  readonly ends?: FrameEnds | undefined
}

const ALL = 'ff:ff:ff:ff:ff:ff'

/** Of IP. Whose frame it is tell the vserver's address, the frame's own, or that of the packet, the first that there is. */
export function sentVerdict({ family, packet, ends }: SentPacket, lease: RawLease): PacketVerdict {
  if (!lease.rawSockets) return withoutRight()
  const judged = family === 6 ? packetVerdict6 : packetVerdict
  if (ends === undefined) return judged(packet, lease)
  const source = (family === 6 ? sourceOf6 : sourceOf)(packet)
  const given = lease.address ?? lease.address6
  const link = given === undefined ? (linkOfMac(ends.from) ?? linkOf(source)) : linkOf(given)
  const own = link === undefined ? lease : { ...lease, address: link.address, address6: link.address6 }
  const isGroup = (Number.parseInt(ends.to.slice(0, 2), 16) & 1) === 1
  const verdict =
    foreignVerdict(ends, link) ??
    (family === 4 ? brokenVerdict(packet, own) : undefined) ??
    judged(packet, own, ends.to === ALL ? 'all' : isGroup ? 'group' : 'node')
  const isRefused = (REFUSALS as readonly string[]).includes(verdict.reason ?? '')
  if (isRefused || isGroup || link === undefined || ends.to === link.hostMac) return verdict
  return { outcome: 'dropped', text: `${ends.to} is not the node’s end of the link, where nobody else is` }
}

/** Of IPv4: nobody fills in what a packet socket is given. */
function brokenVerdict(packet: Buffer, { address }: RawLease): PacketVerdict | undefined {
  const headerBytes = ((packet[0] ?? 0) % 16) << 2
  const length = packet.length < 4 ? 0 : packet.readUInt16BE(2)
  const isWhole =
    packet.length >= 20 &&
    packet[0]! >> 4 === 4 &&
    headerBytes >= 20 &&
    headerBytes <= length &&
    length <= packet.length
  if (isWhole) return undefined
  const source = sourceOf(packet)
  if (source !== undefined && address !== undefined && source !== address) return foreignSource(source)
  return dropped('length', 'its version is not 4, or its lengths do not fit the frame')
}

/** Of any frame; `undefined` where it is from the vserver's own device, as far as that is known. */
export function foreignFrameVerdict(ends: FrameEnds, lease: RawLease): PacketVerdict | undefined {
  if (!lease.rawSockets) return withoutRight()
  return foreignVerdict(ends, linkOf(lease.address ?? lease.address6))
}

function foreignVerdict({ from }: FrameEnds, link: LinkPlan | undefined): PacketVerdict | undefined {
  return link === undefined || from === link.insideMac
    ? undefined
    : dropped('mac', `the frame’s source ${from} is not the address of the vserver’s own device`)
}

const INSIDE_MAC = new RegExp(`^${planLink(1).insideMac.slice(0, -'00:00'.length)}(..):(..)$`)

function linkOfMac(mac: string): LinkPlan | undefined {
  const [, high, low] = INSIDE_MAC.exec(mac) ?? []
  const index = Number.parseInt(`${high}${low}`, 16)
  return index >= 1 && index <= LIMITS.linksPerNodeMax ? planLink(index) : undefined
}

function linkOf(address: string | undefined): LinkPlan | undefined {
  const index = address === undefined ? undefined : indexOfAddress(address)
  return index === undefined ? undefined : planLink(index)
}
