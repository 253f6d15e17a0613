/** What a vserver is reached by at the node's own address from beside it: another slice, itself, and the node. */
import test from 'ava'
import { icmp, Lab, tcp, udp, type LineProgram, type Seen, type Vserver } from './lab.ts'

/** Whatever state a connection is in, or none. */
const SEGMENTS = { fin: 1, null: 0, xmas: 0x29, ack: 0x10, synack: 0x12, rst: 4, all: 0x3f } as const
const lab = new Lab({ letter: 'h' })
let one: Vserver
let two: Vserver
let node: LineProgram

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', [tcp(9090, 9092), udp(9090), icmp(23_456)])
  two = await lab.vserver('two', [tcp(7070), udp(7070)])
  node = await lab.probeOnNode()
})
test.after.always(() => lab.down())

const segment = (flags: number, more: object): object => ({
  op: 'route',
  proto: 'tcp',
  dst: lab.nodeAddress,
  dport: 9092,
  flags,
  ...more
})
const arrived = async (match: object, least = 1): Promise<Seen[]> =>
  one.probe.ask({ op: 'take', match, least, wait: 0.3 })

test.serial('another slice reaches an owned port with any segment from a port of its own', async (t) => {
  for (const [name, flags] of Object.entries(SEGMENTS)) {
    await arrived({}, 0)
    await two.probe.ask(segment(flags, { src: two.address, sport: 7070 }))
    const [seen] = await arrived({ flags, dport: 9092 })
    t.deepEqual(
      [seen?.src, seen?.sport, seen?.dst, seen?.ok],
      [lab.nodeAddress, 7070, one.address, true],
      name
    )
  }
})

test.serial('from a port that it does not own, what no connection explains goes nowhere', async (t) => {
  const before = (await lab.counters()).drops.untracked
  for (const flags of [SEGMENTS.fin, SEGMENTS.null, SEGMENTS.xmas]) {
    await two.probe.ask(segment(flags, { src: two.address, sport: 7071 }))
  }
  t.deepEqual(await arrived({ dport: 9092 }), [])
  t.is((await lab.counters()).drops.untracked - before, 3)
})

test.serial('another slice reaches datagrams and echoes as well', async (t) => {
  await one.probe.ask({ op: 'answer', port: 9090 })
  const ask = { op: 'ask', host: lab.nodeAddress, port: 9090 }
  t.is(await two.probe.ask({ ...ask, sport: 7070 }), `${lab.nodeAddress}:7070`)
  t.regex(await two.probe.ask<string>(ask), new RegExp(`^${lab.nodeAddress}:(4\\d|5\\d|60)\\d{3}$`))
  t.regex(await node.ask<string>(ask), new RegExp(`^${lab.nodeAddress}:`))
  await arrived({}, 0)
  const echo = { op: 'route', proto: 'icmp', src: two.address, dst: lab.nodeAddress, id: 23_456 }
  await two.probe.ask(echo)
  const [seen] = await arrived({ type: 8 })
  // The identifier is the sender’s port as well, and it owns none.
  t.true((seen?.id ?? 0) >= 40_000 && seen?.src === lab.nodeAddress)
  await node.ask({ ...echo, src: lab.nodeAddress })
  t.is((await arrived({ type: 8 }))[0]?.id, 23_456)
})

test.serial(
  'the node reaches an owned port with any segment, until the mechanism is taken out',
  async (t) => {
    const send = async (flags: number): Promise<void> => {
      await arrived({}, 0)
      await node.ask(segment(flags, { src: lab.nodeAddress, sport: 6000 }))
    }
    for (const [name, flags] of Object.entries(SEGMENTS)) {
      await send(flags)
      const [seen] = await arrived({ flags, sport: 6000 })
      t.deepEqual([seen?.dst, seen?.dport, seen?.ok], [one.address, 9092, true], name)
    }
    await lab.nft('flush chain ip slicenet from_node_to_owner')
    await send(SEGMENTS.fin)
    t.deepEqual(await arrived({ sport: 6000 }), [])
  }
)

test.serial('without the translation of what is not tracked nothing of it arrives', async (t) => {
  await lab.nft('flush chain ip slicenet to_owner')
  await arrived({}, 0)
  await two.probe.ask(segment(SEGMENTS.fin, { src: two.address, sport: 7070 }))
  t.deepEqual(await arrived({ dport: 9092 }), [])
})
