/**
 * Token buckets on the uplink (paper §3.3): below the administrator's cap one class for the node's own traffic and one for
 * each vserver, with leaves for its data and for packets that raise alarms elsewhere (ICMP, IP options, first packets to new
 * destinations). Which class a packet belongs to is marked by the node's table.
 */
import { SlicenetError } from '../../base/errors.ts'
import { run, runAnyway } from '../../base/host-program.ts'
import type { Resources } from '../../ticket/resources.ts'
import type { Shaping } from '../../ticket/shaping.ts'
import { indexOfClass, SHAPING_MAJOR, type LinkPlan } from './address-plan.ts'
import {
  bytesIn,
  CAUTION_BPS_MIN,
  CAUTION_QUANTUM_BYTES,
  cautionQueueBytes,
  dataQueueBytes,
  quantumOf,
  RATE_BPS_MIN,
  shapingOf,
  vserverRates,
  type ShapingPolicy
} from './rates.ts'
import { hasRootQueue, putShaping, removeClasses, type ShapingChange } from './traffic-control.ts'

const ROOT_CLASS = `${SHAPING_MAJOR}:1`
const NODE_CLASS = `${SHAPING_MAJOR}:2`
/** What may leave at once: 10 ms at the rate, so that nothing is lost when a busy kernel is late, and two packets at least. */
const BURST_SECONDS = 0.01
const BURST_BYTES_MIN = 3200
/** Of the node's own traffic, which goes first anyway. */
const NODE_SHARE = 10
/** What the kernel counts for a packet that waits, over the packet's own size, at worst for packets of common size. */
const FAIR_QUEUE_OVERHEAD = 2

export interface ShapingInit {
  readonly uplink: string
  /** Bits a second: the administrator's cap on all of the node, and what the node's own traffic is guaranteed. */
  readonly rootBps: number
  readonly nodeBps: number
  readonly policy: ShapingPolicy
}

/** Throws `CONFIG_INVALID` where another program shapes the uplink: its queue is left alone. */
export async function requireUnshaped(uplink: string): Promise<void> {
  const present = await rootQueue(uplink)
  // What the kernel puts there by itself has no handle.
  if (present === undefined || present.handle === SHAPING_MAJOR || present.handle === '0') return
  const queue = `${present.kind} ${present.handle}:`
  throw new SlicenetError(
    'CONFIG_INVALID',
    `another program shapes the uplink ${uplink}: it has the queue ${queue}`,
    {
      hint: `name another uplink, or remove the queue with \`tc qdisc del dev ${uplink} root\``,
      details: { uplink, ...present }
    }
  )
}

/** Whether the queue at the root of a device is the node's. */
export async function isShaped(uplink: string): Promise<boolean> {
  return hasRootQueue(uplink, `${SHAPING_MAJOR}:`)
}

/** The queue at the root of a device. */
async function rootQueue(
  device: string
): Promise<{ readonly kind: string; readonly handle: string } | undefined> {
  const printed = await run('tc', ['qdisc', 'show', 'dev', device, 'root'])
  const [, kind, handle] = /^qdisc (\S+) ([0-9a-f]+): root\b/m.exec(printed) ?? []
  return kind === undefined || handle === undefined ? undefined : { kind, handle }
}

/** What waits in a leaf: by flow, so that one does not delay the others, where the kernel has that. */
export type LeafQueue = 'fq_codel' | 'bfifo'

/**
 * Puts the root, its cap and the node's class in place and leaves the vservers' classes as they are. Finds out which queue
 * the kernel has for leaves.
 */
export async function installShaping(init: ShapingInit): Promise<LeafQueue> {
  const present = await rootQueue(init.uplink)
  if (present?.handle !== SHAPING_MAJOR) await putRoot(init.uplink)
  const cap = Math.max(init.rootBps, RATE_BPS_MIN)
  await putShaping(init.uplink, [
    putClass({ parent: `${SHAPING_MAJOR}:`, id: ROOT_CLASS, rateBps: cap, capBps: cap }),
    putClass({
      parent: ROOT_CLASS,
      id: NODE_CLASS,
      rateBps: Math.min(init.nodeBps, cap),
      capBps: cap,
      quantumBytes: quantumOf(NODE_SHARE),
      // The lowest number: the node's own words are never starved by what vservers borrow.
      prio: 0
    })
  ])
  try {
    await putShaping(init.uplink, [fairQueue(NODE_CLASS, '2', cap)])
    return 'fq_codel'
  } catch (error) {
    // The class was there a moment ago, so that it is the kind of queue which is not.
    if (error instanceof SlicenetError && error.details?.['errno'] === 'ENOENT') return 'bfifo'
    throw error
  }
}

/** A link and what it is shaped by. */
export interface ShapedLink {
  readonly plan: LinkPlan
  readonly resources: Resources
  readonly shaping?: Shaping | undefined
  /** A cap that holds for now, instead of the lease's where it is lower. */
  readonly narrowedBps?: number
}

/** Gives vservers their classes, or changes the rates while traffic flows. */
export async function shapeLinks(
  init: ShapingInit & { readonly leaf: LeafQueue },
  links: readonly ShapedLink[]
): Promise<void> {
  await putShaping(
    init.uplink,
    links.flatMap((link) => [...classesOf(init, link), ...queuesOf(init, link)])
  )
}

/** Changes the rates of vservers that have their classes, and nothing else. */
export async function changeRates(init: ShapingInit, links: readonly ShapedLink[]): Promise<void> {
  await putShaping(
    init.uplink,
    links.flatMap((link) => classesOf(init, link))
  )
}

