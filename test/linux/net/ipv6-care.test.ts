/** What a node does about IPv6 beside ports and checks: shaping, records, ends of leases, and nodes that lose it or have none. */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { run } from '../../../src/base/host-program.ts'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import { DEFAULT_SHAPING } from '../../../src/enforce/network/rates.ts'
import type { Flow } from '../../../src/enforce/network/flow.ts'
import { framed6, message6, segment6 } from './frames6.ts'
import { icmp, insideOf, Lab, tcp, udp, type LineProgram, type Seen, type Vserver } from './lab.ts'
import { until } from './until.ts'

const MEGABIT = 1_000_000
const RST = 4
const lab = new Lab({
  letter: 'c',
  hasSix: true,
  network: { shaping: { ...DEFAULT_SHAPING, destinationsPerMinute: 100 } }
})
const NODE = lab.sixOf('node')
const WORLD = lab.sixOf('world')
let one: Vserver
let one6: LineProgram
let world6: LineProgram

test.before(async () => {
  await lab.up()
  await lab.ask({ op: 'watchFlows' })
  one = await lab.vserver('one', [tcp(9090, 9099), udp(9090, 9099), icmp(77)], {}, { rawSockets: true })
  one6 = await lab.program(one.pid, 'probe6.py', 'eth0')
  world6 = await lab.program('world', 'probe6.py', 'up0')
  await world6.ask({ op: 'answer', port: 7000 })
  await world6.ask({ op: 'listen', port: 7001 })
})
test.after.always(() => lab.down())

const attach = async (resources: object): Promise<unknown> =>
  lab.ask({
    op: 'attach',
    link: {
      ...lab.link('one', one.pid, [tcp(9090, 9099), udp(9090, 9099), icmp(77)], resources),
      rawSockets: true
    }
  })
const ask6 = async (sport = 9090): Promise<string> => one6.ask({ op: 'ask', host: WORLD, port: 7000, sport })
const hex = (packet: Buffer): string => framed6(packet, planLink(1)).toString('hex')

async function oneFlow(wanted: Partial<Flow>): Promise<Flow> {
  for (let round = 0; round < 40; round++) {
    const flows = await lab.ask<Flow[]>({ op: 'takeFlows', all: true })
    const found = flows.find((flow) =>
      Object.entries(wanted).every(([name, value]) => flow[name as keyof Flow] === value)
    )
    if (found !== undefined) return found
    await delay(100)
  }
  throw new Error(`there is no flow like ${JSON.stringify(wanted)}`)
}

test.serial('flows are told as the world sees them, tracked or not', async (t) => {
  t.is(await ask6(), `${NODE} 9090`)
  const ends = { vserver: 'one', localAddress: NODE, remoteAddress: WORLD }
  t.like(await oneFlow({ localAddress: NODE, protocol: 'udp', localPort: 9090 }), {
    ...ends,
    remotePort: 7000,
    begunBy: 'vserver',
    isTracked: true,
    sent: { packets: 1, bytes: 49 }
  })
  const out = { src: planLink(1).address6, dst: WORLD }
  await one6.ask({ op: 'send', frames: [hex(message6(out, 128, (77 << 16) | 1))] })
  t.like(await oneFlow({ protocol: 'icmp', localAddress: NODE, isTracked: true }), {
    ...ends,
    localPort: 77,
    remotePort: 0
  })
  const fin = hex(segment6(out, { sport: 9091, dport: 81, flags: 1 }))
  await one6.ask({ op: 'send', frames: [fin, fin] })
  t.like(await oneFlow({ remotePort: 81 }), {
    ...ends,
    localPort: 9091,
    isTracked: false,
    sent: { packets: 2, bytes: 120 }
  })
  await one6.ask({ op: 'send', frames: [hex(message6(out, 129, (77 << 16) | 9))] })
  t.like(await oneFlow({ protocol: 'icmp', isTracked: false }), { ...ends, localPort: 0, remotePort: 0 })
  const losses = await lab.ask<{ unreadable: number }>({ op: 'flowLosses' })
  t.is(losses.unreadable, 0)
})

