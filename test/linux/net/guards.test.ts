import test from 'ava'
import { Lab, tcp, udp, type LineProgram, type Seen, type Vserver } from './lab.ts'

const lab = new Lab({ letter: 'g', network: { flowsPerVserverMax: 50 } })
let one: Vserver
let two: Vserver
let node: LineProgram

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [tcp(9090), udp(9090)])
  two = await lab.vserver('two')
  node = await lab.probeOnNode()
  await node.ask({ op: 'listen', port: 4001 })
  await two.probe.ask({ op: 'listen', port: 8000 })
})
test.after.always(() => lab.down())

const connect = (host: string, port: number, timeout = 0.3): object => ({
  op: 'connect',
  host,
  port,
  timeout
})

test.serial(
  'the node’s own ports are closed to vservers at each of its addresses, and its echo is open',
  async (t) => {
    const before = (await lab.counters()).drops
    t.is(await one.probe.ask(connect(lab.nodeAddress, 4001)), 'timeout')
    t.is(await one.probe.ask(connect('100.64.1.1', 4001)), 'timeout')
    const after = (await lab.counters()).drops
    t.true(after.node > before.node)
    t.true(after.private > before.private)
    const echo = { op: 'send', proto: 'icmp', src: one.address, dst: lab.nodeAddress, id: 9 }
    await one.probe.ask(echo)
    const seen = await one.probe.ask<Seen[]>({ op: 'take', match: { type: 0 }, least: 1, wait: 0.5 })
    t.is(seen.length, 1)
  }
)

test.serial('the node reaches its vservers', async (t) => {
  t.regex(await node.ask<string>(connect(two.address, 8000)), /^100\.64\.2\.1:\d+$/)
})

test.serial(
  'private addresses of vservers are out of reach, from each other and from the world',
  async (t) => {
    t.is(await one.probe.ask(connect(two.address, 8000)), 'timeout')
    await two.probe.ask({ op: 'take', wait: 0 })
    await lab.routeVserversFromWorld()
    const direct = {
      op: 'route',
      proto: 'tcp',
      src: lab.worldAddress,
      dst: two.address,
      sport: 6000,
      dport: 8000
    }
    for (const flags of [1, 2]) await lab.world.ask({ ...direct, flags })
    t.deepEqual(await two.probe.ask({ op: 'take', match: { sport: 6000 }, least: 1, wait: 0.3 }), [])
  }
)

test.serial(
  'the metadata address and private ranges that policy does not allow are out of reach',
  async (t) => {
    const before = await lab.counters()
    const targets = [
      '169.254.169.254',
      '10.1.2.3',
      '172.20.0.1',
      '192.168.1.1',
      '127.0.0.1',
      '240.0.0.1',
      // These two stop at the source check already.
      '224.0.0.1',
      '255.255.255.255'
    ]
    for (const dst of targets) {
      await one.probe.ask({ op: 'send', proto: 'udp', src: one.address, dst, sport: 9090, dport: 80 })
    }
    const after = await lab.counters()
    t.is(after.drops.denied - before.drops.denied, targets.length - 2)
    t.is((after.dropped['one']?.denied ?? 0) - (before.dropped['one']?.denied ?? 0), targets.length - 2)
    t.is(after.dropped['two']?.denied, before.dropped['two']?.denied)
    t.is(after.refused['one']?.multicast, 1)
    t.is(after.refused['one']?.broadcast, 1)
    // The world’s address is in a private range as well, one that policy allows.
    t.is(await one.probe.ask(connect(lab.worldAddress, 9)), 'ECONNREFUSED')
  }
)

