/**
 * Measures what a node's network does to traffic: whether caps, guarantees and shares hold with a hundred vservers that all send
 * as much as they can, also past their own queues; what the rules of many vservers cost those that forward; how long one more
 * takes; and whether anything forged leaves. Vservers are stand-ins: processes in namespaces of their own, attached as real ones are.
 */
import { fileURLToPath } from 'node:url'
import { systemClock as clock } from '../../src/base/clock.ts'
import { planLink } from '../../src/enforce/network/address-plan.ts'
import { parseSentBytes } from '../../src/enforce/network/shaping.ts'
import { Lab, LineProgram } from '../linux/net/lab.ts'
import { figure, median, type Bench, type BenchContext, type Figure } from './figure.ts'
import { plainRoute, type PlainRoute } from './plain-route.ts'
import { spoofed } from './spoofed.ts'

const MEGABIT = 1_000_000
const UPLINK = 'up0'
const SINK_PORT = 9

const SLICES = 100
const FLOWS_MAX = 64
const ROOT_BPS = 100 * MEGABIT
const NODE_BPS = MEGABIT
/** Half of the root is guaranteed to all together, so that half of it is left to be shared; or all of it, so that nothing is. */
const HALF_BPS = ROOT_BPS / 2 / SLICES
const WHOLE_BPS = (ROOT_BPS - NODE_BPS) / SLICES
/** Each offers this many times its part of the root. */
const GREED = 2.5
/** One in so many also sends frames past its own queues. */
const BYPASS_EVERY = 10
const PAYLOAD_BYTES = 1400
const SETTLE_MS = 2500
const MEASURED_MS = 8000
const RUNS = 3

const VSERVERS = 500
const ENDS = 25
const TRANSFER_SECONDS = 1.5
const TRANSFERS = 7

export const network: Bench = async (context) => [
  ...(await crowd(context)),
  ...(await forwarding(context)),
  ...(await spoofed(context))
]

/** The program that sends for everybody; ended, whatever happens. */
async function withTraffic<T>(use: (traffic: LineProgram) => Promise<T>): Promise<T> {
  const program = fileURLToPath(new URL('traffic.py', import.meta.url))
  const traffic = new LineProgram(['/usr/bin/python3', program])
  try {
    await traffic.answer()
    return await use(traffic)
  } finally {
    await traffic.end()
  }
}

async function withLab<T>(lab: Lab, use: (lab: Lab) => Promise<T>): Promise<T> {
  try {
    await lab.up()
    return await use(lab)
  } finally {
    await lab.down()
  }
}

const namespaceOf = (pid: number): string => `/proc/${pid}/ns/net`

/** A hundred vservers that offer more than there is. */
async function crowd({ signal, progress }: BenchContext): Promise<Figure[]> {
  const over: number[] = []
  const worst: number[] = []
  const jains: number[] = []
  const lab = new Lab({ letter: 'b', network: { rootBps: ROOT_BPS, nodeBps: NODE_BPS } })
  await withLab(lab, async () =>
    withTraffic(async (traffic) => {
      await traffic.ask({
        op: 'sink',
        namespace: lab.namespaceOf('world'),
        host: lab.worldAddress,
        port: SINK_PORT
      })
      const pids: number[] = []
      while (pids.length < SLICES) pids.push(await lab.standIn())
      for (let run = 0; run < RUNS; run++) {
        const half = await together(lab, traffic, { pids, guaranteeBps: HALF_BPS, signal })
        const whole = await together(lab, traffic, { pids, guaranteeBps: WHOLE_BPS, signal })
        for (const { rates, total, guaranteeBps } of [half, whole]) {
          over.push(total / ROOT_BPS)
          progress(
            `run ${run + 1}: ${mbps(total)} of ${mbps(ROOT_BPS)} Mbps arrive, of a guarantee of ${mbps(guaranteeBps)} the least ${mbps(Math.min(...rates))} and the most ${mbps(Math.max(...rates))}`
          )
        }
        worst.push(
          Math.min(
            ...[half, whole].flatMap(({ rates, guaranteeBps }) => rates.map((rate) => rate / guaranteeBps))
          )
        )
        jains.push(jain(half.rates.map((rate) => Math.max(0, rate - HALF_BPS))))
      }
    })
  )
  return [
    figure('total_over_cap', over, { unit: 'ratio', atMost: 1.02 }),
    figure('guarantee_worst', worst, { unit: 'ratio', atLeast: 0.98 }),
    figure('jain', jains, { unit: 'index', atLeast: 0.99 })
  ]
}

