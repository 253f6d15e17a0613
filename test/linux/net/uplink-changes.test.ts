/** What becomes of a node with two uplinks when one of them goes away, comes back or changes. */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { Lab, udp, type Vserver } from './lab.ts'
import { until } from './until.ts'

const MEGABIT = 1_000_000
const NET = '198.19.202'
const [WORLD_1, NODE_1, MOVED_1] = [`${NET}.1`, `${NET}.2`, `${NET}.6`]
const second = { net: NET, far: '198.19.203.9' }
const lab = new Lab({
  letter: 'j',
  second,
  network: {
    uplinks: [
      { device: 'up0', rootBps: 10 * MEGABIT, nodeBps: MEGABIT },
      { device: 'up1', rootBps: 10 * MEGABIT, nodeBps: MEGABIT }
    ],
    budgetIntervalMs: 200
  }
})
let one: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [udp(9090, 9091)], { egressBps: 2 * MEGABIT })
  await one.probe.ask({ op: 'answer', port: 9090 })
  await lab.world.ask({ op: 'answer', port: 7000 })
})
test.after.always(() => lab.down())

/** The address that the world sees a vserver under. */
const seenAs = async (host: string): Promise<string> =>
  (await one.probe.ask<string>({ op: 'ask', host, port: 7000, timeout: 0.2 })).split(':')[0] ?? ''
const reached = async (host: string): Promise<boolean> =>
  (await lab.world.ask<string>({ op: 'ask', host, port: 9090, timeout: 0.2 })) !== 'timeout'
const addresses = async (): Promise<readonly string[]> => lab.ask({ op: 'addresses' })
const address = async (verb: 'add' | 'del', of: string): Promise<string> =>
  lab.onNode(['ip', 'addr', verb, `${of}/24`, 'dev', 'up1'])

test.serial('an uplink that has another address is noticed, and the other one is not touched', async (t) => {
  const ask = { op: 'ask', host: lab.worldAddress, port: 7000, sport: 9091 }
  t.is(await one.probe.ask(ask), `${lab.nodeAddress}:9091`)
  t.true(await reached(NODE_1))
  t.deepEqual(await addresses(), [lab.nodeAddress, NODE_1])
  const shown = async (): Promise<string> =>
    lab.onNode(['conntrack', '-L', '-p', 'udp', '--orig-src', one.address])
  t.regex(await shown(), new RegExp(`dst=${lab.nodeAddress} `))
  await address('del', NODE_1)
  await address('add', MOVED_1)
  t.true(await until(async () => (await seenAs(WORLD_1)) === MOVED_1))
  t.true(await until(async () => reached(MOVED_1)))
  t.false(await reached(NODE_1))
  t.true(await until(async () => (await addresses()).join() === [lab.nodeAddress, MOVED_1].join()))
  t.is(await seenAs(lab.worldAddress), lab.nodeAddress)
  t.regex(await shown(), new RegExp(`dst=${lab.nodeAddress} `), 'its connections are still known')
  await address('del', MOVED_1)
  await address('add', NODE_1)
  t.true(await until(async () => (await seenAs(WORLD_1)) === NODE_1))
})

test.serial('an uplink that is away holds up no other, nor any change of a vserver', async (t) => {
  await lab.onNode(['ip', 'link', 'del', 'dev', 'up1'])
  t.true(await until(async () => (await addresses())[0] === lab.nodeAddress))
  const two = await lab.vserver('two', [], { egressBps: MEGABIT })
  await lab.ask({
    op: 'attach',
    link: lab.link('one', one.pid, [udp(9090, 9091)], { egressBps: 3 * MEGABIT })
  })
  t.is(await lab.guaranteed('up0', 1), '3Mbit')
  t.is(await lab.guaranteed('up0', 2), '1Mbit')
  t.is(await seenAs(lab.worldAddress), lab.nodeAddress)
  t.true((await lab.settledBytes('one')) > 0)
  // The first changes meanwhile.
  const moved = lab.nodeAddress.replace(/\d+$/, '6')
  const gateway = lab.nodeAddress.replace(/\d+$/, '1')
  await lab.onNode(['ip', 'addr', 'del', `${lab.nodeAddress}/24`, 'dev', 'up0'])
  await lab.onNode(['ip', 'addr', 'add', `${moved}/24`, 'dev', 'up0'])
  await lab.onNode(['ip', 'route', 'add', 'default', 'via', gateway, 'dev', 'up0'])
  t.true(await until(async () => (await seenAs(lab.worldAddress)) === moved))
  await lab.makeSecond(second)
  t.is(await lab.guaranteed('up1', 1), undefined, 'the queue went with its device')
  t.true(await until(async () => (await lab.guaranteed('up1', 1)) === '3Mbit'))
  t.true(await until(async () => (await lab.guaranteed('up1', 2)) === '1Mbit'))
  t.true(await until(async () => (await seenAs(WORLD_1)) === NODE_1))
  await two.probe.end()
  await lab.ask({ op: 'detach', id: 'two' })
  t.is(await lab.guaranteed('up1', 2), undefined)
})

