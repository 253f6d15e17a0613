/** A node with two uplinks: `up0` by way of the router, `up1` straight to the world. */
import test from 'ava'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import type { Flow } from '../../../src/enforce/network/flow.ts'
import type { UplinkInit } from '../../../src/enforce/network/uplink.ts'
import { gre, icmp, Lab, tcp, udp, type LineProgram, type Seen, type Vserver } from './lab.ts'
import { until } from './until.ts'

const MEGABIT = 1_000_000
const FIN = 1
const NET = '198.19.200'
/** Of the world and of the node at `up1`, and one that the world has behind it. */
const [WORLD_1, NODE_1, FAR] = [`${NET}.1`, `${NET}.2`, '198.19.201.9']
const first: UplinkInit = { device: 'up0', rootBps: 10 * MEGABIT, nodeBps: MEGABIT }
const second: UplinkInit = { device: 'up1', rootBps: 6 * MEGABIT, nodeBps: MEGABIT }
const lab = new Lab({
  letter: 'q',
  second: { net: NET, far: FAR },
  network: { uplinks: [first, second] }
})
let one: Vserver
let two: Vserver
let world1: LineProgram
let node: LineProgram

test.before(async () => {
  await lab.up()
  const ports = [tcp(9090, 9092), udp(9090, 9093), icmp(23_456), gre(77)]
  one = await lab.vserver('one', ports, { egressBps: 2 * MEGABIT })
  two = await lab.vserver('two', [tcp(7070), udp(7070)])
  world1 = await lab.program('world', 'probe.py', 'up1')
  node = await lab.probeOnNode()
  await lab.world.ask({ op: 'answer', port: 7000 })
  await lab.world.ask({ op: 'listen', port: 7001 })
  await one.probe.ask({ op: 'listen', port: 9091 })
  await one.probe.ask({ op: 'answer', port: 9090 })
})
test.after.always(() => lab.down())

const tc = async (...args: string[]): Promise<string> => lab.onNode(['tc', ...args])
const restart = async (...uplinks: readonly UplinkInit[]): Promise<void> => {
  await lab.killNode()
  await lab.startNode({ uplinks })
}
const rates = async (device: string, minor: string): Promise<readonly string[]> => {
  const shown = await tc('class', 'show', 'dev', device)
  const [, rate = '', ceil = ''] =
    new RegExp(`^class htb 51ce:${minor} .* rate (\\S+) ceil (\\S+)`, 'm').exec(shown) ?? []
  return [rate, ceil]
}

/** Each uplink: who is reached by it, under which address of the node, and who sees it there. */
const ways = (): readonly (readonly [string, string, LineProgram])[] => [
  [lab.worldAddress, lab.nodeAddress, lab.world],
  [WORLD_1, NODE_1, world1]
]

test.serial('what leaves by an uplink has its address, whatever it is', async (t) => {
  for (const [host, address, sniffer] of ways()) {
    const seen = async (match: object): Promise<Seen | undefined> =>
      (await sniffer.ask<Seen[]>({ op: 'take', match, least: 1, wait: 0.5 }))[0]
    t.is(await one.probe.ask({ op: 'ask', host, port: 7000, sport: 9093 }), `${address}:9093`)
    t.is(await one.probe.ask({ op: 'connect', host, port: 7001, sport: 9092 }), `${address}:9092`)
    const shared = new RegExp(`^${address}:(4\\d|5\\d|60)\\d{3}$`)
    t.regex(await two.probe.ask<string>({ op: 'ask', host, port: 7000, sport: 9093 }), shared)
    t.regex(await two.probe.ask<string>({ op: 'connect', host, port: 7001, sport: 9092 }), shared)
    await seen({})
    const packet = { op: 'send', src: one.address, dst: host }
    await one.probe.ask({ ...packet, proto: 'icmp', id: 23_456 })
    t.like(await seen({ type: 8 }), { src: address, id: 23_456, ok: true })
    await one.probe.ask({ ...packet, proto: 'tcp', sport: 9090, dport: 8080, flags: FIN })
    t.like(await seen({ flags: FIN, sport: 9090 }), { src: address, ok: true })
    await one.probe.ask({ ...packet, proto: 'gre', key: 77 })
    t.like(await seen({ proto: 'gre' }), { src: address, key: 77 })
  }
})

