import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import { datagram6, framed6, ICMP6, icmp6, ipv6Packet, message6, segment6, type Ends } from './frames6.ts'
import { icmp, Lab, tcp, udp, type LineProgram, type Seen, type Vserver } from './lab.ts'

const FIN = 1
const NULL = 0
const SYN = 2
const XMAS = FIN | 0x28
/** A code of the type unreachable. */
const PORT_UNREACHABLE = 4

const lab = new Lab({ letter: 'x', hasSix: true, network: { flowsPerVserverMax: 60 } })
const NODE = lab.sixOf('node')
const WORLD = lab.sixOf('world')
const SHARED = `${NODE} (?:4\\d|5\\d|60)\\d{3}`
const [planOne, planTwo] = [planLink(1), planLink(2)]
interface Party {
  readonly vserver: Vserver
  readonly probe: LineProgram
}
let one: Party
let two: Party
let world: LineProgram
let node: LineProgram

test.before(async () => {
  await lab.up()
  const party = async (vserver: Vserver): Promise<Party> => ({
    vserver,
    probe: await lab.program(vserver.pid, 'probe6.py', 'eth0')
  })
  one = await party(await lab.vserver('one', [tcp(9090, 9092), udp(9090, 9093), icmp(23_456)]))
  two = await party(await lab.vserver('two', [tcp(7070), udp(7070)]))
  world = await lab.program('world', 'probe6.py', 'up0')
  node = await lab.program('node', 'probe6.py', 'up0')
  await world.ask({ op: 'listen', port: 8081 })
  await world.ask({ op: 'answer', port: 7000 })
})
test.after.always(() => lab.down())

/** Packets of a vserver as frames, from its own end of its link. */
const sends = (packets: readonly Buffer[], plan = planOne): object => ({
  op: 'send',
  frames: hex(packets.map((packet) => framed6(packet, plan)))
})
const segment = (ends: Ends, sport: number, flags: number): Buffer =>
  segment6(ends, { sport, dport: 8080, flags })
const datagram = (ends: Ends, sport: number): Buffer => datagram6(ends, { sport, dport: 99 })
const message = (ends: Ends, type: number, id: number, payload?: Buffer): Buffer =>
  message6(ends, type, (id << 16) | 1, payload)
const ends = (src: string, dst: string = WORLD): Ends => ({ src, dst })
const OUT = ends(planOne.address6)
const OUT_TWO = ends(planTwo.address6)
const IN = ends(WORLD, NODE)
const hex = (packets: readonly Buffer[]): string[] => packets.map((packet) => packet.toString('hex'))
const routed = async (packets: readonly Buffer[]): Promise<unknown> =>
  world.ask({ op: 'route', packets: hex(packets) })
const taken = async (probe: LineProgram, match: object, least = 1): Promise<Seen[]> =>
  probe.ask({ op: 'take', match, least, wait: 0.5 })
const emptied = async (...probes: LineProgram[]): Promise<unknown> =>
  Promise.all(probes.map((probe) => probe.ask({ op: 'take', wait: 0 })))

test.serial('connections to an owned port reach its owner, who sees the caller’s own address', async (t) => {
  await one.probe.ask({ op: 'listen', port: 9091 })
  await one.probe.ask({ op: 'answer', port: 9090 })
  t.is(await world.ask({ op: 'connect', host: NODE, sport: 5555, port: 9091 }), `${WORLD} 5555`)
  t.is(await world.ask({ op: 'ask', host: NODE, sport: 5555, port: 9090 }), `${WORLD} 5555`)
  t.is(await world.ask({ op: 'connect', host: NODE, port: 7070 }), 'ECONNREFUSED')
})