/** Removes a vserver's classes; those that are not there are passed over. */
export async function unshapeLink(uplink: string, plan: LinkPlan): Promise<void> {
  const { dataClass, icmpClass, optionsClass, newClass, vserverClass } = plan
  await removeClasses(uplink, [dataClass, icmpClass, optionsClass, newClass, vserverClass].map(classId))
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

/** Packets that each link's queues had no room for, or in which they waited too long, by the link's number. */
export async function queueDrops(uplink: string): Promise<Map<number, number>> {
  return parseQueueDrops(await run('tc', ['-s', 'qdisc', 'show', 'dev', uplink]))
}

/** Reads what tc prints for people, as of the classes. */
export function parseQueueDrops(printed: string): Map<number, number> {
  const drops = new Map<number, number>()
  const queue = /^qdisc \S+ [0-9a-f]+: .*\bparent 51ce:([0-9a-f]+) .*\n Sent .*\(dropped (\d+),/gm
  for (const [, minor = '', packets] of printed.matchAll(queue)) {
    const index = indexOfClass(minor)
    if (index !== undefined) drops.set(index, (drops.get(index) ?? 0) + Number(packets))
  }
  return drops
}

/** The buckets for packets that raise alarms, and what each lets out at most. */
export function cautionBuckets(
  { policy }: Pick<ShapingInit, 'policy'>,
  { plan, shaping }: ShapedLink,
  capBps: number
): { readonly minor: string; readonly bps: number }[] {
  const { icmpBps, optionsBps, newDestinationsBps } = shapingOf(policy, shaping)
  return [
    { minor: plan.icmpClass, bps: Math.min(capBps, icmpBps) },
    { minor: plan.optionsClass, bps: Math.min(capBps, optionsBps) },
    { minor: plan.newClass, bps: Math.min(capBps, newDestinationsBps) }
  ]
}

function classesOf(init: ShapingInit, link: ShapedLink): ShapingChange[] {
  const { plan, resources, shaping, narrowedBps } = link
  const { rateBps, capBps } = vserverRates(init.rootBps, resources, narrowedBps)
  const quantumBytes = quantumOf(shapingOf(init.policy, shaping).egressShare)
  const parent = classId(plan.vserverClass)
  const buckets = cautionBuckets(init, link, capBps)
  const dataBps = rateBps - CAUTION_BPS_MIN * buckets.length
  return [
    putClass({ parent: ROOT_CLASS, id: parent, rateBps, capBps, quantumBytes }),
    putClass({ parent, id: classId(plan.dataClass), rateBps: dataBps, capBps, quantumBytes, prio: 1 }),
    ...buckets.map(({ minor, bps }) =>
      putClass({
        parent,
        id: classId(minor),
        rateBps: CAUTION_BPS_MIN,
        capBps: Math.max(bps, CAUTION_BPS_MIN),
        prio: 1
      })
    )
  ]
}

function queuesOf(init: ShapingInit & { readonly leaf: LeafQueue }, link: ShapedLink): ShapingChange[] {
  const { plan, resources, narrowedBps } = link
  const { capBps } = vserverRates(init.rootBps, resources, narrowedBps)
  const bounded = (minor: string, bytesMax: number): ShapingChange => ({
    put: 'queue',
    init: { parent: classId(minor), handle: `${minor}:`, kind: 'bfifo', bytesMax }
  })
  return [
    init.leaf === 'fq_codel'
      ? fairQueue(classId(plan.dataClass), plan.fairQueue, capBps)
      : bounded(plan.dataClass, dataQueueBytes(capBps)),
    ...cautionBuckets(init, link, capBps).map(({ minor, bps }) => bounded(minor, cautionQueueBytes(bps)))
  ]
}

/**
 * A queue has another handle than one of another kind: the kernel refuses to make one kind of the other. The number of flows
 * is the kernel's (1024 of 64 bytes each): it refuses to change a queue with a word that names one.
 */
function fairQueue(parent: string, handle: string, capBps: number): ShapingChange {
  const bytesMax = FAIR_QUEUE_OVERHEAD * dataQueueBytes(capBps)
  return { put: 'queue', init: { parent, handle: `${handle}:`, kind: 'fq_codel', bytesMax } }
}

function classId(minor: string): string {
  return `${SHAPING_MAJOR}:${minor}`
}

interface ClassInit {
  readonly parent: string
  readonly id: string
  readonly rateBps: number
  readonly capBps: number
  /** Default: that of packets which raise alarms. */
  readonly quantumBytes?: number
  readonly prio?: number
}

function putClass(init: ClassInit): ShapingChange {
  const { parent, id, capBps, quantumBytes = CAUTION_QUANTUM_BYTES, prio = 0 } = init
  const rateBps = Math.max(init.rateBps, CAUTION_BPS_MIN)
  const [burstBytes, capBurstBytes] = [rateBps, capBps].map((bps) =>
    Math.max(BURST_BYTES_MIN, bytesIn(BURST_SECONDS, bps))
  ) as [number, number]
  return {
    put: 'class',
    init: { parent, id, rateBps, capBps, burstBytes, capBurstBytes, quantumBytes, prio }
  }
}

/** Throws `KERNEL_FEATURE_MISSING`. */
async function putRoot(uplink: string): Promise<void> {
  try {
    await run('tc', [
      'qdisc',
      'replace',
      'dev',
      uplink,
      'root',
      'handle',
      `${SHAPING_MAJOR}:`,
      'htb',
      'default',
      '2'
    ])
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
