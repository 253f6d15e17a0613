/** What a vserver may send at most of packets that raise alarms holds over all of a node's uplinks together. */
import test from 'ava'
import { planLink, SHAPING_MAJOR, type LinkPlan } from '../../../src/enforce/network/address-plan.ts'
import { DEFAULT_SHAPING } from '../../../src/enforce/network/rates.ts'
import type { Shaping } from '../../../src/ticket/shaping.ts'
import { Lab, type LineProgram, type Vserver } from './lab.ts'

const MEGABIT = 1_000_000
const NET = '198.19.204'
/** Of each uplink, so that each alone would let out all of it. */
const BUCKET_BPS = 128_000
/** Of nft's limit beyond a second's worth. */
const BURST_BYTES = 8192
const lab = new Lab({
  letter: 'a',
  hasSix: true,
  second: { net: NET, far: '198.19.205.9' },
  network: {
    uplinks: ['up0', 'up1'].map((device) => ({ device, rootBps: 100 * MEGABIT, nodeBps: MEGABIT })),
    shaping: {
      ...DEFAULT_SHAPING,
      icmpBps: BUCKET_BPS,
      optionsBps: BUCKET_BPS,
      newDestinationsBps: BUCKET_BPS,
      destinationsPerMinute: 100_000
    }
  }
})
let one: Vserver
let two: Vserver
/** Another program of the first, and one that speaks IPv6. */
let other: LineProgram
let six: LineProgram

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one')
  two = await lab.vserver('two')
  other = await lab.probeIn(one.pid, 'eth0')
  six = await lab.program(one.pid, 'probe6.py', 'eth0')
  // Destinations that nobody has.
  await lab.onNode(['ip', 'route', 'add', '198.19.96.0/19', 'via', `${NET}.1`, 'dev', 'up1'])
})
test.after.always(() => lab.down())

interface Sent {
  /** Bytes that left by each uplink. */
  readonly bytes: readonly [number, number]
  /** What the bucket of one uplink lets out meanwhile at most, with its burst. */
  readonly most: number
}

async function sent(send: () => Promise<unknown>, bps = BUCKET_BPS): Promise<Sent> {
  const before = await left()
  const began = performance.now()
  await send()
  const seconds = (performance.now() - began) / 1000
  const [first, second] = await left()
  // Devices count Ethernet headers as well.
  const most = 1.02 * ((seconds + 1) * (bps / 8) + BURST_BYTES)
  return { bytes: [first - before[0], second - before[1]], most }
}

/** Bytes that have left the node by each uplink, once its queues are empty. */
async function left(): Promise<[number, number]> {
  await Promise.all([lab.settledBytes('one'), lab.settledBytes('two')])
  const bytes = ['up0', 'up1'].map(async (device) => {
    const [link] = JSON.parse(await lab.onNode(['ip', '-j', '-s', 'link', 'show', 'dev', device])) as {
      readonly stats64: { readonly tx: { readonly bytes: number } }
    }[]
    return link?.stats64.tx.bytes ?? 0
  })
  const [first = 0, second = 0] = await Promise.all(bytes)
  return [first, second]
}

const sum = ({ bytes }: Sent): number => bytes[0] + bytes[1]
const flood = { op: 'flood', port: 7, seconds: 3, pause: 0.02 }
/** By both uplinks at once, from one vserver. */
const floodBoth = async (more: object): Promise<unknown> =>
  Promise.all([
    one.probe.ask({ ...flood, ...more, host: lab.worldAddress }),
    other.ask({ ...flood, ...more, host: `${NET}.1`, sport: 20_001 })
  ])
/** As each scan finds them. */
let fresh = 96
const scanBoth = async (): Promise<unknown> => {
  const scan = { op: 'scan', count: 600, size: 1172, pause: 0.005 }
  const third = fresh
  fresh += 3
  return Promise.all([
    one.probe.ask({ ...scan, net: `198.18.${third}` }),
    other.ask({ ...scan, net: `198.19.${third}` })
  ])
}
const lease = async ({ id, pid }: Vserver, shaping?: Shaping): Promise<unknown> =>
  lab.ask({ op: 'attach', link: { ...lab.link(id, pid), shaping } })
