/** What a vserver may send at most holds over all of a node's uplinks together. */
import test from 'ava'
import { parseQueueDrops } from '../../../src/enforce/network/shaping.ts'
import { Lab, type LineProgram, type Vserver } from './lab.ts'

const MEGABIT = 1_000_000
const NET = '198.19.204'
const CAP = 8 * MEGABIT
const lab = new Lab({
  letter: 'c',
  second: { net: NET, far: '198.19.205.9' },
  network: {
    uplinks: ['up0', 'up1'].map((device) => ({ device, rootBps: 100 * MEGABIT, nodeBps: MEGABIT }))
  }
})
const COUNTS = ['nft', 'list', 'set', 'inet', 'slicenet_caps', 'drop_counts']
let one: Vserver
let other: LineProgram
let world1: LineProgram

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [], { egressBpsMax: CAP })
  other = await lab.probeIn(one.pid, 'eth0')
  world1 = await lab.program('world', 'probe.py', 'up1')
})
test.after.always(() => lab.down())

const flood = { op: 'flood', seconds: 2, pause: 0.004 }

/** Bytes that arrive by each of both uplinks while it is sent to both, or to the first alone. */
async function arriving(port: number, options: { readonly alone?: boolean } = {}): Promise<[number, number]> {
  for (const world of [lab.world, world1]) await world.ask({ op: 'count', port })
  await Promise.all([
    one.probe.ask({ ...flood, host: lab.worldAddress, port }),
    ...(options.alone === true ? [] : [other.ask({ ...flood, host: `${NET}.1`, port, sport: 20_001 })])
  ])
  return [await lab.world.ask({ op: 'counted', port }), await world1.ask({ op: 'counted', port })]
}

const sum = ([a, b]: [number, number]): number => a + b
const shape = async (egressBpsMax: number): Promise<unknown> =>
  lab.ask({ op: 'attach', link: lab.link('one', one.pid, [], { egressBpsMax }) })
const dropped = async (): Promise<Record<string, number>> => lab.ask({ op: 'dropped', id: 'one' })
const inQueues = async (device: string): Promise<number> =>
  parseQueueDrops(await lab.onNode(['tc', '-s', 'qdisc', 'show', 'dev', device])).get(1) ?? 0
const limits = async (): Promise<string> => lab.onNode(['nft', 'list', 'limits'])

test.serial('two uplinks let out no more than one, until the common cap is taken out', async (t) => {
  const alone = await arriving(1001, { alone: true })
  const together = await arriving(1002)
  await lab.nft('flush chain inet slicenet_caps forwarded')
  // Of both uplinks the queues have room; the common cap has not.
  const counted = await lab.onNode(COUNTS)
  t.regex(counted, /"sl1" \. "shaped" counter packets [1-9]/)
  t.true((await dropped())['shaped']! > 0)
  const free = await arriving(1003)
  t.log({ alone, together, free })
  t.true(sum(together) < sum(alone) * 1.3)
  t.true(sum(together) > sum(alone) * 0.7)
  t.true(together[0] > 0 && together[1] > 0)
  t.true(sum(free) > sum(alone) * 1.5)
})

test.serial(
  'what the queues of all uplinks drop is counted together with what the common cap does',
  async (t) => {
    const [, capped] = /"shaped" counter packets (\d+)/.exec(await lab.onNode(COUNTS)) ?? []
    const fast = { op: 'flood', seconds: 1, port: 1010 }
    await Promise.all([
      one.probe.ask({ ...fast, host: lab.worldAddress }),
      other.ask({ ...fast, host: `${NET}.1`, sport: 20_002 })
    ])
    const [queued0, queued1] = [await inQueues('up0'), await inQueues('up1')]
    t.log({ capped, queued0, queued1 })
    t.true(queued0 > 0 && queued1 > 0)
    t.is((await dropped())['shaped'], Number(capped) + queued0 + queued1)
  }
)

test.serial('the common cap is there after a restart, and follows the lease and its budget', async (t) => {
  await lab.killNode()
  const packets = async (): Promise<string | undefined> =>
    /"shaped" counter packets (\d+)/.exec(await lab.onNode(COUNTS))?.[1]
  const counted = await packets()
  await lab.startNode({ budgetIntervalMs: 200 })
  t.true(Number(counted) > 0)
  t.is(await packets(), counted, 'what was counted stays')
  t.regex(await limits(), /rate over 1000000 bytes\/second/)
  const before = await arriving(1004)
  await shape(2 * MEGABIT)
  t.regex(await limits(), /rate over 250000 bytes\/second/)
  const after = await arriving(1005)
  t.log({ before, after })
  t.true(sum(after) * 2 < sum(before))
  // Without a cap the uplinks alone bound it.
  await shape(0)
  t.notRegex(await limits(), /cap_sl1/)
  t.true(sum(await arriving(1006)) > sum(after) * 2)
  const spent = { egressBytesPerDay: 1000 }
  await lab.ask({ op: 'attach', link: lab.link('one', one.pid, [], spent) })
  t.regex(await limits(), /rate over 2000 bytes\/second/)
  await lab.ask({ op: 'detach', id: 'one' })
  t.notRegex(await limits(), /cap_sl1/)
  t.notRegex(await lab.onNode(COUNTS), /sl1/)
})

test.serial('it holds as well for who shares the node’s network, until it is taken out', async (t) => {
  const first = 11 * 65_536
  const user = {
    ...lab.link('watch', 0, [], { egressBpsMax: 4 * MEGABIT }),
    firstId: first,
    lastId: first + 65_535
  }
  await lab.ask({ op: 'attachIds', user })
  const script = (port: number): string => `
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + 3
while time.monotonic() < end:
  for host in ["${lab.worldAddress}", "${NET}.1"] * 10:
    try: s.sendto(b"x" * 1172, (host, ${port}))
    except PermissionError: pass
  time.sleep(0.004)
`
  const arrivingOf = async (port: number): Promise<[number, number]> => {
    for (const world of [lab.world, world1]) await world.ask({ op: 'count', port })
    const as = ['setpriv', `--reuid=${first + 1000}`, '--clear-groups', '/usr/bin/python3', '-c']
    await lab.onNode([...as, script(port)])
    return [await lab.world.ask({ op: 'counted', port }), await world1.ask({ op: 'counted', port })]
  }
  // After a silence a second's worth may come at once.
  await arrivingOf(1007)
  const together = await arrivingOf(1008)
  await lab.nft('flush chain inet slicenet_caps sent')
  const { shaped = 0 } = await lab.ask<Record<string, number>>({ op: 'dropped', id: 'watch' })
  t.true(shaped > 0)
  const free = await arrivingOf(1009)
  t.log({ together, free })
  t.true(together[0] > 0 && together[1] > 0)
  t.true(sum(free) > sum(together) * 1.5)
  await lab.ask({ op: 'detach', id: 'watch' })
})

test.serial('a node with one uplink needs no such table', async (t) => {
  await lab.killNode()
  await lab.startNode({ uplinks: [{ device: 'up0', rootBps: 100 * MEGABIT, nodeBps: MEGABIT }] })
  t.notRegex(await lab.onNode(['nft', 'list', 'tables']), /slicenet_caps/)
  t.notRegex(await lab.onNode(['ip', 'rule', 'show']), /51ce/)
})