test.serial('owned ports are reached at every address, from the world and from beside them', async (t) => {
  const arrived = async (match: object): Promise<Seen | undefined> =>
    (await one.probe.ask<Seen[]>({ op: 'take', match, least: 1, wait: 0.5 }))[0]
  for (const [from, address] of ways()) {
    const asked = { host: address, sport: 5555 }
    t.is(await lab.world.ask({ op: 'connect', ...asked, port: 9091 }), `${from}:5555`)
    t.is(await lab.world.ask({ op: 'ask', ...asked, port: 9090 }), `${from}:5555`)
    t.is(await two.probe.ask({ op: 'connect', ...asked, sport: 7070, port: 9091 }), `${address}:7070`)
    t.is(await two.probe.ask({ op: 'ask', ...asked, sport: 7070, port: 9090 }), `${address}:7070`)
    t.regex(await node.ask<string>({ op: 'connect', host: address, port: 9091 }), /:\d+$/)
    await arrived({})
    const stray = { op: 'route', proto: 'tcp', dst: address, dport: 9092, flags: FIN }
    await lab.world.ask({ ...stray, src: from, sport: 6000 })
    t.like(await arrived({ sport: 6000 }), { dst: one.address, src: from, ok: true })
    await two.probe.ask({ ...stray, src: two.address, sport: 7070 })
    t.like(await arrived({ sport: 7070 }), { dst: one.address, ok: true })
    await node.ask({ ...stray, src: lab.nodeAddress, sport: 6001 })
    t.like(await arrived({ sport: 6001 }), { dst: one.address, ok: true })
    await lab.world.ask({ op: 'route', proto: 'gre', src: from, dst: address, key: 77 })
    t.like(await arrived({ proto: 'gre' }), { dst: one.address })
  }
})

test.serial('flows are noted under the address by which they left, outside of connections too', async (t) => {
  await lab.ask({ op: 'watchFlows' })
  for (const [host, address] of ways()) {
    const packet = { op: 'send', src: one.address, dst: host }
    await one.probe.ask({ op: 'ask', host, port: 7000, sport: 9092 })
    await one.probe.ask({ ...packet, proto: 'tcp', sport: 9090, dport: 8081, flags: FIN })
    await one.probe.ask({ ...packet, proto: 'gre', key: 77 })
    const seen = new Map<string, string>()
    const all = ['udp', 'tcp outside', 'gre outside']
    const noted = await until(async () => {
      const flows = await lab.ask<readonly Flow[]>({ op: 'takeFlows', all: true })
      for (const { protocol, isTracked, remoteAddress, localAddress } of flows)
        if (remoteAddress === host) seen.set(`${protocol}${isTracked ? '' : ' outside'}`, localAddress)
      return all.every((each) => seen.has(each))
    })
    t.true(noted, [...seen.keys()].join())
    for (const each of all) t.is(seen.get(each), address, each)
  }
})

test.serial('the node’s own ports are out of reach at every address', async (t) => {
  await node.ask({ op: 'listen', port: 6100 })
  for (const [, address] of ways()) {
    const before = (await lab.counters()).drops.node
    t.is(await two.probe.ask({ op: 'connect', host: address, port: 6100, timeout: 0.2 }), 'timeout')
    t.true((await lab.counters()).drops.node > before, address)
  }
})

test.serial('a port that a program listens on at any address is nobody’s', async (t) => {
  await node.ask({ op: 'listen', port: 6101, host: NODE_1 })
  const link = lab.link('three', await lab.standIn(), [tcp(6101)])
  await t.throwsAsync(lab.ask({ op: 'attach', link }), { code: 'PORT_IN_USE' })
})

