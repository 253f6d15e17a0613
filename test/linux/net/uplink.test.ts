import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import { Lab, type Vserver } from './lab.ts'
import { until } from './until.ts'

const MEGABIT = 1_000_000
const lab = new Lab({ letter: 'k', network: { rootBps: 10 * MEGABIT, nodeBps: MEGABIT } })
let one: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [], { egressBps: 5 * MEGABIT })
  await lab.world.ask({ op: 'answer', port: 7300 })
})
test.after.always(() => lab.down())

/** The address that the world sees a vserver under. */
const seenAs = async (port: number): Promise<string> =>
  one.probe.ask({ op: 'ask', host: lab.worldAddress, port, timeout: 0.2 })

const tc = async (...args: string[]): Promise<string> => lab.onNode(['tc', ...args])

test.serial('no more is guaranteed than the uplink has beside the node’s own', async (t) => {
  const two = await lab.standIn()
  const error = await t.throwsAsync(
    lab.ask({ op: 'attach', link: lab.link('two', two, [], { egressBps: 5 * MEGABIT }) }),
    { code: 'VSERVER_FAILED' }
  )
  for (const number of ['5000000', '9000000']) t.true(error?.message.includes(number), error?.message)
  t.deepEqual(await lab.ask({ op: 'list' }), ['one'])
  await lab.ask({ op: 'attach', link: lab.link('two', two, [], { egressBps: 4 * MEGABIT }) })
  await t.throwsAsync(
    lab.ask({ op: 'attach', link: lab.link('one', one.pid, [], { egressBps: 6 * MEGABIT }) }),
    { code: 'VSERVER_FAILED' }
  )
  t.is(await lab.guaranteed('up0', 1), '5Mbit')
  await lab.ask({ op: 'detach', id: 'two' })
  await lab.ask({ op: 'attach', link: lab.link('one', one.pid, [], { egressBps: 6 * MEGABIT }) })
  t.is(await lab.guaranteed('up0', 1), '6Mbit')
})

test.serial('a change of which the kernel refuses a part leaves the rates as they were', async (t) => {
  const { icmpClass } = planLink(1)
  const leaf = ['dev', 'up0', 'parent', `51ce:${icmpClass}`, 'handle', `${icmpClass}:`]
  await tc('qdisc', 'del', ...leaf)
  await tc('qdisc', 'add', ...leaf, 'pfifo')
  const change = lab.link('one', one.pid, [], { egressBps: 3 * MEGABIT })
  await t.throwsAsync(lab.ask({ op: 'attach', link: change }), { code: 'KERNEL_REFUSED' })
  t.is(await lab.guaranteed('up0', 1), '6Mbit')
  // By itself, tc keeps what it did before it failed.
  const { vserverClass } = planLink(1)
  const half = `class replace dev up0 parent 51ce:1 classid 51ce:${vserverClass} htb rate 3Mbit ceil 10Mbit\nqdisc replace ${leaf.join(' ')} bfifo limit 9000\n`
  await t.throwsAsync(lab.onNode(['tc', '-batch', '-'], half))
  t.is(await lab.guaranteed('up0', 1), '3Mbit')
  await tc('qdisc', 'del', ...leaf)
  await lab.ask({ op: 'attach', link: change })
  t.is(await lab.guaranteed('up0', 1), '3Mbit')
})

test.serial('a queue that somebody else put on the uplink is left alone, and named', async (t) => {
  await lab.killNode()
  await tc('qdisc', 'replace', 'dev', 'up0', 'root', 'handle', '7:', 'bfifo')
  const rules = await lab.onNode(['nft', '-s', 'list', 'ruleset'])
  const error = await t.throwsAsync(lab.startNode(), { code: 'CONFIG_INVALID' })
  t.regex(error?.message ?? '', /up0.* bfifo 7:/)
  t.regex(await tc('qdisc', 'show', 'dev', 'up0'), /^qdisc bfifo 7: root/m)
  t.is(await lab.onNode(['nft', '-s', 'list', 'ruleset']), rules)
  await tc('qdisc', 'del', 'dev', 'up0', 'root')
  await lab.startNode()
  t.is(await lab.guaranteed('up0', 1), '3Mbit')
})

test.serial('a queue that is taken away is put back, and one in its place is named', async (t) => {
  await tc('qdisc', 'del', 'dev', 'up0', 'root')
  t.is(await lab.guaranteed('up0', 1), undefined)
  t.true(await until(async () => (await lab.guaranteed('up0', 1)) === '3Mbit'))
  // While another program shapes it, nothing leaves.
  t.true((await seenAs(7300)).startsWith(lab.nodeAddress))
  await tc('qdisc', 'replace', 'dev', 'up0', 'root', 'handle', '7:', 'htb')
  const troubles = async (): Promise<string> => (await lab.ask<string[]>({ op: 'troubles' })).join()
  t.true(await until(async () => (await troubles()).includes('htb 7:')))
  t.is(await seenAs(7300), 'timeout')
  await tc('qdisc', 'del', 'dev', 'up0', 'root')
  t.true(await until(async () => (await lab.guaranteed('up0', 1)) === '3Mbit' && (await troubles()) === ''))
  t.true((await seenAs(7300)).startsWith(lab.nodeAddress))
  // Without a daemon nobody looks.
  await lab.killNode()
  await tc('qdisc', 'del', 'dev', 'up0', 'root')
  await delay(2500)
  t.is(await lab.guaranteed('up0', 1), undefined)
  t.true((await seenAs(7300)).startsWith(lab.nodeAddress))
  await lab.startNode()
  t.is(await lab.guaranteed('up0', 1), '3Mbit')
})