test.serial(
  'connections from an owned port keep it, and those from others leave from the shared range',
  async (t) => {
    const request = { op: 'connect', host: WORLD, port: 8081 }
    t.is(await one.probe.ask({ ...request, sport: 9090 }), `${NODE} 9090`)
    t.is(await one.probe.ask({ op: 'ask', host: WORLD, port: 7000, sport: 9093 }), `${NODE} 9093`)
    for (const sport of [9090, 9092, 4001, 33_333]) {
      t.regex(await two.probe.ask<string>({ ...request, sport }), new RegExp(`^${SHARED}$`), `${sport}`)
    }
  }
)

test.serial('much data gets through both ways, in segments as large as offloading makes them', async (t) => {
  const bytes = 8_000_000
  await world.ask({ op: 'sink', port: 8082 })
  await one.probe.ask({ op: 'sink', port: 9092 })
  t.is(await one.probe.ask({ op: 'pour', host: WORLD, port: 8082, bytes }), bytes)
  t.is(await world.ask({ op: 'pour', host: NODE, port: 9092, bytes }), bytes)
  t.is((await lab.counters()).refused['one']?.length, 0)
})

test.serial('hand-made segments keep an owned port whatever their flags, with right checksums', async (t) => {
  for (const flags of [SYN, FIN, NULL, XMAS]) {
    await emptied(world)
    await one.probe.ask(sends([segment(OUT, 9090, flags)]))
    const [seen] = await taken(world, { sport: 9090, flags })
    t.is(seen?.src, NODE, `flags ${flags}`)
    t.true(seen?.ok)
  }
})

test.serial('segments and echoes that no connection explains reach the owner', async (t) => {
  await emptied(one.probe, two.probe)
  const stray = (dport: number): Buffer => segment6(IN, { sport: 6000, dport, flags: FIN })
  await routed([stray(9092), stray(7070), message(IN, 129, 23_456), message(IN, 128, 23_456)])
  const seen = await taken(one.probe, { src: WORLD }, 3)
  t.deepEqual(
    seen.map(({ dst, dport, type, id, ok }) => ({ dst, dport, type, id, ok })),
    [
      { dst: planOne.address6, dport: 9092, type: undefined, id: undefined, ok: true },
      { dst: planOne.address6, dport: undefined, type: 129, id: 23_456, ok: true },
      { dst: planOne.address6, dport: undefined, type: 128, id: 23_456, ok: true }
    ]
  )
  t.deepEqual(
    (await taken(two.probe, { src: WORLD })).map(({ dport }) => dport),
    [7070]
  )
})

test.serial(
  'an ICMPv6 error reaches the owner of the port it is about, also about what was never tracked',
  async (t) => {
    await emptied(one.probe)
    await one.probe.ask({ op: 'ask', host: WORLD, port: 1, sport: 9093, timeout: 0.1 })
    const [answer] = await taken(one.probe, { proto: 'icmp' })
    t.is(answer?.type, 1)
    t.is(answer?.inner?.src, planOne.address6)
    t.is(answer?.inner?.sport, 9093)
    t.true(answer?.ok)
    const about = (sport: number): Buffer => segment(ends(NODE, '2001:db8:77::1'), sport, SYN)
    for (const type of [1, 2, 3, 4]) {
      await routed([9092, 7070].map((port) => message(IN, type, 0, about(port))))
      const seen = await taken(one.probe, { type }, 2)
      t.deepEqual(
        seen.map((each) => [each.inner?.sport, each.ok]),
        [[9092, true]],
        `type ${type}`
      )
    }
  }
)

test.serial('echo requests keep an owned identifier and those of others are changed', async (t) => {
  await emptied(world)
  await one.probe.ask(sends([message(OUT, 128, 23_456)]))
  t.is((await taken(world, { type: 128 }))[0]?.id, 23_456)
  await two.probe.ask(sends([message(OUT_TWO, 128, 23_456)], planTwo))
  const [other] = await taken(world, { type: 128 })
  t.true((other?.id ?? 0) >= 40_000 && (other?.id ?? 0) < 61_000)
  t.true(other?.ok)
})

