/**
 * Token buckets on the uplink (paper §3.3): below the administrator's cap one class for the node's own traffic and one for
 * each vserver, with leaves for its data and for packets that raise alarms elsewhere (ICMP, IP options). Which class a
 * packet belongs to is marked by the node's table.
 */
import { SlicenetError } from '../../base/errors.ts'
import { run, runAnyway } from '../../base/host-program.ts'
import type { Resources } from '../../ticket/resources.ts'
import { indexOfClass, SHAPING_MAJOR, type LinkPlan } from './address-plan.ts'

const ROOT_CLASS = `${SHAPING_MAJOR}:1`
const NODE_CLASS = `${SHAPING_MAJOR}:2`
/** HTB knows no rate of zero; what has no guarantee gets this much. */
const RATE_BPS_MIN = 8000
/** What a vserver may send of ICMP and of packets with IP options, if its cap is not lower still. */
export const CAUTION_BPS_MAX = 128_000
/** Bytes that a class may send before the next one's turn; equal, so that idle capacity is shared equally. */
const QUANTUM_BYTES = 6056
/** A leaf's queue: 100 ms at its cap, and room for two of the largest packets that offloading makes. */
const QUEUE_BYTES_MIN = 128 * 1024
const QUEUE_SECONDS = 0.1
/** A second's worth, so that echoes are lost rather than late. */
const CAUTION_QUEUE_BYTES = 16 * 1024
/** What may leave at once: 10 ms at the rate, so that nothing is lost when a busy kernel is late, and two packets at least. */
const BURST_SECONDS = 0.01
const BURST_BYTES_MIN = 3200

export interface ShapingInit {
  readonly uplink: string
  /** Bits a second: the administrator's cap on all of the node, and what the node's own traffic is guaranteed. */
  readonly rootBps: number
  readonly nodeBps: number
}

/** Puts the root, its cap and the node's class in place and leaves the vservers' classes as they are. */
export async function installShaping(init: ShapingInit): Promise<void> {
  const present = await run('tc', ['qdisc', 'show', 'dev', init.uplink, 'root'])
  const lines = present.includes(`htb ${SHAPING_MAJOR}: `)
    ? []
    : [`qdisc replace dev ${init.uplink} root handle ${SHAPING_MAJOR}: htb default 2`]
  const cap = Math.max(init.rootBps, RATE_BPS_MIN)
  await tcBatch([
    ...lines,
    classLine(init.uplink, SHAPING_MAJOR, ROOT_CLASS, cap, cap),
    // Lowest priority number: the node's own words are never starved by what vservers borrow.
    `${classLine(init.uplink, ROOT_CLASS, NODE_CLASS, Math.min(init.nodeBps, cap), cap)} prio 0`
  ])
}

/** A link and what it is shaped by. */
export interface ShapedLink {
  readonly plan: LinkPlan
  readonly resources: Resources
}

/** Gives vservers their classes, or changes the rates while traffic flows. */
export async function shapeLinks(init: ShapingInit, links: readonly ShapedLink[]): Promise<void> {
  await tcBatch(links.flatMap((link) => classLines(init, link)))
}

/** Removes a vserver's classes; those that are not there are passed over. */
export async function unshapeLink(uplink: string, plan: LinkPlan): Promise<void> {
  const lines = [plan.dataClass, plan.cautionClass, plan.vserverClass].map(
    (minor) => `class del dev ${uplink} classid ${SHAPING_MAJOR}:${minor}`
  )
  await runAnyway('tc', ['-force', '-batch', '-'], { input: `${lines.join('\n')}\n` })
}

/** Removes all classes and gives the uplink its default queue again. Idempotent. */
export async function removeShaping(uplink: string): Promise<void> {
  const present = await runAnyway('tc', ['qdisc', 'show', 'dev', uplink, 'root'])
  if (!present.stdout.includes(`htb ${SHAPING_MAJOR}: `)) return
  await run('tc', ['qdisc', 'del', 'dev', uplink, 'root'])
}

/** Bytes that each link's classes have sent through the uplink, by the link's number. */
export async function sentBytes(uplink: string): Promise<Map<number, number>> {
  return parseSentBytes(await run('tc', ['-s', 'class', 'show', 'dev', uplink]))
}

/** Reads what tc prints for people: its JSON of HTB classes is not JSON (iproute2 6.1). */
export function parseSentBytes(printed: string): Map<number, number> {
  const sent = new Map<number, number>()
  // Only leaves are taken, for what they send is counted in their parent again.
  const leaf = /^class htb 51ce:([0-9a-f]+) .*\bleaf\b.*\n Sent (\d+) bytes/gm
  for (const [, minor = '', bytes] of printed.matchAll(leaf)) {
    const index = indexOfClass(minor)
    if (index !== undefined) sent.set(index, (sent.get(index) ?? 0) + Number(bytes))
  }
  return sent
}

function classLines(init: ShapingInit, { plan, resources }: ShapedLink): string[] {
  const { uplink } = init
  const root = Math.max(init.rootBps, RATE_BPS_MIN)
  const wanted = resources.egressBpsMax > 0 ? resources.egressBpsMax : root
  const cap = clamp(Math.max(wanted, resources.egressBps), 2 * RATE_BPS_MIN, root)
  const rate = clamp(resources.egressBps, 2 * RATE_BPS_MIN, cap)
  const cautionCap = Math.min(cap, CAUTION_BPS_MAX)
  const id = (minor: string): string => `${SHAPING_MAJOR}:${minor}`
  const leaf = (minor: string, bytes: number): string =>
    `qdisc replace dev ${uplink} parent ${id(minor)} handle ${minor}: bfifo limit ${bytes}`
  return [
    classLine(uplink, ROOT_CLASS, id(plan.vserverClass), rate, cap),
    `${classLine(uplink, id(plan.vserverClass), id(plan.dataClass), rate - RATE_BPS_MIN, cap)} prio 1`,
    `${classLine(uplink, id(plan.vserverClass), id(plan.cautionClass), RATE_BPS_MIN, cautionCap)} prio 1`,
    leaf(plan.dataClass, Math.max(QUEUE_BYTES_MIN, bytesIn(QUEUE_SECONDS, cap))),
    leaf(plan.cautionClass, CAUTION_QUEUE_BYTES)
  ]
}

function classLine(uplink: string, parent: string, id: string, rateBps: number, capBps: number): string {
  const parentId = parent.includes(':') ? parent : `${parent}:`
  const rate = Math.max(rateBps, RATE_BPS_MIN)
  const [burst, capBurst] = [rate, capBps].map((bps) =>
    Math.max(BURST_BYTES_MIN, bytesIn(BURST_SECONDS, bps))
  )
  return `class replace dev ${uplink} parent ${parentId} classid ${id} htb rate ${rate}bit ceil ${capBps}bit burst ${burst}b cburst ${capBurst}b quantum ${QUANTUM_BYTES}`
}

async function tcBatch(lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return
  try {
    await run('tc', ['-batch', '-'], { input: `${lines.join('\n')}\n` })
  } catch (error) {
    if (
      error instanceof SlicenetError &&
      /unknown qdisc|Specified qdisc kind is unknown/i.test(error.message)
    ) {
      throw new SlicenetError('KERNEL_FEATURE_MISSING', 'the kernel has no HTB queue', {
        hint: 'use a kernel with CONFIG_NET_SCH_HTB',
        cause: error
      })
    }
    throw error
  }
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), Math.max(most, least))
}

function bytesIn(seconds: number, bps: number): number {
  return Math.floor((bps / 8) * seconds)
}
