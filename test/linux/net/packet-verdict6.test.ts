/** Whether what `slicenet raw check` tells of a packet of IPv6 is what the real rules do with it, as packet-verdict.test.ts has it of IPv4. */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { addressBytes } from '../../../src/base/ip-address.ts'
import { checkPacket, type PacketVerdict } from '../../../src/daemon/raw-check.ts'
import { planLink } from '../../../src/enforce/network/address-plan.ts'
import {
  datagram6,
  framed6,
  ICMP6,
  icmp6,
  ipv6Packet,
  message6,
  segment6,
  tcp6,
  udp6,
  type Ends
} from './frames6.ts'
import { icmp, Lab, tcp, udp, type LineProgram, type Seen } from './lab.ts'
import { OTHERS, OWN } from './spoof-classes.ts'
import { spoofClasses6, translated6 } from './spoof-classes6.ts'

const ports = [tcp(OWN.port), udp(OWN.port), icmp(OWN.id)]
const lab = new Lab({ letter: 'p', hasSix: true })
const NODE = lab.sixOf('node')
const WORLD = lab.sixOf('world')
const one = planLink(1)
const out: Ends = { src: one.address6, dst: WORLD }
let sender: LineProgram
let world: LineProgram

test.before(async () => {
  await lab.up()
  const vserver = await lab.vserver('one', ports)
  await lab.vserver('two', [tcp(OTHERS.port), udp(OTHERS.port), icmp(OTHERS.id)])
  sender = await lab.program(vserver.pid, 'probe6.py', 'eth0')
  world = await lab.program('world', 'probe6.py', 'up0')
  await settled()
})
test.after.always(() => lab.down())

/** By reason, refused by the source check or dropped by the node's table. */
const counts = async (): Promise<Record<string, number>> => lab.ask({ op: 'dropped', id: 'one' })

/** Kernels tell which groups they listen to when a device comes up, which is counted too. */
async function settled(): Promise<void> {
  for (let quiet = 0, last = ''; quiet < 6;) {
    await delay(500)
    const now = JSON.stringify(await counts())
    quiet = now === last ? quiet + 1 : 0
    last = now
  }
}

interface Case {
  readonly name: string
  readonly frame: Buffer
}

/** What the rules do: how it comes to the world, and the counter that grew if it does not. */
async function actual(frame: Buffer): Promise<Pick<PacketVerdict, 'outcome' | 'reason'>> {
  await world.ask({ op: 'take', wait: 0 })
  const before = await counts()
  await sender.ask({ op: 'send', frames: [frame.toString('hex')] })
  const [seen] = await world.ask<Seen[]>({ op: 'take', match: { src: NODE }, least: 1, wait: 0.25 })
  if (seen !== undefined) {
    // Where its port or identifier is.
    const sent = frame.readUInt16BE(14 + 40 + (frame[14 + 6] === ICMP6 ? 4 : 0))
    return { outcome: (seen.sport ?? seen.id) === sent ? 'kept' : 'shared' }
  }
  const after = await counts()
  const reason = Object.keys(after).find((name) => (after[name] ?? 0) > (before[name] ?? 0))
  const isToNode = frame.toString('hex', 14 + 24, 14 + 40) === Buffer.from(addressBytes(NODE)).toString('hex')
  if (isToNode && reason === undefined) return { outcome: 'kept' }
  return { outcome: 'dropped', ...(reason === undefined ? {} : { reason }) }
}

const packet = (next: number, body: Buffer, ends = out): Buffer => ipv6Packet({ ...ends, next, body })
const inFrame = (name: string, bytes: Buffer, over: { hostMac?: string } = {}): Case => ({
  name,
  frame: framed6(bytes, { ...one, ...over })
})

function segments(): Case[] {
  const all = [0, 1, 2, 4, 0x10, 0x11, 0x12, 0x14, 0x18, 0x29, 0x3f].flatMap((flags, index) =>
    [OWN.port, 5000 + index].map((sport) => ({ sport, dport: 8000 + index, flags }))
  )
  const long = [OWN.port, 5050].map((sport) => ({ sport, dport: 8050, flags: 2, headerWords: 8 }))
  return [...all, ...long].map((init) => inFrame(`TCP ${JSON.stringify(init)}`, segment6(out, init)))
}

/** No identifier is used twice, so that no answer is to what was asked before. */
function messages(): Case[] {
  const types = [0, 5, 100, 127, 144, 160, 200, 255].map((type) => ({ type, id: OWN.id }))
  const echoes = [
    { type: 128, id: OWN.id },
    { type: 128, id: 8128 },
    { type: 129, id: OWN.id },
    { type: 129, id: 8129 }
  ]
  return [...echoes, ...types].map(({ type, id }) =>
    inFrame(`ICMPv6 of type ${type}, ${id}`, message6(out, type, (id << 16) | 1))
  )
}

/** An error about something that somebody else sent, with and without room for what it is about. */
function errors(): Case[] {
  const about = datagram6({ src: WORLD, dst: NODE }, { sport: 7, dport: 5999 })
  return [1, 2, 3, 4].flatMap((type) => [
    inFrame(`an error of type ${type}`, message6(out, type, 0, about)),
    inFrame(`an empty error of type ${type}`, message6(out, type))
  ])
}

function addressees(): Case[] {
  const to = (dst: string): Case =>
    inFrame(`to ${dst}`, datagram6({ ...out, dst }, { sport: OWN.port, dport: 53 }))
  return [
    '::1',
    '::ffff:192.0.2.1',
    'fe80::1',
    'fc00::9',
    '2002:c000:201::1',
    '3fff::1',
    one.gateway6,
    planLink(2).gateway6,
    planLink(9).address6,
    'ff02::1:2'
  ].map(to)
}

