/**
 * Leaves that tell flows apart: while one flow of a vserver has more to send than the cap lets out, another that says little
 * is hardly kept waiting; with a leaf that does not tell them apart, in the same run, it waits behind all of the first.
 */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { runAnyway } from '../../../src/base/host-program.ts'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import { dataQueueBytes } from '../../../src/enforce/network/rates.ts'
import { Lab, type LineProgram, type Vserver } from './lab.ts'

/** So low that an emulated processor sends more, at which a full queue is a second's worth. */
const CAP_BPS = 1_000_000
const PORTS = { bulk: 7, sparse: 7000 }
/** Of an exchange that did not come about. */
const LOST_MS = 2500
const { dataClass, fairQueue } = planLink(1)

const tried = await runAnyway('unshare', ['--net', 'tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'fq_codel'])
const isThere = tried.exitCode === 0
const declare = isThere ? test.serial : test.serial.skip
const unless = isThere ? '' : ' (not shown: this kernel has no fq_codel)'

const lab = new Lab({ letter: 'f' })
let one: Vserver
let sparse: LineProgram

if (isThere) {
  test.before(async () => {
    await lab.up()
    one = await lab.vserver('one', [], { egressBpsMax: CAP_BPS })
    sparse = await lab.probeIn(one.pid, 'eth0')
    await lab.world.ask({ op: 'answer', port: PORTS.sparse })
  })
  test.after.always(() => lab.down())
}

interface Queue {
  readonly kind: string
  readonly handle: string
  readonly limit: string | undefined
  readonly dropped: number
}

/** The queue below a class of the uplink. */
async function queueBelow(minor: string): Promise<Queue | undefined> {
  const printed = await lab.onNode(['tc', '-s', 'qdisc', 'show', 'dev', 'up0'])
  const found = printed.split(/^(?=qdisc )/m).find((each) => each.includes(` parent 51ce:${minor} `))
  const [, kind, handle] = /^qdisc (\S+) (\S+): /.exec(found ?? '') ?? []
  if (found === undefined || kind === undefined || handle === undefined) return undefined
  return {
    kind,
    handle,
    limit: /memory_limit (\S+)/.exec(found)?.[1],
    dropped: Number(/dropped (\d+)/.exec(found)?.[1])
  }
}

interface Waiting {
  readonly exchanges: number
  /** The part of the exchanges that did not come about. */
  readonly lost: number
  readonly medianMs: number
  /** Packets of either flow that the leaf had no room for. */
  readonly dropped: number
}

/** How a flow of one packet at a time fares while another has more than twice as much to send as there is. */
async function waiting(): Promise<Waiting> {
  const exchange = {
    op: 'exchange',
    host: lab.worldAddress,
    port: PORTS.sparse,
    size: 1172,
    timeout: LOST_MS / 1000
  }
  // From here on the destination is a known one.
  await sparse.ask({ ...exchange, seconds: 0 })
  const before = await queueBelow(dataClass)
  const bulk = { op: 'flood', host: lab.worldAddress, port: PORTS.bulk, seconds: 15, pause: 0.02 }
  const flooding = one.probe.ask<number>(bulk)
  // Until its queue is full.
  await delay(2500)
  const times = await sparse.ask<(number | null)[]>({ ...exchange, seconds: 9 })
  await flooding
  const after = await queueBelow(dataClass)
  const sorted = times.map((ms) => ms ?? LOST_MS).sort((a, b) => a - b)
  return {
    exchanges: times.length,
    lost: times.filter((ms) => ms === null).length / times.length,
    medianMs: sorted[sorted.length >> 1]!,
    dropped: (after?.dropped ?? 0) - (before?.dropped ?? 0)
  }
}

declare(
  `the node and its vservers have fair queues, and keep them over a renewal and a restart${unless}`,
  async (t) => {
    const areFair = async (): Promise<void> => {
      t.like(await queueBelow('2'), { kind: 'fq_codel' })
      t.like(await queueBelow(dataClass), { kind: 'fq_codel', handle: fairQueue })
    }
    await areFair()
    const { limit } = (await queueBelow(dataClass))!
    const renewed = lab.link('one', one.pid, [], { egressBpsMax: 400 * CAP_BPS })
    await lab.ask({ op: 'attach', link: renewed })
    await areFair()
    t.not((await queueBelow(dataClass))!.limit, limit)
    await lab.killNode()
    await lab.startNode()
    await areFair()
    await lab.ask({ op: 'attach', link: lab.link('one', one.pid, [], { egressBpsMax: CAP_BPS }) })
    await areFair()
    t.is((await queueBelow(dataClass))!.limit, limit)
  }
)

declare(
  `a flow that says little does not wait behind one that says much, but does in one queue for both${unless}`,
  async (t) => {
    t.timeout(120_000)
    const fair = await waiting()
    const bytes = dataQueueBytes(CAP_BPS)
    const below = ['dev', 'up0', 'parent', `51ce:${dataClass}`]
    await lab.onNode(['tc', 'qdisc', 'del', ...below])
    await lab.onNode([
      'tc',
      'qdisc',
      'add',
      ...below,
      'handle',
      `${dataClass}:`,
      'bfifo',
      'limit',
      `${bytes}`
    ])
    const shared = await waiting()
    t.log({ fair, shared })
    t.true(fair.dropped > 0 && shared.dropped > 0, 'the leaf was full')
    t.true(fair.exchanges >= 10)
    t.true(fair.medianMs * 4 < shared.medianMs)
    t.true(fair.lost <= shared.lost)
  }
)
