/** Whether what `slicenet raw check` tells of a packet is what the real rules do with it. */
import test from 'ava'
import { packetVerdict, type PacketVerdict } from '../../../src/enforce/network/packet-verdict.ts'
import { gre, icmp, Lab, tcp, udp, type Seen, type Vserver } from './lab.ts'

const ports = [tcp(9090, 9092), udp(9090), icmp(9090), gre(7)]
const lab = new Lab({ letter: 'v' })
let one: Vserver

test.before(async () => {
  await lab.up()
  one = await lab.vserver('one', ports)
})
test.after.always(() => lab.down())

type Packet = Readonly<Record<string, unknown>>

/** Its bytes, as the probe makes them. */
async function bytesOf(packet: Packet): Promise<Buffer> {
  return Buffer.from(await one.probe.ask<string>({ ...packet, op: 'bytes' }), 'hex')
}

/** What the rules do: how it comes to the world, and the counter that grew if it does not. */
async function actual(packet: Packet): Promise<Pick<PacketVerdict, 'outcome' | 'reason'>> {
  await lab.world.ask({ op: 'take', wait: 0 })
  const before = await counts()
  await one.probe.ask({ ...packet, op: 'send' })
  const seen = await lab.world.ask<Seen[]>({
    op: 'take',
    match: { src: lab.nodeAddress },
    least: 1,
    wait: 0.25
  })
  const [first] = seen.filter((each) => each.inner === undefined)
  if (first !== undefined) {
    const number = first.sport ?? first.id ?? first.key ?? 0
    const sent = packet['sport'] ?? packet['id'] ?? packet['key']
    return { outcome: number === sent ? 'kept' : 'shared' }
  }
  const after = await counts()
  const reason = Object.keys(after).find((name) => (after[name] ?? 0) > (before[name] ?? 0))
  if (packet['dst'] === lab.nodeAddress && reason === undefined) return { outcome: 'kept' }
  return { outcome: 'dropped', ...(reason === undefined ? {} : { reason }) }
}

async function counts(): Promise<Record<string, number>> {
  const { drops, refused } = await lab.counters()
  return { ...drops, ...refused['one'] }
}

function packets(): Packet[] {
  const to = { src: one.address, dst: lab.worldAddress }
  const segments = [0, 1, 2, 4, 0x10, 0x11, 0x12, 0x14, 0x18, 0x29, 0x3f].flatMap((flags, index) =>
    [9090, 5000 + index].map((sport) => ({ ...to, proto: 'tcp', sport, dport: 8000 + index, flags }))
  )
  const echoes = [0, 8, 13, 14].flatMap((type) =>
    [9090, 8080 + type].map((id) => ({ ...to, proto: 'icmp', type, id }))
  )
  const toNode = { ...to, dst: lab.nodeAddress }
  return [
    ...segments,
    ...[22, 9090].map((dport) => ({ ...toNode, proto: 'udp', sport: 9090, dport })),
    ...[2, 1].map((flags) => ({ ...toNode, proto: 'tcp', sport: 9090, dport: 8100 + flags, flags })),
    ...[8, 13, 0].map((type) => ({ ...toNode, proto: 'icmp', type, id: 8130 + type })),
    ...[8, 13, 0, 14].map((type) => ({ ...toNode, proto: 'icmp', type, id: 9090 })),
    { ...toNode, proto: 'icmp', type: 3, body: '00' },
    ...[9090, 5000].map((sport) => ({ ...to, proto: 'udp', sport, dport: 53 })),
    ...echoes,
    ...[7, 8].map((key) => ({ ...to, proto: 'gre', key })),
    { ...to, proto: 'gre', key: 7, greflags: 0 },
    { ...to, proto: 'gre', key: 7, greflags: 0x3000, payload: 'sequence' },
    { ...to, proto: 'icmp', type: 5, body: '00' },
    ...[15, 16, 17, 18].map((type) => ({ ...to, proto: 'icmp', type, id: 9090 })),
    ...['4', '41', '50', '132'].map((proto) => ({ ...to, proto, payload: 'xxxxxxxx' })),
    // Cut within their headers, without and with options before them.
    ...[false, true].flatMap((options) => [
      ...['1', '17'].map((proto) => ({ ...to, proto, payload: 'xxxx', options })),
      ...[4, 10, 15, 17].map((bytes) => ({ ...to, proto: '6', payload: 'x'.repeat(bytes), options }))
    ]),
    // A length of 2 where there are 8, and of 120.
    ...['\0\u0002', '\0x'].map((length) => ({
      ...to,
      proto: '17',
      payload: `####${length}\0\0`,
      options: true
    })),
    { ...to, proto: 'udp', sport: 9090, dport: 53, src: '100.64.0.9' },
    ...['10.0.0.1', '169.254.169.254', '224.0.0.1', '100.64.7.2', '255.255.255.255'].map((dst) => ({
      ...to,
      proto: 'udp',
      sport: 9090,
      dport: 53,
      dst
    }))
  ]
}

test.serial('what is told of a packet is what the rules do', async (t) => {
  const outcomes = new Set<string>()
  for (const packet of packets()) {
    // The world is in a private range that this node's policy allows.
    const allowedRanges = [`${lab.worldAddress}/32`]
    const { address } = one
    const lease = { ports, rawSockets: true, address, nodeAddress: lab.nodeAddress, allowedRanges }
    const told = packetVerdict(await bytesOf(packet), lease)
    const found = await actual(packet)
    // Nothing here is part of a connection.
    const expected = told.outcome === 'related' ? 'dropped' : told.outcome
    const said = `${JSON.stringify(packet)}: ${told.text}; was ${found.outcome} ${found.reason ?? ''}`
    t.is(found.outcome, expected, said)
    if (expected === 'dropped') t.is(found.reason, told.reason, said)
    outcomes.add(told.outcome)
  }
  t.deepEqual([...outcomes].sort(), ['dropped', 'kept', 'related', 'shared'])
})

test.serial('the comparison finds a rule that is not what is told', async (t) => {
  const packet = { proto: 'tcp', src: one.address, dst: lab.worldAddress, sport: 5099, dport: 8099, flags: 1 }
  t.like(await actual(packet), { outcome: 'dropped', reason: 'untracked' })
  await lab.nft('flush chain ip slicenet outward_untracked; flush chain ip slicenet leaving_vserver')
  await lab.nft(
    `add rule ip slicenet leaving_vserver ip saddr ${one.address} ip saddr set ${lab.nodeAddress}`
  )
  t.is((await actual(packet)).outcome, 'kept')
})
