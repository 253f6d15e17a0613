/**
 * Classes of HTB and their queues, as the kernel's traffic control takes them (linux/pkt_sched.h). Handles and classes are written
 * as tc(8) writes them: `51ce:12`.
 */
import { SlicenetError } from '../../base/errors.ts'
import {
  askKernel,
  attribute,
  deviceNumber,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  type NetlinkRequest
} from '../route-netlink.ts'

const RTM_NEWQDISC = 36
const RTM_GETQDISC = 38
const RTM_NEWTCLASS = 40
const RTM_DELTCLASS = 41
const TCA_KIND = 1
const TCA_OPTIONS = 2
const TCA_HTB_PARMS = 1
const TCA_HTB_RATE64 = 6
const TCA_HTB_CEIL64 = 7
const TCA_FQ_CODEL_MEMORY_LIMIT = 9
const LINKLAYER_ETHERNET = 1
/** What the kernel counts time in: 64 ns. */
const TICKS_PER_SECOND = 1e9 / 64
const UINT32_MAX = 2 ** 32 - 1
/** In the place of a parent: none. */
const TC_H_ROOT = UINT32_MAX

/** Bits a second, and bytes. */
export interface HtbClass {
  readonly parent: string
  readonly id: string
  readonly rateBps: number
  readonly capBps: number
  readonly burstBytes: number
  readonly capBurstBytes: number
  readonly quantumBytes: number
  /** The lowest goes first. */
  readonly prio: number
}

export interface LeafQueueInit {
  readonly parent: string
  /** With a colon at its end. */
  readonly handle: string
  readonly kind: 'bfifo' | 'fq_codel'
  readonly bytesMax: number
}

export type ShapingChange =
  | { readonly put: 'class'; readonly init: HtbClass }
  | { readonly put: 'queue'; readonly init: LeafQueueInit }

/**
 * Puts classes and queues of a device in place, or changes them. Throws `KERNEL_REFUSED` at what the kernel refuses, with the name
 * of its error as `details.errno`.
 */
export async function putShaping(device: string, changes: readonly ShapingChange[]): Promise<void> {
  const number = deviceNumber(device)
  if (number === undefined) throw refused(device, 'there is no such device')
  const requests = changes.map((change) =>
    change.put === 'class' ? classRequest(number, change.init) : queueRequest(number, change.init)
  )
  const refusals = await askKernel(requests)
  const at = refusals.findIndex((refusal) => refusal !== undefined)
  const [change, refusal] = [changes[at], refusals[at]]
  if (change === undefined || refusal === undefined) return
  const { parent } = change.init
  const { errno, message } = refusal
  throw refused(device, `${change.put} below ${parent}: ${message || errno}`, errno)
}

/** Whether the queue at the root of a device has this handle, with a colon at its end. */
export async function hasRootQueue(device: string, handle: string): Promise<boolean> {
  const number = deviceNumber(device)
  if (number === undefined) return false
  const payload = header(number, { handle: numberOf(handle), parent: TC_H_ROOT })
  const [refusal] = await askKernel([{ type: RTM_GETQDISC, payload }])
  return refusal === undefined
}

/** Removes classes with their queues; those that are not there are passed over. */
export async function removeClasses(device: string, ids: readonly string[]): Promise<void> {
  const number = deviceNumber(device)
  if (number === undefined) return
  await askKernel(
    ids.map((id) => ({
      type: RTM_DELTCLASS,
      payload: Buffer.concat([header(number, { handle: numberOf(id), parent: 0 })])
    }))
  )
}

function refused(device: string, why: string, errno = 'ENODEV'): SlicenetError {
  return new SlicenetError('KERNEL_REFUSED', `the kernel does not shape ${device}: ${why}`, {
    details: { device, errno }
  })
}

function classRequest(device: number, init: HtbClass): NetlinkRequest {
  const rate = bytesPerSecond(init.rateBps)
  const cap = bytesPerSecond(init.capBps)
  const parms = Buffer.concat([
    rateSpec(rate),
    rateSpec(cap),
    words(ticks(init.burstBytes, rate), ticks(init.capBurstBytes, cap), init.quantumBytes, 0, init.prio)
  ])
  const wide = [
    { type: TCA_HTB_RATE64, value: rate },
    { type: TCA_HTB_CEIL64, value: cap }
  ].flatMap(({ type, value }) => (value > UINT32_MAX ? [attribute(type, wideWord(value))] : []))
  return {
    type: RTM_NEWTCLASS,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    payload: Buffer.concat([
      header(device, { handle: numberOf(init.id), parent: numberOf(init.parent) }),
      attribute(TCA_KIND, Buffer.from('htb\0')),
      attribute(TCA_OPTIONS, [attribute(TCA_HTB_PARMS, parms), ...wide])
    ])
  }
}

function queueRequest(device: number, init: LeafQueueInit): NetlinkRequest {
  const limit = words(Math.min(init.bytesMax, UINT32_MAX))
  const options = init.kind === 'bfifo' ? limit : attribute(TCA_FQ_CODEL_MEMORY_LIMIT, limit)
  return {
    type: RTM_NEWQDISC,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    payload: Buffer.concat([
      header(device, { handle: numberOf(init.handle), parent: numberOf(init.parent) }),
      attribute(TCA_KIND, Buffer.from(`${init.kind}\0`)),
      attribute(TCA_OPTIONS, options)
    ])
  }
}

/** `struct tcmsg`. */
function header(
  device: number,
  { handle, parent }: { readonly handle: number; readonly parent: number }
): Buffer {
  return words(0, device, handle, parent, 0)
}

/** `struct tc_ratespec`; with the kind of link said, the kernel works the rest out itself. */
function rateSpec(rate: number): Buffer {
  const spec = Buffer.alloc(12)
  spec.writeUInt8(LINKLAYER_ETHERNET, 1)
  spec.writeUInt32LE(Math.min(rate, UINT32_MAX), 8)
  return spec
}

function ticks(bytes: number, rate: number): number {
  return Math.min(UINT32_MAX, Math.floor((bytes * TICKS_PER_SECOND) / rate))
}

function bytesPerSecond(bps: number): number {
  return Math.max(1, Math.floor(bps / 8))
}

/** `51ce:12` as the kernel has it. */
function numberOf(handle: string): number {
  const [major = '', minor = ''] = handle.split(':')
  return Number.parseInt(major, 16) * 0x1_0000 + Number.parseInt(minor || '0', 16)
}

function words(...values: readonly number[]): Buffer {
  const buffer = Buffer.alloc(4 * values.length)
  for (const [index, value] of values.entries()) buffer.writeUInt32LE(value, 4 * index)
  return buffer
}

function wideWord(value: number): Buffer {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(BigInt(value))
  return buffer
}
