/** A node with two uplinks that both have IPv6: `up0` by way of the router, `up1` straight to the world. */
import test from 'ava'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import type { Flow } from '../../../src/enforce/network/flow.ts'
import type { UplinkInit } from '../../../src/enforce/network/uplink.ts'
import { framed6, message6, segment6, type Ends } from './frames6.ts'
import { icmp, Lab, tcp, udp, type LineProgram, type Seen, type Vserver } from './lab.ts'
import { until } from './until.ts'

const MEGABIT = 1_000_000
const FIN = 1
const NET = '198.19.204'
const [WORLD_1, NODE_1] = [`${NET}.1`, `${NET}.2`]
const NET_6 = '2001:db8:51'
/** Of the world and of the node at `up1`, and one that the world has behind it. */
const [WORLD_1_6, NODE_1_6, FAR_6] = [`${NET_6}::1`, `${NET_6}::2`, '2001:db8:61::9']
const first: UplinkInit = { device: 'up0', rootBps: 10 * MEGABIT, nodeBps: MEGABIT }
const second: UplinkInit = { device: 'up1', rootBps: 10 * MEGABIT, nodeBps: MEGABIT }
const lab = new Lab({
  letter: 'e',
  hasSix: true,
  second: { net: NET, far: '198.19.205.9' },
  network: { uplinks: [first, second] }
})
const [WORLD_6, NODE_6] = [lab.sixOf('world'), lab.sixOf('node')]
const plan = planLink(1)
let one: Vserver
let one6: LineProgram
let two6: LineProgram
/** What the world sees at each of its ends. */
let world: LineProgram
let world1: LineProgram

test.before(async () => {
  await lab.up()
  const six = async (host: string, end: number, ...more: string[]): Promise<string> => {
    const own = [`${NET_6}::${end}`, `fe80::${end}`].map((each) => `addr add ${each}/64 dev up1 nodad`)
    return lab.inHost(host, ['ip', '-batch', '-'], `${[...own, ...more].join('\n')}\n`)
  }
  await six('world', 1, `addr add ${FAR_6}/128 dev lo nodad`)
  await six('node', 2, `route add ::/0 via ${WORLD_1_6} dev up1 metric 2000`)
  await lab.killNode()
  await lab.startNode()
  one = await lab.vserver('one', [tcp(9090, 9092), udp(9090, 9093), icmp(23_456)])
  const two = await lab.vserver('two', [tcp(7070), udp(7070)])
  one6 = await lab.program(one.pid, 'probe6.py', 'eth0')
  two6 = await lab.program(two.pid, 'probe6.py', 'eth0')
  world = await lab.program('world', 'probe6.py', 'up0')
  world1 = await lab.program('world', 'probe6.py', 'up1')
  await lab.world.ask({ op: 'answer', port: 7004 })
  await world.ask({ op: 'answer', port: 7000 })
  await world.ask({ op: 'listen', port: 7001 })
  await one6.ask({ op: 'listen', port: 9091 })
  await one6.ask({ op: 'answer', port: 9090 })
})
test.after.always(() => lab.down())

const restart = async (...uplinks: readonly UplinkInit[]): Promise<void> => {
  await lab.killNode()
  await lab.startNode({ uplinks })
}

/** Each uplink: who is reached by it, under which address of the node, and who sees it there. */
const ways = (): readonly (readonly [string, string, LineProgram])[] => [
  [WORLD_6, NODE_6, world],
  [WORLD_1_6, NODE_1_6, world1]
]
const hex = (packet: Buffer): string => packet.toString('hex')
const sends = (packet: Buffer): object => ({ op: 'send', frames: [hex(framed6(packet, plan))] })
const echo = (ends: Ends): Buffer => message6(ends, 128, (23_456 << 16) | 1)
const fin = (ends: Ends, sport: number, dport: number): Buffer => segment6(ends, { sport, dport, flags: FIN })
const taken = async (probe: LineProgram, match: object): Promise<Seen | undefined> =>
  (await probe.ask<Seen[]>({ op: 'take', match, least: 1, wait: 0.5 }))[0]
const deviceDrops = async (): Promise<number> => (await lab.counters()).drops.device

test.serial('what leaves by an uplink has that one’s address, of either family', async (t) => {
  const ask = { op: 'ask', port: 7000, sport: 9093 }
  const ask4 = { ...ask, port: 7004 }
  t.is(await one.probe.ask({ ...ask4, host: lab.worldAddress }), `${lab.nodeAddress}:9093`)
  t.is(await one.probe.ask({ ...ask4, host: WORLD_1 }), `${NODE_1}:9093`)
  for (const [host, address, sniffer] of ways()) {
    t.is(await one6.ask({ ...ask, host }), `${address} 9093`)
    t.is(await one6.ask({ op: 'connect', host, port: 7001, sport: 9092 }), `${address} 9092`)
    const shared = new RegExp(`^${address} (4\\d|5\\d|60)\\d{3}$`)
    t.regex(await two6.ask<string>({ ...ask, host }), shared)
    t.regex(await two6.ask<string>({ op: 'connect', host, port: 7001, sport: 9092 }), shared)
    await taken(sniffer, {})
    const ends = { src: plan.address6, dst: host }
    await one6.ask(sends(echo(ends)))
    t.like(await taken(sniffer, { type: 128 }), { src: address, id: 23_456, ok: true })
    await one6.ask(sends(fin(ends, 9090, 8080)))
    t.like(await taken(sniffer, { flags: FIN, sport: 9090 }), { src: address, ok: true })
  }
})