test.serial('a kernel with raw sockets is silent on owned ports, until it is taken out', async (t) => {
  const knock = async (): Promise<string> =>
    world6.ask({ op: 'connect', host: NODE, port: 9095, timeout: 0.3 })
  const unreachable = async (): Promise<number> => {
    await world6.ask({ op: 'take', wait: 0 })
    await world6.ask({ op: 'ask', host: NODE, port: 9095, timeout: 0.2 })
    return (await world6.ask<Seen[]>({ op: 'take', match: { type: 1 }, least: 1, wait: 0.3 })).length
  }
  t.is(await knock(), 'timeout')
  t.is(await unreachable(), 0)
  await one6.ask({ op: 'listen', port: 9096 })
  t.is(await world6.ask({ op: 'connect', host: NODE, port: 9096, sport: 5001 }), `${WORLD} 5001`)
  await world6.ask({ op: 'take', wait: 0 })
  const [, ...inside] = insideOf(one.pid)
  await run('nsenter', [...inside, 'nft', 'delete', 'table', 'inet', 'slicenet_silence'])
  t.is(await knock(), 'ECONNREFUSED')
  t.true((await world6.ask<Seen[]>({ op: 'take', wait: 0 })).some(({ flags = 0 }) => (flags & RST) !== 0))
  t.is(await unreachable(), 1)
})

/** Bytes that arrive at the world of both families while a vserver sends as fast as it can by both. */
async function arriving(port: number, pause = 0.0005): Promise<{ four: number; six: number }> {
  for (const probe of [lab.world, world6]) await probe.ask({ op: 'count', port })
  const flood = { op: 'flood', port, seconds: 1, pause }
  await Promise.all([
    one.probe.ask({ ...flood, host: lab.worldAddress }),
    one6.ask({ ...flood, host: WORLD })
  ])
  await delay(200)
  const [four = 0, six = 0] = await Promise.all(
    [lab.world, world6].map(async (probe) => probe.ask<number>({ op: 'counted', port }))
  )
  return { four, six }
}

test.serial('a cap holds for what leaves by both families together, and goes with its queue', async (t) => {
  const capBps = 4 * MEGABIT
  await attach({ egressBpsMax: capBps })
  const before = await lab.settledBytes('one')
  const began = performance.now()
  const capped = await arriving(1001)
  const sent = (await lab.settledBytes('one')) - before
  const seconds = (performance.now() - began) / 1000
  await lab.onNode(['tc', 'qdisc', 'del', 'dev', 'up0', 'root'])
  const unshaped = await arriving(1002)
  await lab.killNode()
  await lab.startNode()
  await lab.ask({ op: 'watchFlows' })
  t.log({ capped, unshaped, sent, seconds })
  t.true(capped.six > 0 && capped.four > 0)
  // What waited in the queue is counted as well; a bucket may be full when it begins.
  t.true(sent * 8 <= capBps * seconds * 1.02 + 100_000, `${sent}`)
  t.true(unshaped.four + unshaped.six > 4 * (capped.four + capped.six))
})

test.serial('echoes have a bucket of their own, until they are no longer told apart', async (t) => {
  await attach({ egressBpsMax: 50 * MEGABIT })
  const leaving = async (kind: string): Promise<number> => {
    const before = await lab.settledBytes('one')
    await one6.ask({ op: 'flood', host: WORLD, port: 7, seconds: 0.8, kind })
    return (await lab.ask<number>({ op: 'egressBytes', id: 'one' })) - before
  }
  const data = await leaving('udp')
  const echoes = await leaving('icmp')
  await lab.nft(
    'flush chain ip6 slicenet outward_far; add rule ip6 slicenet outward_far meta priority set ip6 saddr map @class'
  )
  const untold = await leaving('icmp')
  t.log({ data, echoes, untold })
  t.true(echoes * 10 < data)
  t.true(untold > echoes * 10)
  await lab.killNode()
  await lab.startNode()
})

