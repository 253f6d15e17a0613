/** IPv6 of vservers on a node with two uplinks, of which the second gets its address while the node runs. */
import test from 'ava'
import { Lab, udp, type LineProgram } from './lab.ts'
import { until } from './until.ts'

const MEGABIT = 1_000_000
const [WORLD_1, NODE_1] = ['2001:db8:f1::1', '2001:db8:f1::2']
const lab = new Lab({
  letter: 'm',
  hasSix: true,
  second: { net: '198.19.206', far: '198.19.207.9' },
  network: {
    uplinks: ['up0', 'up1'].map((device) => ({ device, rootBps: 100 * MEGABIT, nodeBps: MEGABIT }))
  }
})
const NODE = lab.sixOf('node')
const WORLD = lab.sixOf('world')
let one: LineProgram

test.before(async () => {
  await lab.up()
  const { pid } = await lab.vserver('one', [udp(9093)])
  one = await lab.program(pid, 'probe6.py', 'eth0')
  const world = await lab.program('world', 'probe6.py', 'up0')
  await world.ask({ op: 'answer', port: 7000 })
})
test.after.always(() => lab.down())

const seenAs = async (host: string, sport: number): Promise<string> =>
  one.ask({ op: 'ask', host, port: 7000, sport, timeout: 0.2 })

test.serial('by an uplink without an address no IPv6 leaves, and with its first one it does', async (t) => {
  const ip = async (host: string, ...words: string[]): Promise<string> => lab.inHost(host, ['ip', ...words])
  await ip('world', 'addr', 'add', `${WORLD_1}/64`, 'dev', 'up1', 'nodad')
  await ip('node', 'route', 'add', '2001:db8:f1::/64', 'dev', 'up1')
  t.is(await seenAs(WORLD, 9093), `${NODE} 9093`)
  t.is(await seenAs(WORLD_1, 9093), 'timeout')
  await ip('node', 'addr', 'add', `${NODE_1}/64`, 'dev', 'up1', 'nodad')
  await ip('node', 'route', 'add', '::/0', 'via', WORLD_1, 'dev', 'up1', 'metric', '2000')
  t.true(await until(async () => (await seenAs(WORLD_1, 9093)) === `${NODE_1} 9093`))
  t.is(await seenAs(WORLD, 9093), `${NODE} 9093`)
})