test.serial('each uplink has a tree of its own, and what leaves by it is counted there', async (t) => {
  const { vserverClass } = planLink(1)
  t.deepEqual(await rates('up0', '1'), ['10Mbit', '10Mbit'])
  t.deepEqual(await rates('up1', '1'), ['6Mbit', '6Mbit'])
  t.deepEqual(await rates('up0', vserverClass), ['2Mbit', '10Mbit'])
  t.deepEqual(await rates('up1', vserverClass), ['2Mbit', '6Mbit'])
  for (const [host] of ways()) {
    const before = await lab.settledBytes('one')
    await one.probe.ask({ op: 'flood', host, port: 7, seconds: 2, most: 100 })
    const bytes = (await lab.settledBytes('one')) - before
    t.true(bytes >= 100 * 1200 && bytes < 100 * 1300, `${bytes}`)
  }
})

test.serial('no more is guaranteed than each uplink has beside the node’s own', async (t) => {
  const link = lab.link('three', await lab.standIn(), [], { egressBps: 4 * MEGABIT })
  const error = await t.throwsAsync(lab.ask({ op: 'attach', link }), { code: 'VSERVER_FAILED' })
  t.regex(error?.message ?? '', /of 5000000 that the uplink up1 has/)
  // It would fit on the first alone.
  await restart(first)
  await t.notThrowsAsync(lab.ask({ op: 'attach', link }))
  await lab.ask({ op: 'detach', id: 'three' })
})

test.serial('what is no uplink is not left by', async (t) => {
  const before = (await lab.counters()).drops.device
  t.is(await one.probe.ask({ op: 'ask', host: WORLD_1, port: 7000, timeout: 0.2 }), 'timeout')
  t.is((await lab.counters()).drops.device - before, 1)
  await restart(first, second)
  t.regex(await one.probe.ask<string>({ op: 'ask', host: WORLD_1, port: 7000 }), new RegExp(`^${NODE_1}:`))
})

const fromFar = async (request: object): Promise<string> =>
  lab.world.ask({ host: NODE_1, source: FAR, sport: 5600, timeout: 0.3, ...request })
const removeRules = async (): Promise<void> => {
  for (const mark of ['0x51ce0001', '0x51ce0002']) await lab.onNode(['ip', 'rule', 'del', 'fwmark', mark])
}

test.serial('what came in by an uplink is answered by it, until its routes are taken out', async (t) => {
  // The default route leads elsewhere.
  t.is(await one.probe.ask({ op: 'ask', host: FAR, port: 7000, timeout: 0.2 }), 'timeout')
  t.is(await fromFar({ op: 'connect', port: 9091 }), `${FAR}:5600`)
  t.is(await fromFar({ op: 'ask', port: 9090 }), `${FAR}:5600`)
  await lab.killNode()
  await removeRules()
  t.is(await fromFar({ op: 'connect', port: 9091, sport: 5601 }), 'timeout')
  t.is(await fromFar({ op: 'ask', port: 9090, sport: 5601 }), 'timeout')
  await lab.startNode()
  t.is(await fromFar({ op: 'connect', port: 9091, sport: 5602 }), `${FAR}:5602`)
  t.is(await fromFar({ op: 'ask', port: 9090, sport: 5602 }), `${FAR}:5602`)
})

test.serial(
  'rules and routes of others are left alone, and what somebody takes away is mended',
  async (t) => {
    await lab.onNode(['ip', 'route', 'add', 'blackhole', '203.0.113.0/24', 'table', '77'])
    await lab.onNode(['ip', 'rule', 'add', 'fwmark', '7', 'lookup', '77', 'priority', '100'])
    await lab.onNode(['ip', 'rule', 'del', 'fwmark', '0x51ce0002'])
    await lab.onNode(['ip', 'route', 'flush', 'table', '5361153'])
    t.true(
      await until(async () => (await fromFar({ op: 'connect', port: 9091, sport: 5603 })) === `${FAR}:5603`)
    )
    const rules = (await lab.onNode(['ip', 'rule', 'show'])).replace(/\s+/g, ' ')
    t.regex(rules, /100: from all fwmark 0x7 lookup 77 20942: .*fwmark 0x51ce000/)
    t.regex(await lab.onNode(['ip', 'route', 'show', 'table', '77']), /blackhole 203\.0\.113\.0\/24/)
    // A mark that somebody else's rules set decides.
    await lab.nft(
      'table ip theirs { chain c { type filter hook prerouting priority -150; iifname "sl1" meta mark set 8\n}\n}'
    )
    t.is(await fromFar({ op: 'connect', port: 9091, sport: 5604 }), 'timeout')
    await lab.nft('delete table ip theirs')
  }
)