function toNode(): Case[] {
  const ends = { ...out, dst: NODE }
  return [
    ...[22, OWN.port].map((dport) =>
      inFrame(`UDP to the node’s ${dport}`, datagram6(ends, { sport: OWN.port, dport }))
    ),
    ...[2, 1].map((flags, at) =>
      inFrame(`TCP ${flags} to the node`, segment6(ends, { sport: OWN.port, dport: 8100 + at, flags }))
    ),
    ...[OWN.id, 8131].map((id) => inFrame(`a ping of the node, ${id}`, message6(ends, 128, (id << 16) | 1))),
    ...[129, 1].map((type) => inFrame(`ICMPv6 ${type} to the node`, message6(ends, type, (8132 << 16) | 1))),
    inFrame('an owned answer to the node', message6(ends, 129, (OWN.id << 16) | 1))
  ]
}

function oddities(): Case[] {
  const datagram = udp6(out, { sport: OWN.port, dport: 53 })
  const options = (next: number): Buffer => Buffer.from([next, 0, 1, 4, 0, 0, 0, 0])
  const report = icmp6(out, 143, 1)
  const cut = (next: number, body: Buffer, bytesMax: number): Case[] =>
    [0, 1, 4, 7, 12, 19]
      .filter((bytes) => bytes < bytesMax)
      .map((bytes) => inFrame(`${next} cut to ${bytes}`, packet(next, body.subarray(0, bytes))))
  const whole = packet(17, datagram)
  return [
    ...cut(6, tcp6(out, { sport: OWN.port, dport: 80, flags: 2 }), 20),
    ...cut(17, datagram, 9),
    ...cut(ICMP6, icmp6(out, 128), 8),
    // So short that not all of the header is there.
    ...[1, 6, 7, 20, 24, 39].map((bytes) => inFrame(`${bytes} bytes`, whole.subarray(0, bytes))),
    inFrame('6 bytes with options', packet(0, options(17)).subarray(0, 7)),
    inFrame('a report behind two headers', packet(0, Buffer.concat([options(60), options(ICMP6), report]))),
    inFrame('a report behind other options', packet(60, Buffer.concat([options(ICMP6), report]))),
    inFrame('an advert behind options', packet(0, Buffer.concat([options(ICMP6), icmp6(out, 134)]))),
    inFrame('a report cut off behind options', packet(0, options(ICMP6))),
    ...[2, 46, 59, 88, 103, 136, 253, 255].map((next) =>
      inFrame(`protocol ${next}`, packet(next, Buffer.alloc(32)))
    ),
    inFrame('more behind the packet', Buffer.concat([whole, Buffer.alloc(30)])),
    inFrame('another host’s frame', whole, { hostMac: '02:00:00:00:00:09' }),
    inFrame('from no port', datagram6(out, { sport: 0, dport: 53 }))
  ]
}

function cases(): Case[] {
  const classes = [
    ...spoofClasses6({ world: WORLD, node: NODE }),
    ...translated6({ world: WORLD, node: NODE })
  ]
  return [
    ...classes.flatMap(({ name, frames }) => frames.map((frame) => ({ name, frame }))),
    ...segments(),
    ...[OWN.port, 5070].map((sport) => inFrame(`UDP from ${sport}`, datagram6(out, { sport, dport: 53 }))),
    ...messages(),
    ...errors(),
    ...addressees(),
    ...toNode(),
    ...oddities()
  ]
}

// The world is in a range that this node's policy allows.
const lease = {
  ports,
  rawSockets: true,
  address6: one.address6,
  nodeAddress6: NODE,
  allowedRanges: [`${WORLD}/128`]
}

test.serial('what is told of a frame is what the rules do', async (t) => {
  const told = new Map<string, number>()
  for (const { name, frame } of cases()) {
    const verdict = checkPacket(frame.toString('hex'), lease)
    const found = await actual(frame)
    // Nothing here is part of a connection.
    const expected = verdict.outcome === 'related' ? 'dropped' : verdict.outcome
    const said = `${name}: ${verdict.outcome} ${verdict.reason ?? ''} (${verdict.text}); was ${found.outcome} ${found.reason ?? ''}`
    t.is(found.outcome, expected, said)
    if (expected === 'dropped') t.is(found.reason, verdict.reason, said)
    const key = verdict.outcome === 'dropped' ? `dropped ${verdict.reason ?? '-'}` : verdict.outcome
    told.set(key, (told.get(key) ?? 0) + 1)
  }
  t.log(JSON.stringify(Object.fromEntries(told)))
  for (const outcome of ['kept', 'shared', 'related']) t.true((told.get(outcome) ?? 0) > 0, outcome)
})

test.serial('the comparison finds a rule that is not what is told', async (t) => {
  const { frame } = inFrame('FIN', segment6(out, { sport: 5099, dport: 8099, flags: 1 }))
  t.like(checkPacket(frame.toString('hex'), lease), { outcome: 'related', reason: 'untracked' })
  t.like(await actual(frame), { outcome: 'dropped', reason: 'untracked' })
  await lab.nft('flush chain ip6 slicenet outward_untracked; flush chain ip6 slicenet leaving_vserver')
  await lab.nft(`add rule ip6 slicenet leaving_vserver ip6 saddr ${one.address6} ip6 saddr set ${NODE}`)
  t.is((await actual(frame)).outcome, 'kept')
})