test.serial('vservers and the node reach an owned port at the node’s own address', async (t) => {
  const request = { op: 'connect', host: NODE, port: 9091 }
  t.is(await two.probe.ask({ ...request, sport: 7070 }), `${NODE} 7070`)
  t.regex(await two.probe.ask<string>(request), new RegExp(`^${SHARED}$`))
  t.regex(await one.probe.ask<string>(request), new RegExp(`^${SHARED}$`))
  t.regex(await node.ask<string>(request), / \d+$/)
})

test.serial('a port on which a program of the node listens over IPv6 is taken', async (t) => {
  await node.ask({ op: 'listen', port: 6022 })
  await node.ask({ op: 'listen', port: 6024, host: NODE })
  await node.ask({ op: 'listen', port: 6023, host: '::1' })
  const pid = await lab.standIn()
  for (const port of [6022, 6024]) {
    await t.throwsAsync(lab.ask({ op: 'attach', link: lab.link('three', pid, [tcp(port)]) }), {
      code: 'PORT_IN_USE'
    })
  }
  await t.notThrowsAsync(lab.ask({ op: 'attach', link: lab.link('three', pid, [tcp(6023)]) }))
  await lab.ask({ op: 'detach', id: 'three' })
})

test.serial('a vserver’s ports change while it runs, and a detached link leaves nothing', async (t) => {
  const table = async (): Promise<string> => {
    const [text, more] = await Promise.all(
      ['ip6', 'inet'].map(async (family) => lab.onNode(['nft', '-s', 'list', 'table', family, 'slicenet']))
    )
    // Whom vservers talked to is remembered for a while.
    return `${text}${more}`.replace(/\tset destinations6? \{[^]*?\n\t\}\n/g, '')
  }
  const pid = await lab.standIn()
  const attached = await lab.ask<{ address: string }>({
    op: 'attach',
    link: lab.link('more', pid, [udp(9300)])
  })
  const { address6 } = planLink(Number(attached.address.split('.')[2]))
  t.true((await table()).includes(address6))
  const more = await lab.program(pid, 'probe6.py', 'eth0')
  const ask = { op: 'ask', host: WORLD, port: 7000, sport: 9300, timeout: 0.2 }
  t.is(await more.ask(ask), `${NODE} 9300`)
  await more.ask({ op: 'answer', port: 9301 })
  const early = { op: 'ask', host: NODE, port: 9301, sport: 5600 }
  await world.ask({ ...early, timeout: 0.1 })
  await lab.ask({ op: 'attach', link: lab.link('more', pid, [udp(9300, 9301)]) })
  t.is(await world.ask(early), `${WORLD} 5600`)
  t.is(await more.ask(ask), `${NODE} 9300`)
  await lab.ask({ op: 'attach', link: lab.link('more', pid) })
  const drops = (await lab.counters()).drops.port
  await lab.ask({
    op: 'attach',
    link: lab.link('two', two.vserver.pid, [tcp(7070), udp(7070), udp(9300)])
  })
  // A connection does not outlive the lease of its port.
  t.is(await more.ask(ask), 'timeout')
  t.is((await lab.counters()).drops.port - drops, 1)
  await lab.ask({ op: 'attach', link: lab.link('two', two.vserver.pid, [tcp(7070), udp(7070)]) })
  await lab.ask({ op: 'detach', id: 'more' })
  t.true((await table()).includes(planTwo.address6))
  t.false((await table()).includes(address6))
})