test.serial('a connection stays on the uplink that it began on while that leads there', async (t) => {
  const ask = { op: 'ask', host: FAR, port: 7002, sport: 9093 }
  await lab.world.ask({ op: 'answer', host: FAR, port: 7002 })
  await lab.onNode(['ip', 'route', 'add', FAR, 'via', WORLD_1, 'dev', 'up1'])
  t.is(await one.probe.ask(ask), `${NODE_1}:9093`)
  await lab.onNode(['ip', 'route', 'del', FAR])
  t.is(await one.probe.ask(ask), `${NODE_1}:9093`)
  t.is(await one.probe.ask({ ...ask, sport: 9092, timeout: 0.2 }), 'timeout')
})

test.serial('when an uplink leads nowhere any more, connections begin anew by another', async (t) => {
  await lab.routeFarFromRouter(FAR)
  const ask = { op: 'ask', host: FAR, port: 7002, sport: 9091, timeout: 0.2 }
  const seenAs = async (): Promise<string> => one.probe.ask(ask)
  t.is(await seenAs(), `${lab.nodeAddress}:9091`)
  const gateway = lab.nodeAddress.replace(/\d+$/, '1')
  const change = async (verb: 'add' | 'del'): Promise<string> =>
    lab.onNode(['ip', 'route', verb, 'default', 'via', gateway, 'dev', 'up0'])
  // Without a daemon that looks, what has one address would leave by the uplink of another, and is dropped.
  await lab.killNode()
  await change('del')
  t.is(await seenAs(), `${lab.nodeAddress}:9091`, 'it has routes of its own')
  await lab.onNode(['ip', 'route', 'flush', 'table', '5361152'])
  const before = (await lab.onNode(['nft', 'list', 'counter', 'ip', 'slicenet', 'dropped_device'])).trim()
  t.is(await seenAs(), 'timeout')
  t.not((await lab.onNode(['nft', 'list', 'counter', 'ip', 'slicenet', 'dropped_device'])).trim(), before)
  await change('add')
  await lab.startNode()
  t.is(await seenAs(), `${lab.nodeAddress}:9091`)
  await change('del')
  t.true(await until(async () => (await seenAs()) === `${NODE_1}:9091`))
  await change('add')
  t.is(await seenAs(), `${NODE_1}:9091`, 'and stay there')
})

test.serial('uplinks that do not go together are refused, and what stood before stands', async (t) => {
  await lab.killNode()
  const rules = await lab.onNode(['nft', '-s', 'list', 'ruleset'])
  const refused = async (uplinks: readonly UplinkInit[], message: RegExp): Promise<void> => {
    const error = await t.throwsAsync(lab.startNode({ uplinks }), { code: 'CONFIG_INVALID' })
    t.regex(error?.message ?? '', message)
    await lab.killNode()
  }
  await refused([{ ...first, device: 'up7' }], /up7 is no device/)
  await refused(
    [
      { ...first, device: 'up7' },
      { ...second, device: 'up8' }
    ],
    /up7 is no device/
  )
  await refused([first, second, first], /up0 is named twice/)
  // The first is the default route's as well.
  await refused([first, { ...second, device: undefined }], /up0 is named twice/)
  await refused([first, { ...second, address: lab.nodeAddress }], /up0 and up1 have one address/)
  await tc('qdisc', 'replace', 'dev', 'up1', 'root', 'handle', '7:', 'bfifo')
  await refused([first, second], /up1.* bfifo 7:/)
  t.is(await lab.onNode(['nft', '-s', 'list', 'ruleset']), rules)
  await tc('qdisc', 'del', 'dev', 'up1', 'root')
  await lab.startNode()
  t.deepEqual(await rates('up1', '1'), ['6Mbit', '6Mbit'])
})
