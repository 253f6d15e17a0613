/** IPv6 of vservers on a node with two uplinks, of which the second gets its address while the node runs. */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { Lab, tcp, udp, type LineProgram, type Vserver } from './lab.ts'

const MEGABIT = 1_000_000
const [WORLD_1, NODE_1, FAR] = ['2001:db8:f1::1', '2001:db8:f1::2', '2001:db8:f2::9']
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
let vserver: Vserver
let one: LineProgram
let world: LineProgram

test.before(async () => {
  await lab.up()
  vserver = await lab.vserver('one', [tcp(9090, 9092), udp(9090, 9093)])
  one = await lab.program(vserver.pid, 'probe6.py', 'eth0')
  world = await lab.program('world', 'probe6.py', 'up0')
  await world.ask({ op: 'answer', port: 7000 })
  await one.ask({ op: 'listen', port: 9091 })
  await one.ask({ op: 'answer', port: 9090 })
})
test.after.always(() => lab.down())

async function until(condition: () => Promise<boolean>): Promise<boolean> {
  for (let round = 0; round < 100; round++) {
    if (await condition()) return true
    await delay(100)
  }
  return false
}

const seenAs = async (host: string, sport: number): Promise<string> =>
  one.ask({ op: 'ask', host, port: 7000, sport, timeout: 0.2 })
const fromFar = async (sport: number): Promise<string> =>
  world.ask({ op: 'connect', host: NODE_1, port: 9091, source: FAR, sport, timeout: 0.3 })

test.serial('by an uplink without an address no IPv6 leaves, and with its first one it does', async (t) => {
  const ip = async (host: string, ...words: string[]): Promise<string> => lab.inHost(host, ['ip', ...words])
  await ip('world', 'addr', 'add', `${WORLD_1}/64`, 'dev', 'up1', 'nodad')
  await ip('world', 'addr', 'add', `${FAR}/128`, 'dev', 'lo')
  await ip('node', 'route', 'add', '2001:db8:f1::/64', 'dev', 'up1')
  t.is(await seenAs(WORLD, 9093), `${NODE} 9093`)
  t.is(await seenAs(WORLD_1, 9093), 'timeout')
  await ip('node', 'addr', 'add', `${NODE_1}/64`, 'dev', 'up1', 'nodad')
  await ip('node', 'route', 'add', '::/0', 'via', WORLD_1, 'dev', 'up1', 'metric', '2000')
  t.true(await until(async () => (await seenAs(WORLD_1, 9093)) === `${NODE_1} 9093`))
  t.is(await seenAs(WORLD, 9093), `${NODE} 9093`)
})

test.serial('owned ports are reached at the addresses of both', async (t) => {
  for (const [host, source] of [
    [NODE, WORLD],
    [NODE_1, WORLD_1]
  ]) {
    t.is(await world.ask({ op: 'connect', host, port: 9091, source, sport: 5555 }), `${source} 5555`)
    t.is(await world.ask({ op: 'ask', host, port: 9090, source, sport: 5555 }), `${source} 5555`)
  }
})

test.serial('what came in by an uplink is answered by it, until its routes are taken out', async (t) => {
  t.is(await seenAs(FAR, 9092), 'timeout', 'the default route leads elsewhere')
  t.true(await until(async () => (await fromFar(5600)) === `${FAR} 5600`))
  await lab.killNode()
  for (const mark of ['0x51ce0001', '0x51ce0002'])
    await lab.onNode(['ip', '-6', 'rule', 'del', 'fwmark', mark])
  t.is(await fromFar(5601), 'timeout')
  await lab.startNode()
  t.is(await fromFar(5602), `${FAR} 5602`)
})