interface Outcome {
  readonly guaranteeBps: number
  /** Of each slice, bits a second that left. */
  readonly rates: readonly number[]
  /** Bits a second that arrived. */
  readonly total: number
}

/** All send at the same time, each guaranteed as much as the others. */
async function together(
  lab: Lab,
  traffic: LineProgram,
  init: { readonly pids: readonly number[]; readonly guaranteeBps: number; readonly signal: AbortSignal }
): Promise<Outcome> {
  const { pids, guaranteeBps, signal } = init
  const resources = { egressBps: guaranteeBps, egressBpsMax: ROOT_BPS }
  for (const [slice, pid] of pids.entries()) {
    signal.throwIfAborted()
    await lab.ask({ op: 'attach', link: lab.link(`slice-${slice}`, pid, [], resources) })
    await greedy(lab, traffic, { slice, pid })
  }
  await traffic.ask({ op: 'start' })
  await clock.sleep(SETTLE_MS, { signal })
  const before = await look(lab, traffic)
  await clock.sleep(MEASURED_MS, { signal })
  const after = await look(lab, traffic)
  await traffic.ask({ op: 'stop' })
  const rates = pids.map((_pid, slice) => {
    const bytes = (after.sent.get(slice + 1) ?? 0) - (before.sent.get(slice + 1) ?? 0)
    return (8000 * bytes) / (after.sentAt - before.sentAt)
  })
  const arrived = 8 * (after.arrived.bytes - before.arrived.bytes)
  return { guaranteeBps, rates, total: arrived / (after.arrived.at - before.arrived.at) }
}

/** From one flow for the first slice to 64 for the last, datagrams and TCP in turns, and for some frames besides, which know no queue of the vserver's. */
async function greedy(
  lab: Lab,
  traffic: LineProgram,
  { slice, pid }: { readonly slice: number; readonly pid: number }
): Promise<void> {
  const perSecond = (GREED * ROOT_BPS) / SLICES / 8 / PAYLOAD_BYTES
  const flows = 1 + Math.round((slice * (FLOWS_MAX - 1)) / (SLICES - 1))
  const namespace = namespaceOf(pid)
  const to = { host: lab.worldAddress, port: SINK_PORT }
  const payload = Buffer.alloc(PAYLOAD_BYTES).toString('hex')
  const tcp = slice % 2 === 1
  await traffic.ask({ op: 'add', namespace, per_second: perSecond, payload, flows, tcp, ...to })
  if (slice % BYPASS_EVERY > 0) return
  const frame = udpFrame(slice + 1, lab.worldAddress).toString('hex')
  await traffic.ask({ op: 'add', namespace, per_second: perSecond, payload: frame, device: 'eth0' })
}

interface Look {
  /** What left, by the number of the link; bytes. */
  readonly sent: ReadonlyMap<number, number>
  /** Monotonic ms. */
  readonly sentAt: number
  /** What the world received, at monotonic seconds. */
  readonly arrived: { readonly bytes: number; readonly at: number }
}

async function look(lab: Lab, traffic: LineProgram): Promise<Look> {
  const began = clock.monotonic()
  const classes = await lab.onNode(['tc', '-s', 'class', 'show', 'dev', UPLINK])
  const sentAt = (began + clock.monotonic()) / 2
  const world = { namespace: lab.namespaceOf('world'), device: UPLINK }
  const arrived = await traffic.ask<Look['arrived']>({ op: 'received', ...world })
  return { sent: parseSentBytes(classes), sentAt, arrived }
}

/** 1 where all have the same, 1/n where one has everything (Jain, Chiu and Hawe, 1984). */
function jain(shares: readonly number[]): number {
  const sum = shares.reduce((total, share) => total + share, 0)
  const squares = shares.reduce((total, share) => total + share ** 2, 0)
  return squares === 0 ? 0 : sum ** 2 / (shares.length * squares)
}