test.serial(
  'what the kernel refuses of the uplink’s classes as the daemon starts is called that',
  async (t) => {
    await lab.killNode()
    // It bears the node's handle, and has no classes.
    await tc('qdisc', 'del', 'dev', 'up0', 'root')
    await tc('qdisc', 'add', 'dev', 'up0', 'root', 'handle', '51ce:', 'pfifo')
    await t.throwsAsync(lab.startNode(), {
      code: 'KERNEL_REFUSED',
      message: /^the kernel does not shape up0: class below 51ce:/
    })
    await lab.killNode()
    await tc('qdisc', 'del', 'dev', 'up0', 'root')
    await lab.startNode()
    t.is(await lab.guaranteed('up0', 1), '3Mbit')
  }
)

test.serial(
  'a queue of somebody else’s in the node’s own class is not taken for a kernel without fair ones',
  async (t) => {
    await lab.killNode()
    const leaf = ['dev', 'up0', 'parent', '51ce:2', 'handle', '2:']
    await tc('qdisc', 'del', ...leaf).catch(() => {})
    await tc('qdisc', 'add', ...leaf, 'pfifo')
    await t.throwsAsync(lab.startNode(), {
      code: 'KERNEL_REFUSED',
      message: /^the kernel does not shape up0: queue below 51ce:2: /
    })
    await lab.killNode()
    await tc('qdisc', 'del', ...leaf)
    await lab.startNode()
    t.is(await lab.guaranteed('up0', 1), '3Mbit')
  }
)

const gateway = (): string => lab.nodeAddress.replace(/\d+$/, '1')
const moved = (): string => lab.nodeAddress.replace(/\d+$/, '6')

test.serial('an uplink that has another address is noticed, and vservers go on under it', async (t) => {
  t.true((await seenAs(7300)).startsWith(`${lab.nodeAddress}:`))
  await lab.onNode(['ip', 'addr', 'del', `${lab.nodeAddress}/24`, 'dev', 'up0'])
  await lab.onNode(['ip', 'addr', 'add', `${moved()}/24`, 'dev', 'up0'])
  await lab.onNode(['ip', 'route', 'add', 'default', 'via', gateway(), 'dev', 'up0'])
  t.true(await until(async () => (await seenAs(7300)).startsWith(`${moved()}:`)))
  t.is(await lab.guaranteed('up0', 1), '3Mbit')
})

test.serial('an uplink that vanishes and comes back as another device is shaped again', async (t) => {
  await lab.removeUplink()
  // The daemon looks for it every second; it goes on without.
  await delay(1500)
  t.deepEqual(await lab.ask({ op: 'list' }), ['one'])
  for (const op of ['dropped', 'egressBytes']) await t.notThrowsAsync(lab.ask({ op, id: 'one' }), op)
  await lab.makeUplink(moved())
  t.is(await lab.guaranteed('up0', 1), undefined, 'the queue went with its device')
  t.true(await until(async () => (await lab.guaranteed('up0', 1)) === '3Mbit'))
  t.true(await until(async () => (await seenAs(7300)).startsWith(`${moved()}:`)))
})

test.serial('without a daemon that looks the new address is not used', async (t) => {
  await lab.killNode()
  await lab.onNode(['ip', 'addr', 'del', `${moved()}/24`, 'dev', 'up0'])
  await lab.onNode(['ip', 'addr', 'add', `${lab.nodeAddress}/24`, 'dev', 'up0'])
  await lab.onNode(['ip', 'route', 'add', 'default', 'via', gateway(), 'dev', 'up0'])
  await delay(2500)
  t.false((await seenAs(7300)).startsWith(`${lab.nodeAddress}:`))
  await lab.startNode()
  t.true(await until(async () => (await seenAs(7300)).startsWith(`${lab.nodeAddress}:`)))
})

test.serial('one that is made again is not used until it is shaped', async (t) => {
  const dropped = async (): Promise<number> => {
    const counter = await lab.onNode(['nft', 'list', 'counter', 'ip', 'slicenet', 'dropped_device'])
    return Number(/packets (\d+)/.exec(counter)?.[1])
  }
  await lab.killNode()
  const before = await dropped()
  await lab.removeUplink()
  await lab.makeUplink(lab.nodeAddress)
  t.is(await lab.guaranteed('up0', 1), undefined)
  t.is(await seenAs(7300), 'timeout')
  t.true((await dropped()) > before)
  // Were it told by its name.
  await lab.nft('insert rule ip slicenet outward oifname "up0" goto outward_far')
  t.true(await until(async () => (await seenAs(7300)).startsWith(`${lab.nodeAddress}:`)))
  await lab.startNode()
  t.is(await lab.guaranteed('up0', 1), '3Mbit')
  t.true((await seenAs(7300)).startsWith(`${lab.nodeAddress}:`))
})
