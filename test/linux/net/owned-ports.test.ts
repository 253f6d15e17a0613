import test from 'ava'
import { icmp, Lab, tcp, udp, type Seen, type Vserver } from './lab.ts'

const FIN = 1
const NULL = 0
const SYN = 2

const lab = new Lab({ letter: 'o' })
let one: Vserver
let two: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [tcp(9090, 9092), udp(9090, 9093), icmp(23_456)])
  two = await lab.vserver('two', [tcp(7070), udp(7070)])
})
test.after.always(() => lab.down())

/** A segment made by hand, as a raw socket makes it. */
const segment = (from: Vserver, sport: number, flags: number): object => ({
  op: 'send',
  proto: 'tcp',
  src: from.address,
  dst: lab.worldAddress,
  sport,
  dport: 8080,
  flags
})
const atWorld = async (match: object, least = 1): Promise<Seen[]> =>
  lab.world.ask({ op: 'take', match, least, wait: 0.5 })

test.serial('connections to an owned port reach its owner, who sees the caller’s own address', async (t) => {
  await one.probe.ask({ op: 'listen', port: 9091 })
  await one.probe.ask({ op: 'answer', port: 9090 })
  const request = { host: lab.nodeAddress, sport: 5555 }
  t.is(await lab.world.ask({ op: 'connect', ...request, port: 9091 }), `${lab.worldAddress}:5555`)
  t.is(await lab.world.ask({ op: 'ask', ...request, port: 9090 }), `${lab.worldAddress}:5555`)
})

test.serial(
  'connections from an owned port keep it, and those from others leave from the shared range',
  async (t) => {
    await lab.world.ask({ op: 'listen', port: 8081 })
    const request = { op: 'connect', host: lab.worldAddress, port: 8081 }
    t.is(await one.probe.ask({ ...request, sport: 9090 }), `${lab.nodeAddress}:9090`)
    for (const sport of [9090, 9092, 4001, 33_333]) {
      const [address, port] = (await two.probe.ask<string>({ ...request, sport })).split(':')
      t.is(address, lab.nodeAddress)
      t.true(Number(port) >= 40_000 && Number(port) < 61_000, `${sport} became ${port}`)
    }
  }
)

test.serial('hand-made segments keep an owned port whatever their flags, with right checksums', async (t) => {
  await lab.world.ask({ op: 'take', wait: 0 })
  for (const flags of [SYN, FIN, NULL, FIN | 0x28]) {
    await one.probe.ask(segment(one, 9090, flags))
    const [seen] = await atWorld({ sport: 9090, flags })
    t.is(seen?.src, lab.nodeAddress, `flags ${flags}`)
    t.true(seen?.ok)
  }
})

test.serial('segments that no connection explains reach the owner of their port', async (t) => {
  await one.probe.ask({ op: 'take', wait: 0 })
  const stray = {
    op: 'route',
    proto: 'tcp',
    src: lab.worldAddress,
    dst: lab.nodeAddress,
    sport: 6000,
    flags: FIN
  }
  await lab.world.ask({ ...stray, dport: 9092 })
  await lab.world.ask({ ...stray, dport: 7070 })
  const seen = await one.probe.ask<Seen[]>({ op: 'take', match: { sport: 6000 }, least: 1, wait: 0.5 })
  t.is(seen.length, 1)
  t.is(seen[0]?.dport, 9092)
  t.is(seen[0]?.dst, one.address)
  t.true(seen[0]?.ok)
})

test.serial('an ICMP error reaches the owner with the packet inside translated', async (t) => {
  await one.probe.ask({ op: 'take', wait: 0 })
  t.is(
    await one.probe
      .ask({ op: 'ask', host: lab.worldAddress, port: 1, sport: 9093, timeout: 0.1 })
      .catch(() => ''),
    'timeout'
  )
  const seen = await one.probe.ask<Seen[]>({ op: 'take', match: { proto: 'icmp' }, least: 1, wait: 0.5 })
  t.is(seen[0]?.type, 3)
  t.is(seen[0]?.inner?.src, one.address)
  t.is(seen[0]?.inner?.sport, 9093)
  t.true(seen[0]?.ok)
})

test.serial(
  'an ICMP error about a segment that was never tracked reaches the owner of its port',
  async (t) => {
    await one.probe.ask({ op: 'take', wait: 0 })
    const header = '450000280000000040060000'
    const addresses = [lab.nodeAddress, '198.19.0.9'].map((each) =>
      Buffer.from(each.split('.').map(Number)).toString('hex')
    )
    const error = { op: 'route', proto: 'icmp', src: lab.worldAddress, dst: lab.nodeAddress, type: 11 }
    for (const port of ['2384', '1b9e']) {
      await lab.world.ask({ ...error, body: `${header}${addresses.join('')}${port}005000000001` })
    }
    const seen = await one.probe.ask<Seen[]>({ op: 'take', match: { type: 11 }, least: 2, wait: 0.2 })
    t.deepEqual(
      seen.map((each) => each.inner?.sport),
      [0x2384]
    )
  }
)

