import test from 'ava'
import { DEFAULT_SHAPING } from '../../../src/enforce/network/rates.ts'
import { Lab, PATIENCE, type Seen, type Vserver } from './lab.ts'

const PER_MINUTE = 40
/** Of those, what may come at once; the rest comes over the minute. */
const AT_ONCE = 10
const PROBES = 60
/** Of 20 in a row, so many are cut off; less where they take long and some may go meanwhile. */
const CUT_MIN = Math.round(15 / PATIENCE)
/** A datagram of one byte, with its Ethernet header. */
const FRAME_BYTES = 43
const lab = new Lab({
  letter: 'd',
  network: { shaping: { ...DEFAULT_SHAPING, destinationsPerMinute: PER_MINUTE } }
})
let one: Vserver
let two: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one')
  two = await lab.vserver('two')
})
test.after.always(() => lab.down())

const settled = async ({ id }: Vserver): Promise<number> => lab.settledBytes(id)

/** Bytes that leave while a vserver sends a datagram to each of `count` addresses of a network. */
async function scan(vserver: Vserver, net: string, count: number, more: object = {}): Promise<number> {
  const before = await settled(vserver)
  await vserver.probe.ask({ op: 'scan', net, count, size: 1, ...more })
  return (await settled(vserver)) - before
}

test.serial('a scan is cut off and counted, and what is known or comes in goes on', async (t) => {
  const echo = { op: 'ask', host: lab.worldAddress, port: 7000 }
  await lab.world.ask({ op: 'answer', port: 7000 })
  t.regex(await one.probe.ask<string>(echo), /:\d+$/)
  const before = (await lab.counters()).drops.destinations
  const passed = (await scan(one, '198.18.200', PROBES)) / FRAME_BYTES
  const dropped = (await lab.counters()).drops.destinations - before
  t.log({ passed, dropped })
  t.true(passed >= AT_ONCE - 1 && passed < PER_MINUTE)
  t.is(passed + dropped, PROBES)
  // Its old acquaintances, and its neighbour's first steps.
  t.regex(await one.probe.ask<string>(echo), /:\d+$/)
  t.regex(await two.probe.ask<string>(echo), /:\d+$/)
  // By ping and with any flags as well.
  const sweep = async (packet: object): Promise<number> => {
    const counted = (await lab.counters()).drops.destinations
    for (let host = 1; host <= 20; host++) {
      await one.probe.ask({ op: 'send', src: one.address, dst: `198.18.201.${host}`, ...packet })
    }
    return (await lab.counters()).drops.destinations - counted
  }
  t.true((await sweep({ proto: 'icmp', id: 5 })) >= CUT_MIN)
  t.true((await sweep({ proto: 'tcp', sport: 5000, dport: 80, flags: 2 })) >= CUT_MIN)
})

test.serial('an administrator’s cap is another one after a restart', async (t) => {
  await lab.killNode()
  await lab.startNode({ shaping: { ...DEFAULT_SHAPING, destinationsPerMinute: 4 * PER_MINUTE } })
  const passed = (await scan(two, '198.18.202', PROBES)) / FRAME_BYTES
  t.log({ passed })
  t.true(passed >= 4 * AT_ONCE - 1)
})

test.serial(
  'first packets to new destinations have a bucket of their own, until they are known',
  async (t) => {
    await lab.killNode()
    await lab.startNode({ shaping: { ...DEFAULT_SHAPING, destinationsPerMinute: 1_000_000 } })
    const large = { size: 1172, pause: 0.0005 }
    const fresh = await scan(one, '198.19.0', 1200, large)
    const known = await scan(one, '198.19.0', 1200, large)
    await lab.nft('flush chain inet slicenet destinations')
    const untold = await scan(one, '198.19.100', 1200, large)
    t.log({ fresh, known, untold })
    t.true(fresh * 5 < known)
    t.true(fresh * 5 < untold)
  }
)

test.serial('without the rules a scan goes through', async (t) => {
  await lab.killNode()
  await lab.startNode()
  await lab.nft('flush chain inet slicenet destinations')
  const before = (await lab.counters()).drops.destinations
  t.is((await scan(one, '198.18.203', PROBES)) / FRAME_BYTES, PROBES)
  t.is((await lab.counters()).drops.destinations, before)
})

test.serial('who answers many is no scanner', async (t) => {
  await lab.killNode()
  await lab.startNode()
  await lab.ask({
    op: 'attach',
    link: lab.link(two.id, two.pid, [{ protocol: 'udp', first: 7100, last: 7100 }])
  })
  await two.probe.ask({ op: 'answer', port: 7100 })
  const before = (await lab.counters()).drops.destinations
  await lab.world.ask({ op: 'take', wait: 0 })
  for (let host = 1; host <= PROBES; host++) {
    const from = { src: `198.18.204.${host}`, dst: lab.nodeAddress, sport: 7200, dport: 7100 }
    await lab.world.ask({ op: 'route', proto: 'udp', ...from })
  }
  const seen = await two.probe.ask<Seen[]>({ op: 'take', match: { dport: 7100 }, least: PROBES, wait: 2 })
  t.is(seen.length, PROBES)
  t.is((await lab.counters()).drops.destinations, before)
})

test.serial('who scans takes the room of no other, until the bound is out', async (t) => {
  await lab.killNode()
  await lab.startNode({
    knownDestinationsMax: 64,
    shaping: { ...DEFAULT_SHAPING, destinationsPerMinute: 1_000_000 }
  })
  const known = async (vserver: Vserver): Promise<number> => {
    const listed = await lab.onNode(['nft', 'list', 'set', 'inet', 'slicenet', 'destinations'])
    return listed.split(`${vserver.address} . `).length - 1
  }
  await scan(one, '198.18.205', 300)
  await scan(two, '198.18.205', 20)
  const [ofOne, ofTwo] = [await known(one), await known(two)]
  // What is not remembered passes all the same, as new.
  t.is((await scan(one, '198.18.207', 30)) / FRAME_BYTES, 30)
  const table = await lab.onNode(['nft', '-a', 'list', 'chain', 'inet', 'slicenet', 'destinations'])
  const handle = /@known_rates .* # handle (\d+)/.exec(table)?.[1] ?? ''
  await lab.nft(`delete rule inet slicenet destinations handle ${handle}`)
  await scan(one, '198.18.208', 300)
  const unbounded = await known(one)
  t.log({ ofOne, ofTwo, unbounded })
  t.true(ofOne >= 32 && ofOne <= 64)
  t.is(ofTwo, 20)
  t.true(unbounded >= 300)
})