test.serial(
  'the node’s ports, inside addresses and ranges not on the internet are out of reach',
  async (t) => {
    const before = await lab.counters()
    await node.ask({ op: 'listen', port: 4001 })
    await two.probe.ask({ op: 'listen', port: 8000 })
    const connect = (host: string, port: number): object => ({ op: 'connect', host, port, timeout: 0.3 })
    t.is(await one.probe.ask(connect(NODE, 4001)), 'timeout')
    t.is(await one.probe.ask(connect(planOne.gateway6, 4001)), 'timeout')
    t.is(await one.probe.ask(connect(planTwo.address6, 8000)), 'timeout')
    // What is for the loopback address gets not as far.
    const targets = [
      '::ffff:10.1.2.3',
      '64:ff9b::a01:203',
      'fd00::1',
      'fe80::1',
      '2001::1',
      '2002:a01:203::1',
      '3fff::1'
    ]
    await one.probe.ask(sends(targets.map((dst) => datagram(ends(planOne.address6, dst), 9090))))
    const after = await lab.counters()
    t.true(after.drops.node > before.drops.node)
    t.true(after.drops.private >= before.drops.private + 2)
    t.is((after.dropped['one']?.denied ?? 0) - (before.dropped['one']?.denied ?? 0), targets.length)
    t.is(after.dropped['two']?.denied, before.dropped['two']?.denied)
    // The world’s address is one for examples, which policy allows.
    t.is(await one.probe.ask(connect(WORLD, 9)), 'ECONNREFUSED')
    await emptied(one.probe)
    await one.probe.ask(sends([message(ends(planOne.address6, NODE), 128, 9)]))
    t.is((await taken(one.probe, { type: 129 })).length, 1)
  }
)

test.serial('the node’s own network is out of reach over IPv6 unless policy allows it', async (t) => {
  const own = '2a0f:5100:1:2::'
  const aim = async (host: string): Promise<number> => {
    const before = (await lab.counters()).dropped['one']?.denied ?? 0
    await one.probe.ask(sends([datagram(ends(planOne.address6, host), 9090)]))
    return ((await lab.counters()).dropped['one']?.denied ?? 0) - before
  }
  const denied = async (): Promise<string> => lab.onNode(['nft', 'list', 'set', 'ip6', 'slicenet', 'denied'])
  t.is(await aim(`${own}9`), 0)
  await lab.onNode(['ip', 'addr', 'add', `${own}2/64`, 'dev', 'up0', 'nodad'])
  // The daemon looks every second.
  for (let round = 0; round < 100 && !(await denied()).includes(own); round++) await delay(100)
  t.is(await aim(`${own}9`), 1)
  t.is(await aim('2a0f:5100:1:3::9'), 0)
  t.is(await one.probe.ask({ op: 'ask', host: WORLD, port: 7000, sport: 9093 }), `${NODE} 9093`)
  await lab.killNode()
  await lab.startNode({ allowedPrivateRanges: ['198.18.0.0/15', '2001:db8::/32', `${own}/64`] })
  t.is(await aim(`${own}9`), 0)
  await lab.onNode(['ip', 'addr', 'del', `${own}2/64`, 'dev', 'up0'])
  await lab.killNode()
  await lab.startNode()
  t.is(await aim(`${own}9`), 0)
})

test.serial('what the world sends to an inside address is dropped and charged to nobody', async (t) => {
  await emptied(two.probe)
  await lab.inHost('router', ['ip', 'route', 'add', 'fd51::/16', 'via', NODE])
  const before = await lab.counters()
  const direct = ends(WORLD, planTwo.address6)
  await routed([SYN, FIN].map((flags) => segment(direct, 6000, flags)))
  t.deepEqual(await taken(two.probe, { sport: 6000 }), [])
  const after = await lab.counters()
  t.is(after.drops.private - before.drops.private, 2)
  t.deepEqual(after.dropped, before.dropped)
})