test.serial('echo requests keep an owned identifier and those of others are changed', async (t) => {
  const echo = (from: Vserver): object => ({
    op: 'send',
    proto: 'icmp',
    src: from.address,
    dst: lab.worldAddress,
    id: 23_456
  })
  await one.probe.ask(echo(one))
  const [own] = await atWorld({ proto: 'icmp', type: 8 })
  t.is(own?.id, 23_456)
  await two.probe.ask(echo(two))
  const [other] = await atWorld({ proto: 'icmp', type: 8 })
  t.true((other?.id ?? 0) >= 40_000 && (other?.id ?? 0) < 61_000)
  t.true(other?.ok)
  const asked = { op: 'route', proto: 'icmp', src: lab.worldAddress, dst: lab.nodeAddress }
  await one.probe.ask({ op: 'take', wait: 0 })
  await lab.world.ask({ ...asked, id: 23_456 })
  const reached = await one.probe.ask<Seen[]>({ op: 'take', match: { type: 8 }, least: 1, wait: 0.5 })
  t.is(reached[0]?.id, 23_456)
})

test.serial(
  'a vserver reaches another’s owned port at the node’s own address, seen as the node',
  async (t) => {
    const answer = await two.probe.ask<string>({
      op: 'connect',
      host: lab.nodeAddress,
      port: 9091,
      sport: 7070
    })
    t.is(answer, `${lab.nodeAddress}:7070`)
    const shared = await two.probe.ask<string>({ op: 'connect', host: lab.nodeAddress, port: 9091 })
    t.regex(shared, new RegExp(`^${lab.nodeAddress}:(4\\d|5\\d|60)\\d{3}$`))
    const itself = await one.probe.ask<string>({ op: 'connect', host: lab.nodeAddress, port: 9091 })
    t.regex(itself, new RegExp(`^${lab.nodeAddress}:(4\\d|5\\d|60)\\d{3}$`))
  }
)

test.serial('programs of the node reach an owned port at the node’s address', async (t) => {
  const node = await lab.probeOnNode()
  t.regex(await node.ask<string>({ op: 'connect', host: lab.nodeAddress, port: 9091 }), /:\d+$/)
})

test.serial(
  'a port belongs to one: another’s, the node’s, a listener’s and a shared one are refused',
  async (t) => {
    const node = await lab.probeOnNode()
    await node.ask({ op: 'listen', port: 6022 })
    await node.ask({ op: 'listen', port: 6023, host: '127.0.0.1' })
    const pid = await lab.standIn()
    for (const ports of [
      [tcp(9000, 9090)],
      [udp(9090)],
      [icmp(23_000, 24_000)],
      [tcp(4001)],
      [tcp(6022)],
      [udp(50_000)]
    ]) {
      await t.throwsAsync(lab.ask({ op: 'attach', link: lab.link('three', pid, ports) }), {
        code: 'PORT_IN_USE'
      })
    }
    await t.notThrowsAsync(lab.ask({ op: 'attach', link: lab.link('three', pid, [tcp(6023), udp(4001)]) }))
    await lab.ask({ op: 'detach', id: 'three' })
  }
)

test.serial('a vserver’s ports change while it runs', async (t) => {
  const { pid } = two
  // A peer that tries before the port is owned goes on with the same connection afterwards.
  const early = { op: 'ask', host: lab.nodeAddress, port: 7072, sport: 5600 }
  await lab.world.ask({ ...early, timeout: 0.1 })
  await two.probe.ask({ op: 'answer', port: 7072 })
  await two.probe.ask({ op: 'answer', port: 7070 })
  const later = { op: 'ask', host: lab.nodeAddress, port: 7070, sport: 5601 }
  t.is(await lab.world.ask(later), `${lab.worldAddress}:5601`)
  await lab.ask({ op: 'attach', link: lab.link('two', pid, [tcp(7070), udp(7072, 7075), icmp(500, 600)]) })
  t.is(await lab.world.ask(early), `${lab.worldAddress}:5600`)
  t.not(await lab.world.ask(later), `${lab.worldAddress}:5601`)
  await lab.ask({ op: 'attach', link: lab.link('two', pid, [tcp(7070), udp(7070), icmp(550)]) })
  t.is(await lab.world.ask(later), `${lab.worldAddress}:5601`)
})

test.serial(
  'a connection does not outlive the lease of its port, until the last look is taken out',
  async (t) => {
    await lab.world.ask({ op: 'answer', port: 7000 })
    const more = await lab.vserver('more', [udp(9300)])
    const ask = { op: 'ask', host: lab.worldAddress, port: 7000, sport: 9300, timeout: 0.2 }
    t.is(await more.probe.ask(ask), `${lab.nodeAddress}:9300`)
    await lab.ask({ op: 'attach', link: lab.link('more', more.pid) })
    await lab.ask({ op: 'attach', link: lab.link('two', two.pid, [tcp(7070), udp(9300)]) })
    const before = (await lab.counters()).drops.port
    t.is(await more.probe.ask(ask), 'timeout')
    t.is((await lab.counters()).drops.port - before, 1)
    await lab.nft('flush chain ip slicenet leaving')
    t.is(await more.probe.ask(ask), `${lab.nodeAddress}:9300`)
    await lab.ask({ op: 'detach', id: 'more' })
  }
)

test.serial('nothing leaves from a port of another slice, until the mechanism is taken out', async (t) => {
  const before = (await lab.counters()).drops.untracked
  for (const flags of [SYN, FIN, NULL, 0x10]) await two.probe.ask(segment(two, 9090, flags))
  await two.probe.ask({ ...segment(two, 9090, 0), proto: 'udp' })
  t.deepEqual(await atWorld({ sport: 9090 }, 1), [])
  t.is((await lab.counters()).drops.untracked - before, 2)

  await lab.nft(
    'flush chain ip slicenet outbound; flush chain ip slicenet leaving; flush chain ip slicenet outward'
  )
  for (const flags of [FIN, NULL]) await two.probe.ask(segment(two, 9090, flags))
  t.is((await atWorld({ sport: 9090 }, 2)).length, 2)
})