test.serial('an ICMP error about another vserver’s connection is dropped', async (t) => {
  await lab.world.ask({ op: 'answer', port: 7000 })
  const ask = { op: 'ask', host: lab.worldAddress, port: 7000, sport: 9090 }
  t.is(await one.probe.ask(ask), `${lab.nodeAddress}:9090`)
  const forge = async (): Promise<Seen[]> => {
    await lab.world.ask({ op: 'take', wait: 0 })
    await two.probe.ask({ op: 'send', ...unreachable() })
    return lab.world.ask({ op: 'take', match: { proto: 'icmp', type: 3 }, least: 1, wait: 0.3 })
  }
  /** Port unreachable, about a datagram from the world to vserver one. */
  const unreachable = (): object => ({
    proto: 'icmp',
    src: two.address,
    dst: lab.worldAddress,
    type: 3,
    code: 3,
    body: datagramHeader(lab.worldAddress, one.address, 7000, 9090)
  })
  const before = (await lab.counters()).drops.forged
  t.deepEqual(await forge(), [])
  t.is((await lab.counters()).drops.forged - before, 1)
  await lab.nft('flush chain ip slicenet outward')
  t.is((await forge()).length, 1)
})

test.serial('an ICMP error about a connection of the node itself to somebody else is dropped', async (t) => {
  const held = { host: lab.worldAddress, port: 7000 }
  /** What the node's own socket hears when a vserver says that the world's port is unreachable. */
  const told = async (sport: number): Promise<string> => {
    t.is(await node.ask({ op: 'hold', ...held, sport }), `${lab.nodeAddress}:${sport}`)
    await two.probe.ask({
      op: 'send',
      proto: 'icmp',
      src: two.address,
      dst: lab.nodeAddress,
      type: 3,
      code: 3,
      body: datagramHeader(lab.nodeAddress, lab.worldAddress, sport, 7000)
    })
    return node.ask({ op: 'fault', sport })
  }
  const before = (await lab.counters()).drops.forged
  t.is(await told(6500), 'none')
  t.is((await lab.counters()).drops.forged - before, 1)
  // Of its own connection with the node it may tell.
  const refused = { op: 'hold', host: two.address, port: 1, sport: 6501 }
  await t.throwsAsync(node.ask(refused), { message: /ConnectionRefused/ })
  const chain = 'ip slicenet to_node_vserver'
  await lab.nft(`flush chain ${chain}; add rule ${chain} ct direction reply accept; add rule ${chain} drop`)
  t.is(await told(6502), 'ECONNREFUSED')
})

test.serial('one vserver’s connections are bounded and its neighbour’s go on', async (t) => {
  await lab.killNode()
  await lab.startNode()
  const begin = async (first: number): Promise<number> => {
    for (let sport = first; sport < first + 80; sport++) {
      await two.probe.ask({
        op: 'send',
        proto: 'udp',
        src: two.address,
        dst: lab.worldAddress,
        sport,
        dport: 99
      })
    }
    return (await lab.world.ask<Seen[]>({ op: 'take', match: { dport: 99 }, least: 80, wait: 0.5 })).length
  }
  const passed = await begin(3000)
  t.true(passed <= 51, `${passed} passed`)
  t.true((await lab.counters()).drops.flows >= 29)
  t.is(
    await one.probe.ask({ op: 'ask', host: lab.worldAddress, port: 7000, sport: 9090 }),
    `${lab.nodeAddress}:9090`
  )
  await lab.nft('flush chain inet slicenet outward')
  t.is(await begin(3100), 80)
  await lab.killNode()
  await lab.startNode()
})

/** Bytes that a class of the uplink has sent. */
async function sentByNode(): Promise<number> {
  const printed = await lab.onNode(['tc', '-s', 'class', 'show', 'dev', 'up0'])
  return Number(/class htb 51ce:2 .*\n Sent (\d+) bytes/.exec(printed)?.[1])
}

test.serial('packets that belong to nobody are counted for the node and charged to no vserver', async (t) => {
  const before = await lab.counters()
  const direct = { op: 'route', proto: 'udp', src: lab.worldAddress, dst: one.address, sport: 6002, dport: 9 }
  await lab.world.ask({ ...direct, count: 100 })
  const after = await lab.counters()
  t.is(after.drops.private - before.drops.private, 100)
  t.deepEqual(after.dropped, before.dropped)
})