test.serial(
  'owned ports are reached at every address, and answered from the one that was asked',
  async (t) => {
    for (const [from, address, sniffer] of ways()) {
      const asked = { host: address, sport: 5555 }
      t.is(await world.ask({ op: 'connect', ...asked, port: 9091 }), `${from} 5555`)
      await taken(sniffer, {})
      t.is(await world.ask({ op: 'ask', ...asked, port: 9090 }), `${from} 5555`)
      t.like(await taken(sniffer, { sport: 9090 }), { src: address, dst: from, dport: 5555 })
      t.is(await two6.ask({ op: 'connect', ...asked, sport: 7070, port: 9091 }), `${address} 7070`)
      t.is(await two6.ask({ op: 'ask', ...asked, sport: 7070, port: 9090 }), `${address} 7070`)
      await taken(one6, {})
      const stray = { src: from, dst: address }
      await world.ask({ op: 'route', packets: [hex(fin(stray, 6000, 9092)), hex(echo(stray))] })
      t.like(await taken(one6, { sport: 6000 }), { src: from, dst: plan.address6, dport: 9092, ok: true })
    }
  }
)

test.serial('flows are noted under the address by which they left, outside of connections too', async (t) => {
  await lab.ask({ op: 'watchFlows' })
  for (const [host, address] of ways()) {
    await one6.ask({ op: 'ask', host, port: 7000, sport: 9092 })
    await one6.ask(sends(fin({ src: plan.address6, dst: host }, 9090, 8081)))
    const seen = new Map<string, string>()
    const noted = await until(async () => {
      const flows = await lab.ask<readonly Flow[]>({ op: 'takeFlows', all: true })
      for (const { protocol, isTracked, remoteAddress, localAddress } of flows)
        if (remoteAddress === host) seen.set(`${protocol}${isTracked ? '' : ' outside'}`, localAddress)
      return seen.has('udp') && seen.has('tcp outside')
    })
    t.true(noted, [...seen.keys()].join())
    t.deepEqual([seen.get('udp'), seen.get('tcp outside')], [address, address])
  }
})

const fromFar = async (request: object): Promise<string> =>
  world.ask({ host: NODE_1_6, source: FAR_6, timeout: 0.3, ...request })

test.serial('what came in by an uplink is answered by it, until its routes are taken out', async (t) => {
  // The default route leads elsewhere.
  t.is(await one6.ask({ op: 'ask', host: FAR_6, port: 7000, timeout: 0.2 }), 'timeout')
  t.is(await fromFar({ op: 'connect', port: 9091, sport: 5600 }), `${FAR_6} 5600`)
  t.is(await fromFar({ op: 'ask', port: 9090, sport: 5600 }), `${FAR_6} 5600`)
  await lab.killNode()
  for (const mark of ['0x51ce0001', '0x51ce0002'])
    await lab.onNode(['ip', '-6', 'rule', 'del', 'fwmark', mark])
  t.is(await fromFar({ op: 'connect', port: 9091, sport: 5601 }), 'timeout')
  await lab.startNode()
  t.is(await fromFar({ op: 'connect', port: 9091, sport: 5602 }), `${FAR_6} 5602`)
  await lab.onNode(['ip', '-6', 'route', 'flush', 'table', '5361153'])
  t.true(
    await until(async () => (await fromFar({ op: 'connect', port: 9091, sport: 5603 })) === `${FAR_6} 5603`)
  )
})

test.serial(
  'an uplink’s other address of IPv6 is noticed, and the other uplink is not touched',
  async (t) => {
    const moved = `${NET_6}::6`
    const ask = { op: 'ask', host: WORLD_6, port: 7000, sport: 9091 }
    t.is(await one6.ask(ask), `${NODE_6} 9091`)
    const known = async (): Promise<string> =>
      lab.onNode(['conntrack', '-L', '-f', 'ipv6', '-p', 'udp', '--orig-src', plan.address6])
    const change = async (verb: 'add' | 'del', address: string): Promise<string> =>
      lab.onNode(['ip', 'addr', verb, `${address}/64`, 'dev', 'up1', ...(verb === 'add' ? ['nodad'] : [])])
    const seenAs = async (): Promise<string> =>
      one6.ask({ op: 'ask', host: WORLD_1_6, port: 7000, sport: 9092, timeout: 0.2 })
    await change('add', moved)
    await change('del', NODE_1_6)
    t.true(await until(async () => (await seenAs()) === `${moved} 9092`))
    t.regex(await known(), new RegExp(`dst=${NODE_6} sport=7000 dport=9091`))
    await change('add', NODE_1_6)
    await change('del', moved)
    t.true(await until(async () => (await seenAs()) === `${NODE_1_6} 9092`))
  }
)