/** A frame from a vserver's own address, from a port of no flow. */
function udpFrame(index: number, to: string): Buffer {
  const plan = planLink(index)
  const mac = (text: string): Buffer => Buffer.from(text.replaceAll(':', ''), 'hex')
  const address = (text: string): Buffer => Buffer.from(text.split('.').map(Number))
  const udp = Buffer.alloc(8 + PAYLOAD_BYTES)
  udp.writeUInt16BE(7777, 0)
  udp.writeUInt16BE(SINK_PORT, 2)
  udp.writeUInt16BE(udp.length, 4)
  const head = Buffer.alloc(20)
  head.writeUInt8(0x45, 0)
  head.writeUInt16BE(head.length + udp.length, 2)
  head.writeUInt8(64, 8)
  head.writeUInt8(17, 9)
  address(plan.address).copy(head, 12)
  address(to).copy(head, 16)
  let sum = 0
  for (let at = 0; at < head.length; at += 2) sum += head.readUInt16BE(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16)
  head.writeUInt16BE(~sum & 0xffff, 10)
  return Buffer.concat([mac(plan.hostMac), mac(plan.insideMac), Buffer.from([8, 0]), head, udp])
}

/** One vserver's TCP connection with the rules of one and of five hundred, beside a host that only routes, in turns. */
async function forwarding({ signal, progress }: BenchContext): Promise<Figure[]> {
  const lab = new Lab({
    letter: 'f',
    hosts: ['plain'],
    network: { rootBps: 100_000 * MEGABIT, nodeBps: NODE_BPS }
  })
  return withLab(lab, async () =>
    withTraffic(async (traffic) => {
      const plain = await plainRoute(lab)
      try {
        const pids: number[] = []
        const ms: number[] = []
        const attachNext = async (): Promise<void> => {
          signal.throwIfAborted()
          const pid = await lab.standIn()
          pids.push(pid)
          const first = 20_000 + pids.length
          const ports = [{ protocol: 'tcp' as const, first, last: first }]
          const began = clock.monotonic()
          await lab.ask({ op: 'attach', link: lab.link(`vserver-${pids.length}`, pid, ports) })
          ms.push(clock.monotonic() - began)
        }
        await attachNext()
        const few = await transfers(lab, traffic, { plain, pid: pids[0]!, signal })
        progress(`with the rules of one vserver ${brief(few)} of a plain route`)
        while (pids.length < VSERVERS) await attachNext()
        const many = await transfers(lab, traffic, { plain, pid: pids[0]!, signal })
        progress(
          `with those of ${VSERVERS} ${brief(many)}; ${brief(ms.slice(0, ENDS))} ms for one of the first, ${brief(ms.slice(-ENDS))} ms for one of the last`
        )
        return [
          figure('throughput_500_over_1', overMedian(many, few), { unit: 'ratio', atLeast: 0.9 }),
          figure('throughput_over_veth', many, { unit: 'ratio', atLeast: 0.8 }),
          figure('rules_500th_over_first', overMedian(ms.slice(-ENDS), ms.slice(0, ENDS)), {
            unit: 'ratio',
            atMost: 1.2
          }),
          figure('attach_ms', ms, { unit: 'ms' })
        ]
      } finally {
        await plain.end()
      }
    })
  )
}

/** Each sample over the median of others, which tells the spread as well. */
function overMedian(samples: readonly number[], others: readonly number[]): number[] {
  return samples.map((each) => each / median(others))
}

/** Throughput from the vserver over that of the plain route, taken right after it. */
async function transfers(
  lab: Lab,
  traffic: LineProgram,
  init: { readonly plain: PlainRoute; readonly pid: number; readonly signal: AbortSignal }
): Promise<number[]> {
  const receiver = { receiver: lab.namespaceOf('world'), host: lab.worldAddress, seconds: TRANSFER_SECONDS }
  const ratios: number[] = []
  for (let run = 0, port = 5001; run < TRANSFERS; run++) {
    init.signal.throwIfAborted()
    const from = async (sender: string): Promise<number> =>
      traffic.ask<number>({ op: 'throughput', sender, ...receiver, port: port++ })
    const own = await from(namespaceOf(init.pid))
    ratios.push(own / (await from(namespaceOf(init.plain.pid))))
  }
  return ratios
}

function mbps(bps: number): string {
  return (bps / MEGABIT).toFixed(3)
}

function brief(samples: readonly number[]): string {
  return `${median(samples).toFixed(2)} (${Math.min(...samples).toFixed(2)} to ${Math.max(...samples).toFixed(2)})`
}
