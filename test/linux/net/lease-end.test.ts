/** That nothing of a vserver leaves after its end, nor what the world still sends it. */
import test from 'ava'
import { datagram6 } from './frames6.ts'
import { Lab, tcp, udp, type LineProgram, type Seen, type Vserver } from './lab.ts'

const lab = new Lab({ letter: 'z', hasSix: true })
const WORLD_6 = lab.sixOf('world')
let world6: LineProgram

test.before(async () => {
  await lab.up()
  world6 = await lab.program('world', 'probe6.py', 'up0')
  await lab.world.ask({ op: 'answer', port: 7001 })
  await world6.ask({ op: 'answer', port: 7002 })
  // Counts what leaves by the uplink for an address that only a vserver has.
  for (const [family, pool] of [
    ['ip', '100.64.0.0/10'],
    ['ip6', 'fd00::/8']
  ] as const) {
    await lab.nft(`table ${family} leaks {
      counter strayed {}
      chain out {
        type filter hook postrouting priority 400; policy accept;
        oifname "up0" ${family} daddr ${pool} counter name strayed
      }
    }`)
  }
})
test.after.always(() => lab.down())

async function strayed(family: 'ip' | 'ip6' = 'ip'): Promise<number> {
  const listed = await lab.onNode(['nft', 'list', 'counter', family, 'leaks', 'strayed'])
  return Number(/packets (\d+)/.exec(listed)?.[1])
}

/** A vserver that sends on its own, as long as it is there, with a connection from the world and one to it. */
async function busy(id: string, port: number): Promise<Vserver> {
  const vserver = await lab.vserver(id, [tcp(port), udp(port)])
  await vserver.probe.ask({ op: 'answer', port })
  await lab.world.ask({ op: 'ask', host: lab.nodeAddress, port, sport: 6200 })
  await vserver.probe.ask({ op: 'ask', host: lab.worldAddress, port: 7001 })
  return vserver
}

const flood = { op: 'flood', host: '', port: 7100, seconds: 20, most: 100_000 }

/** What is in a reset: the node's own kernel resets what nobody has any more. */
const RST = 4

async function seenBy(wait: number): Promise<Seen[]> {
  const seen = await lab.world.ask<Seen[]>({ op: 'take', least: 1, wait })
  const isMeant = ({ src, proto, flags = 0 }: Seen): boolean =>
    src === lab.nodeAddress && (proto === 'udp' || (proto === 'tcp' && (flags & RST) === 0))
  return seen.filter(isMeant)
}

/** What the world sends to a connection that there was, and to its port anew. */
async function knock(port: number): Promise<void> {
  for (const sport of [6200, 6201, 6202]) {
    const packet = { op: 'route', src: lab.worldAddress, dst: lab.nodeAddress, sport, dport: port, count: 5 }
    await lab.world.ask({ ...packet, proto: 'udp' })
    for (const flags of [1, 2, 16]) await lab.world.ask({ ...packet, proto: 'tcp', flags })
  }
}

test.serial('a vserver that sends without a pause is silent once it is detached', async (t) => {
  const one = await busy('one', 9090)
  await lab.world.ask({ op: 'take', wait: 0 })
  const sending = one.probe.ask({ ...flood, host: lab.worldAddress }).catch(() => {})
  t.true((await seenBy(5)).length > 0, 'the sniffer sees it before')
  await lab.ask({ op: 'detach', id: 'one' })
  await lab.world.ask({ op: 'take', wait: 0 })
  await knock(9090)
  t.deepEqual(await seenBy(1), [])
  await lab.endStandIn(one.pid)
  await sending
  t.is(await strayed(), 0)
})

test.serial(
  'what the world sends to a vserver whose end nobody saw goes nowhere, not even past the node',
  async (t) => {
    const two = await busy('two', 9191)
    await lab.killNode()
    await lab.endStandIn(two.pid)
    await knock(9191)
    t.is(await strayed(), 0)
    // The same without the rule: connections that are tracked, and the owner table, still lead to the vserver's address.
    await lab.onNode(['nft', 'flush', 'chain', 'ip', 'slicenet', 'departed'])
    await knock(9191)
    t.true((await strayed()) > 0)
  }
)