test.serial('a scan is cut over both families together, until it is not', async (t) => {
  const scan = async (net: string): Promise<number> => {
    await world6.ask({ op: 'take', wait: 0 })
    await one6.ask({ op: 'scan', net, count: 200, port: 9 })
    return (await world6.ask<Seen[]>({ op: 'take', match: { dport: 9 }, least: 200, wait: 1 })).length
  }
  await lab.inHost('router', ['ip', 'route', 'add', '2001:db8:f000::/36', 'via', WORLD])
  const drops = async (): Promise<number> => (await lab.counters()).drops.destinations
  const cutOf4 = async (net: string): Promise<number> => {
    const had = await drops()
    await one.probe.ask({ op: 'scan', net, count: 20, size: 1 })
    return (await drops()) - had
  }
  t.is(await cutOf4('198.18.205'), 0)
  const before = await drops()
  const passed = await scan('2001:db8:f000::')
  const cut = (await drops()) - before
  t.true((await cutOf4('198.18.206')) >= 15)
  await lab.nft('flush chain inet slicenet destinations')
  const uncut = await scan('2001:db8:f001::')
  t.log({ passed, cut, uncut })
  t.true(passed > 0 && passed <= 80)
  t.is(passed + cut, 200)
  t.is(uncut, 200)
  await lab.killNode()
  await lab.startNode()
})

test.serial('the kernel ends a vserver’s traffic at its time, until it is told another', async (t) => {
  await one6.ask({ op: 'answer', port: 9097 })
  const inward = async (): Promise<string> => world6.ask({ op: 'ask', host: NODE, port: 9097 })
  await lab.ask({ op: 'setEnds', ends: [[one.address, Date.now() - 2000]] })
  t.is(await ask6(), 'timeout')
  t.is(await inward(), 'timeout')
  await lab.ask({ op: 'setEnds', ends: [[one.address, Date.now() + 3_600_000]] })
  t.is(await ask6(), `${NODE} 9090`)
  t.not(await inward(), 'timeout')
  await lab.ask({ op: 'setEnds', ends: [] })
})

test.serial('whoever shares the node’s network sends from no port that somebody owns', async (t) => {
  const first = 11 * 65_536
  const user = { ...lab.link('watch', 0), firstId: first, lastId: first + 65_535 }
  await lab.ask({ op: 'attachIds', user })
  const from = async (port: number): Promise<boolean> => {
    await world6.ask({ op: 'take', wait: 0 })
    const script = `import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", ${port}))
try: s.sendto(b"x", ("${WORLD}", 98))
except OSError: pass`
    await lab.onNode(['setpriv', `--reuid=${first + 7}`, '--clear-groups', '/usr/bin/python3', '-c', script])
    return (await world6.ask<Seen[]>({ op: 'take', match: { sport: port }, least: 1, wait: 0.3 })).length > 0
  }
  t.true(await from(9300))
  t.false(await from(9092))
  t.is((await lab.ask<Record<string, number>>({ op: 'dropped', id: 'watch' }))['port'], 1)
  await lab.nft('flush chain ip6 slicenet from_users')
  t.true(await from(9092))
  // The world’s address is one for examples, which policy allows until now.
  await lab.killNode()
  await lab.startNode({ allowedPrivateRanges: ['198.18.0.0/15'] })
  t.false(await from(9300))
  t.is(await answerFrom(first + 7, 7030), 'answer', 'who asked gets an answer')
  await lab.onNode(['nft', 'flush', 'chain', 'ip6', 'slicenet_users', 'from_users'])
  t.true(await from(9300))
  await lab.ask({ op: 'detach', id: 'watch' })
  await lab.killNode()
  await lab.startNode()
  await lab.ask({ op: 'watchFlows' })
})

/** What the world hears when it asks a program of that user on the node. */
async function answerFrom(uid: number, port: number): Promise<string> {
  const script = `import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", ${port}))
s.settimeout(20)
s.sendto(b"answer", s.recvfrom(100)[1])`
  const argv = ['setpriv', `--reuid=${uid}`, '--clear-groups', '/usr/bin/python3', '-c', script]
  const over = new AbortController()
  const answering = lab.onNode(argv).finally(() => over.abort())
  answering.catch(() => {})
  let heard = 'timeout'
  while (!over.signal.aborted && heard !== 'answer') heard = await world6.ask({ op: 'ask', host: NODE, port })
  await answering.catch(() => {})
  return heard
}