/** Its lines in any order, a line for each limit, without what the rules have counted. */
const table = async (): Promise<string[]> => {
  const printed = await lab.onNode(['nft', '--stateless', 'list', 'table', 'inet', 'slicenet_caps'])
  return printed
    .replaceAll(/\{\s*rate/g, '{ rate')
    .split('\n')
    .sort()
}
/** Takes the buckets of a vserver out. */
const free = async ({ icmpClass, optionsClass, newClass }: LinkPlan): Promise<void> => {
  const keys = [icmpClass, optionsClass, newClass].map((minor) => `${SHAPING_MAJOR}:${minor}`)
  await lab.nft(`delete element inet slicenet_caps buckets { ${keys.join(', ')} }`)
}
/** Puts everything in place as it is at a start. */
const restart = async (): Promise<void> => {
  await lab.killNode()
  await lab.startNode()
}

for (const { what, send } of [
  { what: 'ICMP', send: async () => floodBoth({ kind: 'icmp' }) },
  { what: 'packets with IP options', send: async () => floodBoth({ options: true }) },
  { what: 'first packets to new destinations', send: scanBoth }
]) {
  test.serial(`two uplinks let out no more ${what} than one, until the common bucket is out`, async (t) => {
    const together = await sent(send)
    await free(planLink(1))
    const apart = await sent(send)
    await restart()
    const again = await sent(send)
    t.log({ together, apart, again })
    for (const each of [together, again]) {
      t.true(sum(each) <= each.most)
      t.true(sum(each) > each.most * 0.4)
    }
    t.true(together.bytes.every((bytes) => bytes > 0))
    t.true(sum(apart) > apart.most * 1.3)
  })
}

test.serial('ICMP of both families is in one bucket', async (t) => {
  const send = async (): Promise<unknown> =>
    Promise.all([
      six.ask({ ...flood, kind: 'icmp', host: lab.sixOf('world') }),
      other.ask({ ...flood, kind: 'icmp', host: `${NET}.1` })
    ])
  const together = await sent(send)
  await free(planLink(1))
  const apart = await sent(send)
  await restart()
  t.log({ together, apart })
  t.true(sum(together) <= together.most)
  t.true(sum(apart) > apart.most * 1.3)
})

test.serial('what is in no bucket, or in that of another, is left alone', async (t) => {
  // Each has talked to the world before.
  for (const { probe } of [one, two]) await probe.ask({ ...flood, host: lab.worldAddress, most: 1 })
  const ofTwo = await lab.settledBytes('two')
  await lab.world.ask({ op: 'count', port: 1001 })
  const flooding = sent(async () =>
    Promise.all([
      other.ask({ ...flood, kind: 'icmp', host: `${NET}.1` }),
      one.probe.ask({ ...flood, host: lab.worldAddress, port: 1001, most: 400 }),
      two.probe.ask({ ...flood, kind: 'icmp', host: lab.worldAddress, most: 10 })
    ])
  )
  await flooding
  t.is(await lab.world.ask({ op: 'counted', port: 1001 }), 400 * 1200)
  t.true((await lab.settledBytes('two')) - ofTwo >= 10 * 1200)
})

test.serial('common buckets follow the lease and its ticket, over a restart, and go with it', async (t) => {
  const without = await table()
  const three = await lab.vserver('three')
  const rates = async (): Promise<string[]> => {
    const { icmpClass, optionsClass, newClass } = planLink(3)
    const text = (await table()).join('\n')
    return [icmpClass, optionsClass, newClass].map(
      (minor) => new RegExp(`limit class_${minor} \\{ rate over (\\S+ \\S+)`).exec(text)?.[1] ?? 'none'
    )
  }
  const bytes = (each: number): string => `${each} bytes/second`
  t.deepEqual(await rates(), [bytes(16_000), bytes(16_000), bytes(16_000)])
  await lease(three, { icmpBps: 32_000, newDestinationsBps: 8000 })
  t.deepEqual(await rates(), [bytes(4000), bytes(16_000), bytes(1000)])
  const narrowed = await table()
  await restart()
  t.deepEqual(await table(), narrowed)
  await lab.ask({ op: 'rename', id: 'three', to: 'third' })
  t.deepEqual(await table(), narrowed)
  // A cap that is lower is all that there is to hold.
  await lab.ask({
    op: 'attach',
    link: { ...lab.link('third', three.pid, [], { egressBpsMax: 64_000 }), shaping: { icmpBps: 32_000 } }
  })
  t.deepEqual(await rates(), [bytes(4000), 'none', 'none'])
  await lease({ ...three, id: 'third' })
  t.deepEqual(await rates(), [bytes(16_000), bytes(16_000), bytes(16_000)])
  await lab.ask({ op: 'detach', id: 'third' })
  t.deepEqual(await table(), without)
})

test.serial('a rate that a ticket narrows holds from then on, by all uplinks together', async (t) => {
  const narrowBps = 32_000
  const wide = await sent(async () => floodBoth({ kind: 'icmp' }))
  await lease(one, { icmpBps: narrowBps })
  const narrow = await sent(async () => floodBoth({ kind: 'icmp' }), narrowBps)
  await lease(one)
  t.log({ wide, narrow })
  t.true(sum(wide) > wide.most * 0.4)
  t.true(sum(narrow) <= narrow.most)
})

test.serial('who shares the node’s network has no such buckets', async (t) => {
  const without = await table()
  const first = 11 * 65_536
  await lab.ask({
    op: 'attachIds',
    user: { ...lab.link('watch', 0), firstId: first, lastId: first + 65_535 }
  })
  t.deepEqual(await table(), without)
  await lab.ask({ op: 'detach', id: 'watch' })
})