test.serial(
  'one vserver’s connections of both families are bounded together, until they are not',
  async (t) => {
    const begin = async (first: number): Promise<number> => {
      await emptied(world)
      const ports = Array.from({ length: 90 }, (_, index) => first + index)
      await two.probe.ask(
        sends(
          ports.map((sport) => datagram(OUT_TWO, sport)),
          planTwo
        )
      )
      return (await taken(world, { dport: 99 }, 90)).length
    }
    const passed = await begin(3000)
    t.true(passed > 0 && passed <= 61, `${passed} passed`)
    const drops = async (): Promise<number> => (await lab.counters()).drops.flows
    t.true((await drops()) >= 29)
    t.is(await one.probe.ask({ op: 'ask', host: WORLD, port: 7000, sport: 9093 }), `${NODE} 9093`)
    const cutOf4 = async ({ probe, address }: Vserver): Promise<number> => {
      const before = await drops()
      const packet = { op: 'send', proto: 'udp', src: address, dst: lab.worldAddress, dport: 99 }
      for (let sport = 3000; sport < 3010; sport++) await probe.ask({ ...packet, sport })
      return (await drops()) - before
    }
    t.is(await cutOf4(two.vserver), 10)
    t.is(await cutOf4(one.vserver), 0)
    await lab.nft('flush chain inet slicenet outward')
    t.is(await begin(3100), 90)
    await lab.killNode()
    await lab.startNode()
  }
)

test.serial(
  'an ICMPv6 error about a connection of the node itself to somebody else is dropped',
  async (t) => {
    const told = async (sport: number): Promise<string> => {
      t.is(await node.ask({ op: 'hold', host: WORLD, port: 7000, sport }), `${NODE} ${sport}`)
      const about = datagram6(ends(NODE), { sport, dport: 7000 })
      const body = icmp6(ends(planOne.address6, NODE), 1, 0, about, PORT_UNREACHABLE)
      await one.probe.ask(sends([ipv6Packet({ ...ends(planOne.address6, NODE), next: ICMP6, body })]))
      return node.ask({ op: 'fault', sport })
    }
    const before = (await lab.counters()).drops.forged
    t.is(await told(6500), 'none')
    t.is((await lab.counters()).drops.forged - before, 1)
    const refused = { op: 'hold', host: planOne.address6, port: 1, sport: 6501 }
    await t.throwsAsync(node.ask(refused), { message: /ConnectionRefused/ })
    const chain = 'ip6 slicenet to_node_vserver'
    await lab.nft(`flush chain ${chain}; add rule ${chain} ct direction reply accept; add rule ${chain} drop`)
    t.is(await told(6502), 'ECONNREFUSED')
  }
)

test.serial('nothing leaves from a port of another slice, until the mechanism is taken out', async (t) => {
  const strays = [SYN, FIN, NULL, 0x10].map((flags) => segment(OUT_TWO, 9090, flags))
  const others = [...strays, datagram(OUT_TWO, 9090), message(OUT_TWO, 129, 23_456)]
  await lab.killNode()
  await lab.startNode()
  const before = (await lab.counters()).drops
  await emptied(world)
  await two.probe.ask(sends(others, planTwo))
  const seen = await taken(world, { src: NODE }, others.length)
  t.true(seen.length > 0)
  t.true(seen.every(({ sport = 0 }) => sport >= 40_000 && sport < 61_000))
  t.is((await lab.counters()).drops.untracked - before.untracked, 3)
  await lab.nft(
    'flush chain ip6 slicenet outbound; flush chain ip6 slicenet leaving; flush chain ip6 slicenet outward'
  )
  await two.probe.ask(sends(strays.slice(1, 3), planTwo))
  t.is((await taken(world, { sport: 9090 }, 2)).length, 2)
})

test.serial('without the guards the same targets are reached', async (t) => {
  await lab.nft(
    ['guard', 'to_node', 'inward', 'outward', 'leaving']
      .map((chain) => `flush chain ip6 slicenet ${chain}`)
      .join('; ')
  )
  const connect = (host: string, port: number): object => ({ op: 'connect', host, port, timeout: 0.5 })
  t.regex(await one.probe.ask<string>(connect(NODE, 4001)), / \d+$/)
  t.regex(await one.probe.ask<string>(connect(planOne.gateway6, 4001)), / \d+$/)
  t.regex(await one.probe.ask<string>(connect(planTwo.address6, 8000)), / \d+$/)
  await emptied(two.probe)
  await routed([segment(ends(WORLD, planTwo.address6), 6001, SYN)])
  t.is((await taken(two.probe, { sport: 6001, flags: SYN })).length, 1)
})