test.serial('an IPv6 address that comes beside the node’s own ends no connection', async (t) => {
  const beside = NODE.replace(/2$/, '5')
  t.is(await ask6(9094), `${NODE} 9094`)
  const known = async (): Promise<boolean> =>
    (await lab.onNode(['conntrack', '-L', '-f', 'ipv6', '-p', 'udp'])).includes('sport=9094')
  await lab.onNode(['ip', 'addr', 'add', `${beside}/64`, 'dev', 'up0', 'nodad'])
  t.regex(
    await lab.onNode(['ip', '-6', 'addr', 'show', 'dev', 'up0']),
    new RegExp(`${beside}/64[^]*${NODE}/64`),
    'it is named first'
  )
  // The daemon looks every second.
  await delay(2500)
  t.true(await known())
  t.is(await ask6(9093), `${NODE} 9093`)
  // Once the node’s own is gone, the other is used.
  await lab.onNode(['ip', 'addr', 'del', `${NODE}/64`, 'dev', 'up0'])
  t.true(await until(async () => !(await known())))
  await lab.onNode(['ip', 'addr', 'add', `${NODE}/64`, 'dev', 'up0', 'nodad'])
  await lab.onNode(['ip', 'addr', 'del', `${beside}/64`, 'dev', 'up0'])
  t.true(await until(async () => (await ask6(9092)) === `${NODE} 9092`))
})

test.serial('another IPv6 address of the uplink is noticed, and vservers go on under it', async (t) => {
  const moved = NODE.replace(/2$/, '6')
  await lab.world.ask({ op: 'answer', port: 7002 })
  const ask4 = { op: 'ask', host: lab.worldAddress, port: 7002, sport: 33_000 }
  const seen = await one.probe.ask<string>(ask4)
  await lab.onNode(['ip', 'addr', 'del', `${NODE}/64`, 'dev', 'up0'])
  await lab.onNode(['ip', 'addr', 'add', `${moved}/64`, 'dev', 'up0', 'nodad'])
  t.true(await until(async () => (await ask6()) === `${moved} 9090`))
  t.is(await one.probe.ask(ask4), seen, 'connections of IPv4 go on')
  await lab.onNode(['ip', 'addr', 'del', `${moved}/64`, 'dev', 'up0'])
})

const sixInside = async (pid: number): Promise<boolean> => {
  const [, ...inside] = insideOf(pid)
  return (await run('nsenter', [...inside, 'ip', '-6', 'addr', 'show', 'dev', 'eth0'])).includes('fd51:')
}

test.serial('a node without IPv6 lets none of it out of vservers and gives them no address', async (t) => {
  const tables = async (): Promise<string> => lab.onNode(['nft', 'list', 'tables', 'ip6'])
  t.true(await until(async () => !(await tables()).includes('table ip6 slicenet\n')))
  const out = { src: planLink(1).address6, dst: WORLD }
  const before = (await lab.counters()).refused['one']?.ipv6 ?? 0
  await world6.ask({ op: 'take', wait: 0 })
  await one6.ask({
    op: 'send',
    frames: [hex(segment6(out, { sport: 9090, dport: 80, flags: 2 }))],
    count: 50
  })
  t.is(((await lab.counters()).refused['one']?.ipv6 ?? 0) - before, 50)
  t.deepEqual(await world6.ask({ op: 'take', match: { sport: 9090 }, wait: 0.2 }), [])
  const two = await lab.vserver('two', [udp(9400)])
  t.false(await sixInside(two.pid))
  await lab.ask({ op: 'detach', id: 'two' })
})

test.serial('a node that gets IPv6 gives it to whom is attached from then on', async (t) => {
  await lab.onNode(['ip', 'addr', 'add', `${NODE}/64`, 'dev', 'up0', 'nodad'])
  t.true(await until(async () => (await ask6()) === `${NODE} 9090`))
  const three = await lab.vserver('three', [udp(9400)])
  t.true(await sixInside(three.pid))
  const three6 = await lab.program(three.pid, 'probe6.py', 'eth0')
  t.is(await three6.ask({ op: 'ask', host: WORLD, port: 7000, sport: 9400 }), `${NODE} 9400`)
  await lab.ask({ op: 'detach', id: 'three' })
})