test.serial(
  'what comes by a link that nothing is known of is not sent as the node’s own traffic',
  async (t) => {
    await lab.nft(
      `delete element ip slicenet class { ${two.address} }; delete element ip slicenet inside { ${two.address} }`
    )
    const send = async (): Promise<{ arrived: number; bytes: number }> => {
      const [bytes] = [await sentByNode(), await lab.world.ask({ op: 'take', wait: 0 })]
      const packet = {
        op: 'send',
        proto: 'udp',
        src: two.address,
        dst: lab.worldAddress,
        sport: 3000,
        dport: 98
      }
      await two.probe.ask({ ...packet, count: 50 })
      const seen = await lab.world.ask<Seen[]>({ op: 'take', match: { dport: 98 }, least: 50, wait: 0.5 })
      return { arrived: seen.length, bytes: (await sentByNode()) - bytes }
    }
    const before = (await lab.counters()).drops.nobody
    const checked = await send()
    t.is((await lab.counters()).drops.nobody - before, 50)
    await lab.nft('flush chain ip slicenet drop_nobody')
    const unchecked = await send()
    t.log({ checked, unchecked })
    t.is(checked.arrived, 0)
    t.is(unchecked.arrived, 50)
    t.true(unchecked.bytes - checked.bytes >= 50 * 29)
  }
)

test.serial('without the guards the same targets are reached', async (t) => {
  await lab.nft(
    'flush chain ip slicenet guard; flush chain ip slicenet to_node; flush chain ip slicenet inward; flush chain ip slicenet outward; flush chain ip slicenet leaving'
  )
  t.regex(await one.probe.ask<string>(connect(lab.nodeAddress, 4001)), /:\d+$/)
  t.regex(await one.probe.ask<string>(connect('100.64.1.1', 4001)), /:\d+$/)
  t.regex(await one.probe.ask<string>(connect(two.address, 8000)), /:\d+$/)
  const direct = {
    op: 'route',
    proto: 'tcp',
    src: lab.worldAddress,
    dst: two.address,
    sport: 6001,
    dport: 8000
  }
  await two.probe.ask({ op: 'take', wait: 0 })
  await lab.world.ask({ ...direct, flags: 2 })
  t.is(
    (await two.probe.ask<Seen[]>({ op: 'take', match: { sport: 6001, flags: 2 }, least: 1, wait: 0.5 }))
      .length,
    1
  )
  await lab.nft('flush chain ip slicenet outbound')
  await lab.onNode(['ip', 'route', 'add', '10.0.0.0/8', 'via', lab.nodeAddress.replace(/2$/, '1')])
  const before = await lab.onNode(['cat', '/proc/net/dev'])
  await one.probe.ask({
    op: 'send',
    proto: 'udp',
    src: one.address,
    dst: '10.1.2.3',
    sport: 9090,
    dport: 80,
    count: 50
  })
  t.true(sentBy(await lab.onNode(['cat', '/proc/net/dev']), 'up0') - sentBy(before, 'up0') >= 50)
})

const DATAGRAM_START = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]
const DATAGRAM_END = [0, 8, 0, 0]

/** An IPv4 and UDP header, hexadecimal, without checksums. */
function datagramHeader(from: string, to: string, sport: number, dport: number): string {
  const address = (text: string): number[] => text.split('.').map(Number)
  const port = (number: number): number[] => [number >> 8, number & 0xff]
  return Buffer.from([
    ...DATAGRAM_START,
    ...address(from),
    ...address(to),
    ...port(sport),
    ...port(dport),
    ...DATAGRAM_END
  ]).toString('hex')
}

/** Packets that a device has sent, from /proc/net/dev. */
function sentBy(table: string, device: string): number {
  const line = table.split('\n').find((each) => each.trim().startsWith(`${device}:`)) ?? ''
  return Number(line.split(':')[1]?.trim().split(/\s+/)[9])
}