test.serial('nor do answers to what it had begun itself, over IPv4 and IPv6', async (t) => {
  await lab.startNode()
  const two = await lab.vserver('two', [udp(9191)])
  const two6 = await lab.program(two.pid, 'probe6.py', 'eth0')
  const ends = { src: WORLD_6, dst: lab.sixOf('node') }
  t.is(
    await two.probe.ask({ op: 'ask', host: lab.worldAddress, port: 7001, sport: 9191 }),
    `${lab.nodeAddress}:9191`
  )
  t.is(await two6.ask({ op: 'ask', host: WORLD_6, port: 7002, sport: 9191 }), `${ends.dst} 9191`)
  await lab.killNode()
  await two6.end()
  await lab.endStandIn(two.pid)
  const answer = async (): Promise<readonly number[]> => {
    const before = await Promise.all([strayed('ip'), strayed('ip6')])
    await lab.world.ask({
      op: 'route',
      proto: 'udp',
      src: lab.worldAddress,
      dst: lab.nodeAddress,
      sport: 7001,
      dport: 9191,
      count: 5
    })
    const packet = datagram6(ends, { sport: 7002, dport: 9191 }).toString('hex')
    await world6.ask({ op: 'route', packets: Array.from({ length: 5 }, () => packet) })
    const after = await Promise.all([strayed('ip'), strayed('ip6')])
    return after.map((count, at) => count - (before[at] ?? 0))
  }
  t.deepEqual(await answer(), [0, 0])
  for (const family of ['ip', 'ip6']) {
    await lab.onNode(['nft', 'flush', 'chain', family, 'slicenet', 'departed'])
  }
  t.deepEqual(await answer(), [5, 5])
})

test.serial('a daemon that begins anew ends what is over, and the world hears no more of it', async (t) => {
  await lab.startNode()
  const three = await busy('three', 9292)
  await lab.killNode()
  await lab.world.ask({ op: 'take', wait: 0 })
  const sending = three.probe.ask({ ...flood, host: lab.worldAddress }).catch(() => {})
  t.true((await seenBy(5)).length > 0, 'it sends on without a daemon')
  await lab.startNode()
  await lab.ask({ op: 'detach', id: 'three' })
  await lab.world.ask({ op: 'take', wait: 0 })
  t.deepEqual(await seenBy(1), [])
  const tracked = await lab.onNode(['conntrack', '-L', '-f', 'ipv4'])
  t.false(tracked.includes(`=${three.address} `))
  await lab.endStandIn(three.pid)
  await sending
})

test.serial(
  'the kernel ends a vserver’s traffic by its own clock while no daemon runs, and nobody else’s',
  async (t) => {
    await lab.ask({ op: 'start' })
    const four = await lab.vserver('four', [udp(9494)])
    const five = await lab.vserver('five', [udp(9595)])
    for (const [vserver, port] of [
      [four, 9494],
      [five, 9595]
    ] as const) {
      await vserver.probe.ask({ op: 'answer', port })
    }
    const ask = async (port: number): Promise<string> =>
      lab.world.ask({ op: 'ask', host: lab.nodeAddress, port, timeout: 1 })
    const out = async ({ probe }: Vserver): Promise<string> =>
      probe.ask({ op: 'ask', host: lab.worldAddress, port: 7001, timeout: 1 })
    const end = Date.now() + 5000
    await lab.ask({
      op: 'setEnds',
      ends: [
        [four.address, end],
        [five.address, end + 3_600_000]
      ]
    })
    await lab.killNode()
    if (Date.now() < end - 2000) {
      t.not(await ask(9494), 'timeout')
      t.not(await out(four), 'timeout')
    }
    await until(end + 1100)
    t.is(await ask(9494), 'timeout')
    t.is(await out(four), 'timeout')
    t.not(await ask(9595), 'timeout')
    t.not(await out(five), 'timeout')
  }
)

test.serial(
  'a lease that is renewed goes on, what is new has no end of another, and what is gone leaves none',
  async (t) => {
    await lab.startNode()
    const six = await lab.vserver('six', [udp(9696)])
    const out = async (): Promise<string> =>
      six.probe.ask({ op: 'ask', host: lab.worldAddress, port: 7001, timeout: 1 })
    await lab.ask({ op: 'setEnds', ends: [[six.address, Date.now() - 1000]] })
    t.is(await out(), 'timeout', 'it is over')
    await lab.ask({ op: 'setEnds', ends: [[six.address, Date.now() + 3_600_000]] })
    t.not(await out(), 'timeout', 'and goes on')
    await lab.ask({ op: 'setEnds', ends: [[six.address, Date.now() - 1000]] })
    await lab.ask({ op: 'setEnds', ends: [] })
    t.not(await out(), 'timeout')
    for (const [family, address] of [
      ['ip', '100.64.'],
      ['ip6', 'fd51:']
    ] as const) {
      const table = await lab.onNode(['nft', 'list', 'table', family, 'slicenet_ends'])
      t.false(table.includes(address))
      t.false(table.includes('end_'))
    }
  }
)

async function until(time: number): Promise<void> {
  while (Date.now() < time) await new Promise((resolve) => setTimeout(resolve, 50))
}