test.serial('whoever was there before has IPv6 at once', async (t) => {
  await lab.onNode(['ip', 'addr', 'del', `${NODE}/64`, 'dev', 'up0'])
  t.true(await until(async () => !(await sixInside(one.pid))))
  const four = await lab.vserver('four', [udp(9500)])
  t.false(await sixInside(four.pid))
  await lab.onNode(['ip', 'addr', 'add', `${NODE}/64`, 'dev', 'up0', 'nodad'])
  t.true(await until(async () => sixInside(four.pid)))
  const four6 = await lab.program(four.pid, 'probe6.py', 'eth0')
  const ask = { op: 'ask', host: WORLD, port: 7000, sport: 9500 }
  t.true(await until(async () => (await four6.ask(ask)) === `${NODE} 9500`))
  await lab.ask({ op: 'detach', id: 'four' })
})

test.serial('ends are told of IPv6 once the node has it, and of everybody then', async (t) => {
  const hasEnd = async (family: string): Promise<boolean> =>
    (await lab.onNode(['nft', 'list', 'chains', family])).includes('end_')
  const setEnds = async (...ends: [string, number][]): Promise<unknown> => lab.ask({ op: 'setEnds', ends })
  await lab.killNode()
  await lab.onNode(['ip', 'addr', 'del', `${NODE}/64`, 'dev', 'up0'])
  await lab.startNode()
  await setEnds([one.address, Date.now() + 3_600_000])
  t.true(await hasEnd('ip'))
  t.false(await hasEnd('ip6'))
  await lab.onNode(['ip', 'addr', 'add', `${NODE}/64`, 'dev', 'up0', 'nodad'])
  t.true(await until(async () => (await ask6()) === `${NODE} 9090`))
  // Its rules are there a moment before the node counts on them.
  await until(async () => {
    await setEnds([one.address, Date.now() - 2000])
    return hasEnd('ip6')
  })
  t.is(await ask6(), 'timeout')
  await setEnds()
  t.is(await ask6(), `${NODE} 9090`)
})

test.serial('a node is told to leave its IPv6 alone, or which of its addresses to use', async (t) => {
  const other = NODE.replace(/2$/, '7')
  await lab.onNode(['ip', 'addr', 'add', `${other}/64`, 'dev', 'up0', 'nodad'])
  await lab.killNode()
  await lab.startNode({ nodeAddress6: 'none' })
  t.is(await ask6(), 'ENETUNREACH')
  await lab.killNode()
  await lab.startNode({ nodeAddress6: other })
  // From a port of which no connection is known yet.
  t.is(await ask6(9098), `${other} 9098`)
  await lab.onNode(['ip', 'addr', 'del', `${other}/64`, 'dev', 'up0'])
})

test.serial('forwarding keeps the routes that the uplink hears of from routers', async (t) => {
  await lab.killNode()
  const setting = (name: string): string => `/proc/sys/net/ipv6/conf/${name}`
  await lab.onNode(['tee', setting('all/forwarding')], '0')
  await lab.onNode(['tee', setting('up0/accept_ra')], '1')
  await lab.startNode()
  t.is((await lab.onNode(['cat', setting('all/forwarding')])).trim(), '1')
  t.is((await lab.onNode(['cat', setting('up0/accept_ra')])).trim(), '2')
  t.is(await ask6(), `${NODE} 9090`)
})

test.serial('an uplink that is made anew hears of routers, once a daemon looks', async (t) => {
  const setting = (name: string): string => `/proc/sys/net/ipv6/conf/${name}/accept_ra`
  const accepts = async (): Promise<string> =>
    (await lab.onNode(['cat', setting('up0')]).catch(() => '')).trim()
  const renew = async (): Promise<void> => {
    await lab.removeUplink()
    await lab.makeUplink(lab.nodeAddress)
  }
  await lab.onNode(['tee', setting('default')], '1')
  await renew()
  t.true(await until(async () => (await accepts()) === '2'))
  await lab.killNode()
  await renew()
  await delay(2500)
  t.is(await accepts(), '1')
  // It has no address of IPv6 now, and waits for one.
  await lab.startNode()
  t.is(await accepts(), '2')
})