test.serial('when an uplink leads nowhere any more, connections begin anew by another', async (t) => {
  await world.ask({ op: 'answer', host: FAR_6, port: 7002 })
  await lab.inHost('router', ['ip', '-6', 'route', 'add', FAR_6, 'via', WORLD_6])
  const seenAs = async (): Promise<string> =>
    one6.ask({ op: 'ask', host: FAR_6, port: 7002, sport: 9091, timeout: 0.2 })
  const gateway = NODE_6.replace(/2$/, '1')
  const change = async (verb: 'add' | 'del'): Promise<string> =>
    lab.onNode(['ip', '-6', 'route', verb, '::/0', 'via', gateway, 'dev', 'up0'])
  t.is(await seenAs(), `${NODE_6} 9091`)
  await change('del')
  t.true(await until(async () => (await seenAs()) === `${NODE_1_6} 9091`))
  await change('add')
  t.is(await seenAs(), `${NODE_1_6} 9091`, 'and stay there')
})

test.serial(
  'a cap holds over both families and both uplinks, until the common one is taken out',
  async (t) => {
    const pid = await lab.standIn()
    await lab.ask({ op: 'attach', link: lab.link('capped', pid, [], { egressBpsMax: 2 * MEGABIT }) })
    const four = await lab.probeIn(pid, 'eth0')
    const six = await lab.program(pid, 'probe6.py', 'eth0')
    const arriving = async (port: number): Promise<number> => {
      for (const sniffer of [lab.world, world1]) await sniffer.ask({ op: 'count', port })
      // Long enough that what may come at once is little of it.
      const flood = { op: 'flood', seconds: 6, pause: 0.02, port }
      await Promise.all([
        four.ask({ ...flood, host: lab.worldAddress }),
        six.ask({ ...flood, host: WORLD_1_6 })
      ])
      const by4 = await lab.world.ask<number>({ op: 'counted', port })
      const by6 = await world1.ask<number>({ op: 'counted', port })
      t.log({ by4, by6 })
      t.true(by4 > 0 && by6 > 0)
      return by4 + by6
    }
    const held = await arriving(1001)
    await lab.nft('flush chain inet slicenet_caps forwarded')
    t.true((await arriving(1002)) > held * 1.3)
    await lab.ask({ op: 'detach', id: 'capped' })
  }
)

test.serial('by an uplink without IPv6 none leaves, and by the others it does', async (t) => {
  await restart(first, { ...second, address6: 'none' })
  const before = await deviceDrops()
  t.is(await one6.ask({ op: 'ask', host: WORLD_1_6, port: 7000, timeout: 0.2 }), 'timeout')
  t.is((await deviceDrops()) - before, 1)
  t.is(await one.probe.ask({ op: 'ask', host: WORLD_1, port: 7004, sport: 9092 }), `${NODE_1}:9092`)
  t.is(await one6.ask({ op: 'ask', host: WORLD_6, port: 7000, sport: 9092 }), `${NODE_6} 9092`)
  await restart({ ...first, address6: 'none' }, second)
  t.is(await one6.ask({ op: 'ask', host: WORLD_6, port: 7000, timeout: 0.2 }), 'timeout')
  t.is(await one6.ask({ op: 'ask', host: WORLD_1_6, port: 7000, sport: 9091 }), `${NODE_1_6} 9091`)
  t.is(await fromFar({ op: 'connect', port: 9091, sport: 5604 }), `${FAR_6} 5604`)
  await restart(first, second)
  t.is(await one6.ask({ op: 'ask', host: WORLD_6, port: 7000, sport: 9093 }), `${NODE_6} 9093`)
})

test.serial('two uplinks with one address of IPv6 are refused', async (t) => {
  await lab.killNode()
  const uplinks = [first, { ...second, address6: NODE_6 }]
  const error = await t.throwsAsync(lab.startNode({ uplinks }), { code: 'CONFIG_INVALID' })
  t.regex(error?.message ?? '', /up0 and up1 have one address, 2001:/)
  await lab.killNode()
  await lab.startNode()
})

test.serial('when the node is taken away no rules or routes of IPv6 are left', async (t) => {
  t.regex(await lab.onNode(['ip', '-6', 'rule', 'show']), /fwmark 0x51ce0002/)
  for (const id of ['one', 'two']) await lab.ask({ op: 'detach', id })
  await lab.ask({ op: 'remove' })
  t.notRegex(await lab.onNode(['ip', '-6', 'rule', 'show']), /0x51ce/)
  t.notRegex(await lab.onNode(['ip', '-6', 'route', 'show', 'table', 'all']), /table 53611/)
})
