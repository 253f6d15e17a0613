/** A node with two uplinks of which one is not there when it starts, and comes later. */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import type { UplinkInit } from '../../../src/enforce/network/uplink.ts'
import { Lab, udp, type Vserver } from './lab.ts'
import { until } from './until.ts'

const MEGABIT = 1_000_000
const NET = '198.19.206'
const [WORLD_1, NODE_1, FAR] = [`${NET}.1`, `${NET}.2`, '198.19.207.9']
const up0: UplinkInit = { device: 'up0', rootBps: 10 * MEGABIT, nodeBps: MEGABIT }
const up1: UplinkInit = { device: 'up1', rootBps: 6 * MEGABIT, nodeBps: MEGABIT }
const second = { net: NET, far: FAR }
const lab = new Lab({ letter: 'i', second, network: { uplinks: [up0, up1] } })
let one: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [udp(9090, 9091)], { egressBps: 2 * MEGABIT })
  await one.probe.ask({ op: 'answer', port: 9090 })
  await lab.world.ask({ op: 'answer', port: 7000 })
})
test.after.always(() => lab.down())

const seenAs = async (host: string): Promise<string> =>
  (await one.probe.ask<string>({ op: 'ask', host, port: 7000, timeout: 0.2 })).split(':')[0] ?? ''
const reached = async (host: string, sport = 5600, source?: string): Promise<boolean> =>
  (await lab.world.ask<string>({ op: 'ask', host, port: 9090, sport, source, timeout: 0.2 })) !== 'timeout'
const addresses = async (): Promise<readonly string[]> => lab.ask({ op: 'addresses' })
const troubles = async (): Promise<readonly string[]> => lab.ask({ op: 'troubles' })
const restartWithout = async (remove: readonly string[], uplinks: readonly UplinkInit[]): Promise<void> => {
  await lab.killNode()
  await lab.onNode(remove)
  await lab.startNode({ uplinks })
}
const UNPLUG = ['ip', 'link', 'del', 'dev', 'up1']

test.serial('a node starts with the uplinks that are there, and says which is not', async (t) => {
  t.deepEqual(await troubles(), [])
  await restartWithout(UNPLUG, [up0, up1])
  t.deepEqual(await addresses(), [lab.nodeAddress])
  t.deepEqual(await troubles(), ['the uplink up1 is not used: the uplink up1 is no device of this machine'])
  t.is(await seenAs(lab.worldAddress), lab.nodeAddress)
  t.true(await reached(lab.nodeAddress))
  await lab.vserver('two', [], { egressBps: MEGABIT })
  t.is(await lab.guaranteed('up0', 2), '1Mbit')
})

test.serial('what is guaranteed must fit on the one that is not there as well', async (t) => {
  const link = lab.link('three', await lab.standIn(), [], { egressBps: 3 * MEGABIT })
  const error = await t.throwsAsync(lab.ask({ op: 'attach', link }), { code: 'VSERVER_FAILED' })
  t.regex(error?.message ?? '', /of 5000000 that the uplink up1 has/)
  // It would fit on the first alone.
  await lab.killNode()
  await lab.startNode({ uplinks: [up0] })
  await t.notThrowsAsync(lab.ask({ op: 'attach', link }))
  await lab.ask({ op: 'detach', id: 'three' })
})

test.serial('one that comes joins, where a daemon looks', async (t) => {
  await lab.killNode()
  await lab.startNode()
  await lab.killNode()
  await lab.makeSecond(second)
  await delay(2500)
  t.is(await lab.guaranteed('up1', 1), undefined)
  t.not(await seenAs(WORLD_1), NODE_1)
  await lab.onNode(UNPLUG)
  await lab.startNode()
  t.is((await troubles()).length, 1)
  await lab.makeSecond(second)
  t.true(await until(async () => (await addresses()).join() === [lab.nodeAddress, NODE_1].join()))
  t.true(await until(async () => (await troubles()).length === 0))
  t.is(await lab.guaranteed('up1', 1), '2Mbit')
  t.is(await lab.guaranteed('up1', 2), '1Mbit')
  t.is(await seenAs(WORLD_1), NODE_1)
  t.is(await seenAs(lab.worldAddress), lab.nodeAddress)
  t.true(await reached(NODE_1))
  t.true(await until(async () => reached(NODE_1, 5601, FAR)), 'it has routes of its own')
  const caps = await lab.onNode(['nft', 'list', 'table', 'inet', 'slicenet_caps'])
  t.regex(caps, /"up1"/)
})

test.serial('the first may be the one that comes later; connections by the other stay there', async (t) => {
  await restartWithout(UNPLUG, [up1, up0])
  t.deepEqual(await addresses(), [lab.nodeAddress])
  const ask = { op: 'ask', host: lab.worldAddress, port: 7000, sport: 9091 }
  t.is(await one.probe.ask(ask), `${lab.nodeAddress}:9091`)
  await lab.makeSecond(second)
  t.true(await until(async () => (await addresses()).join() === [NODE_1, lab.nodeAddress].join()))
  t.is(await one.probe.ask(ask), `${lab.nodeAddress}:9091`)
  t.is(await seenAs(WORLD_1), NODE_1)
  t.true(await until(async () => reached(NODE_1, 5602, FAR)))
  t.true(await reached(lab.nodeAddress, 5603))
})

test.serial('one that gets its address late is shaped for the vservers of that time', async (t) => {
  t.is(await lab.guaranteed('up1', 2), '1Mbit')
  await restartWithout(['ip', 'addr', 'flush', 'dev', 'up1'], [up0, up1])
  t.regex((await troubles()).join(), /up1 has no IPv4 address/)
  await lab.ask({ op: 'detach', id: 'two' })
  t.is(await lab.guaranteed('up1', 2), '1Mbit', 'of the daemon before')
  await lab.onNode(['ip', 'addr', 'add', `${NODE_1}/24`, 'dev', 'up1'])
  t.true(await until(async () => (await seenAs(WORLD_1)) === NODE_1))
  t.true(await until(async () => (await lab.guaranteed('up1', 2)) === undefined))
  t.is(await lab.guaranteed('up1', 1), '2Mbit')
})

test.serial('one that another program shapes does not join until that has left it', async (t) => {
  await restartWithout(['ip', 'addr', 'flush', 'dev', 'up1'], [up0, up1])
  await lab.onNode(['tc', 'qdisc', 'replace', 'dev', 'up1', 'root', 'handle', '7:', 'bfifo'])
  await lab.onNode(['ip', 'addr', 'add', `${NODE_1}/24`, 'dev', 'up1'])
  t.true(await until(async () => (await troubles()).join().includes('bfifo 7:')))
  t.deepEqual(await addresses(), [lab.nodeAddress])
  await lab.onNode(['tc', 'qdisc', 'del', 'dev', 'up1', 'root'])
  t.true(await until(async () => (await seenAs(WORLD_1)) === NODE_1))
})