test.serial('when the first is away the node is named by the next, until it is back', async (t) => {
  const [before = ''] = await addresses()
  await lab.removeUplink()
  t.true(await until(async () => (await addresses())[0] === NODE_1))
  t.true(await reached(NODE_1))
  await lab.makeUplink(before)
  t.true(await until(async () => (await addresses())[0] === before))
  t.true(await until(async () => (await lab.guaranteed('up0', 1)) === '3Mbit'))
})

test.serial('without a daemon that looks, nothing of it is noticed', async (t) => {
  await lab.killNode()
  await lab.onNode(['ip', 'link', 'del', 'dev', 'up1'])
  await lab.makeSecond(second)
  await delay(2500)
  t.is(await lab.guaranteed('up1', 1), undefined)
  await lab.startNode()
  t.is(await lab.guaranteed('up1', 1), '3Mbit')
})

test.serial('bytes of the day are those of all uplinks, also when one of them came anew', async (t) => {
  const budget = 3_000_000
  await lab.ask({ op: 'attach', link: lab.link('one', one.pid, [], { egressBytesPerDay: budget }) })
  const isNarrowed = async (): Promise<boolean> => lab.ask({ op: 'isEgressNarrowed', id: 'one' })
  const send = async (host: string, most: number): Promise<void> => {
    // Slowly enough that nothing is lost in a queue.
    await one.probe.ask({ op: 'flood', host, port: 7, seconds: 10, pause: 0.03, most })
    await lab.settledBytes('one')
    await delay(500)
  }
  const perPacket = 1200
  // A third of it by each of them leaves it far from over.
  await send(lab.worldAddress, Math.floor(budget / 3 / perPacket))
  t.false(await isNarrowed())
  await lab.onNode(['ip', 'link', 'del', 'dev', 'up1'])
  await lab.makeSecond(second)
  t.true(await until(async () => (await lab.guaranteed('up1', 1)) !== undefined))
  await send(WORLD_1, Math.floor(budget / 3 / perPacket))
  t.false(await isNarrowed(), 'nothing counts twice')
  await send(WORLD_1, Math.floor(budget / 4 / perPacket))
  t.true(await until(isNarrowed))
})

test.serial('two that have each other’s addresses by now do not wait for one another', async (t) => {
  const [address0 = '', address1 = ''] = await addresses()
  const change = async (verb: 'add' | 'del', device: string, of: string): Promise<string> =>
    lab.onNode(['ip', 'addr', verb, `${of}/24`, 'dev', device])
  await change('del', 'up0', address0)
  await change('del', 'up1', address1)
  await change('add', 'up0', address1)
  t.true(await until(async () => (await addresses())[0] === address1), 'the other one is away')
  await change('add', 'up1', address0)
  t.true(await until(async () => (await addresses()).join() === [address1, address0].join()))
  // Both at once.
  const back = [
    `addr del ${address1}/24 dev up0`,
    `addr del ${address0}/24 dev up1`,
    `addr add ${address0}/24 dev up0`,
    `addr add ${address1}/24 dev up1`
  ]
  await lab.onNode(['ip', '-batch', '-'], `${back.join('\n')}\n`)
  t.true(await until(async () => (await addresses()).join() === [address0, address1].join()))
  t.true(await until(async () => (await lab.ask<string[]>({ op: 'troubles' })).length === 0))
  t.is(await lab.guaranteed('up0', 1), await lab.guaranteed('up1', 1))
})
