/** The flows of vservers that share the node's network: whose of the node's connections are theirs, and until when. */
import test from 'ava'
import type { Flow } from '../../../src/enforce/network/flow.ts'
import type { FlowLosses } from '../../../src/enforce/network/flow-watch.ts'
import { Lab, type LineProgram } from './lab.ts'

const FIRST = 11 * 65_536
const OTHER = 14 * 65_536
const lab = new Lab({ letter: 'x', hasSix: true })
const [NODE_6, WORLD_6] = [lab.sixOf('node'), lab.sixOf('world')]
let world6: LineProgram

test.before(async () => {
  await lab.up()
  await lab.ask({ op: 'watchFlows' })
  await lab.world.ask({ op: 'listen', port: 7000 })
  await lab.world.ask({ op: 'answer', port: 7001 })
  world6 = await lab.program('world', 'probe6.py', 'up0')
  await world6.ask({ op: 'listen', port: 7002 })
  await world6.ask({ op: 'answer', port: 7003 })
})
test.after.always(() => lab.down())

const attach = async (id: string, firstId: number): Promise<unknown> => {
  const user = lab.link(id, 0, [], { egressBps: 1_000_000, egressBpsMax: 2_000_000 })
  return lab.ask({ op: 'attachIds', user: { ...user, firstId, lastId: firstId + 65_535 } })
}

async function as(uid: number, script: string): Promise<string> {
  const python = ['/usr/bin/python3', '-c', `import socket, struct, sys, time\n${script}`]
  const held = ['--inh-caps=+net_raw', '--ambient-caps=+net_raw']
  return (await lab.onNode(['setpriv', `--reuid=${uid}`, '--clear-groups', ...held, ...python])).trim()
}

const ask = (sport: number): string => `
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", ${sport}))
s.settimeout(1)
s.sendto(b"?", ("${lab.worldAddress}", 7001))
s.recv(100)
`

const ask6 = (sport: number, from = '::'): string => `
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("${from}", ${sport}))
s.settimeout(1)
s.sendto(b"?", ("${WORLD_6}", 7003))
s.recv(100)
`

const take = async (): Promise<Flow[]> => {
  const flows = await lab.ask<Flow[]>({ op: 'takeFlows', all: true })
  return flows.filter(({ vserver }) => vserver === 'watch' || vserver === 'next')
}

test.serial('what its users send is told as its own, both ways, and what others send is not', async (t) => {
  await attach('watch', FIRST)
  await as(FIRST + 1000, ask(5001))
  await as(OTHER, ask(5002))
  await as(0, ask(5003))
  const [flow, ...more] = await take()
  t.deepEqual(more, [])
  t.like(flow, {
    vserver: 'watch',
    protocol: 'udp',
    localAddress: lab.nodeAddress,
    localPort: 5001,
    remoteAddress: lab.worldAddress,
    remotePort: 7001,
    begunBy: 'vserver',
    isTracked: true,
    isOpen: true,
    sent: { packets: 1, bytes: 29 }
  })
  t.is(flow?.received.packets, 1)
  t.deepEqual(await take(), [], 'once')
  // More of the same is the same flow.
  await as(FIRST + 1000, ask(5001))
  const [again] = await take()
  t.is(again?.id, flow?.id)
  t.is(again?.sent.packets, 2)
  t.true((again?.first ?? 0) <= (again?.last ?? 0))
})

test.serial('connections, pings, and what the world begins are told as well', async (t) => {
  await as(FIRST, `s = socket.create_connection(("${lab.worldAddress}", 7000)); s.recv(100); s.close()`)
  await as(
    FIRST,
    `s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
s.sendto(bytes.fromhex("0800f7fe00010000"), ("${lab.worldAddress}", 0))`
  )
  const serving = as(
    FIRST,
    `s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 5100))
s.settimeout(5)
data, who = s.recvfrom(100)
s.sendto(b"answer", who)`
  )
  const asked = { op: 'ask', host: lab.nodeAddress, port: 5100, sport: 6100 }
  for (let round = 0; round < 20; round++) {
    const answer = await lab.world.ask<string>({ ...asked, timeout: 0.2 })
    if (answer === 'answer') break
  }
  await serving
  const flows = await take()
  const tcp = flows.find(({ protocol }) => protocol === 'tcp')
  t.like(tcp, { vserver: 'watch', remotePort: 7000, begunBy: 'vserver' })
  t.true((tcp?.received.bytes ?? 0) > 0)
  t.like(
    flows.find(({ protocol }) => protocol === 'icmp'),
    { vserver: 'watch', remoteAddress: lab.worldAddress, localPort: 0, isTracked: false }
  )
  t.like(
    flows.find(({ begunBy }) => begunBy === 'remote'),
    { protocol: 'udp', localPort: 5100, remotePort: 6100 }
  )
})

test.serial('so is what they send over IPv6, beside the same ports of IPv4', async (t) => {
  await as(FIRST + 1000, ask6(5001))
  await as(OTHER, ask6(5002))
  await as(0, ask6(5003))
  const [flow, ...more] = await take()
  t.deepEqual(more, [])
  t.like(flow, {
    vserver: 'watch',
    protocol: 'udp',
    localAddress: NODE_6,
    localPort: 5001,
    remoteAddress: WORLD_6,
    remotePort: 7003,
    begunBy: 'vserver',
    isTracked: true,
    isOpen: true,
    sent: { packets: 1, bytes: 49 }
  })
  t.is(flow?.received.packets, 1)
  t.deepEqual(await take(), [], 'once')
  await as(FIRST + 1000, ask6(5001))
  const again = await take()
  t.like(again, [{ id: flow?.id ?? '', sent: { packets: 2 } }])
})

test.serial('connections, pings, and what the world begins over IPv6 are told as well', async (t) => {
  await as(FIRST, `s = socket.create_connection(("${WORLD_6}", 7002)); s.recv(100); s.close()`)
  await as(
    FIRST,
    `s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
s.sendto(bytes.fromhex("8000000000010000"), ("${WORLD_6}", 0))`
  )
  const serving = as(
    FIRST,
    `s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 5101))
s.settimeout(5)
data, who = s.recvfrom(100)
s.sendto(b"answer", who)`
  )
  const asked = { op: 'ask', host: NODE_6, port: 5101, sport: 6101 }
  for (let round = 0; round < 20; round++) {
    const answer = await world6.ask<string>({ ...asked, timeout: 0.2 })
    if (answer === 'answer') break
  }
  await serving
  const flows = await take()
  t.true(flows.every(({ localAddress, vserver }) => localAddress === NODE_6 && vserver === 'watch'))
  const tcp = flows.find(({ protocol }) => protocol === 'tcp')
  t.like(tcp, { remoteAddress: WORLD_6, remotePort: 7002, begunBy: 'vserver' })
  t.true((tcp?.received.bytes ?? 0) > 0)
  t.like(
    flows.find(({ protocol }) => protocol === 'icmp'),
    { remoteAddress: WORLD_6, localPort: 0, isTracked: false }
  )
  t.like(
    flows.find(({ begunBy }) => begunBy === 'remote'),
    { protocol: 'udp', localPort: 5101, remotePort: 6101 }
  )
})

test.serial('the address that is told is the one that it was sent from', async (t) => {
  const others = { four: '198.51.100.9', six: NODE_6.replace(/2$/, '9') }
  await lab.onNode(['ip', 'addr', 'add', `${others.four}/32`, 'dev', 'up0'])
  await lab.onNode(['ip', 'addr', 'add', `${others.six}/64`, 'dev', 'up0', 'nodad'])
  await as(
    FIRST,
    `s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("${others.four}", 5150))
s.sendto(b"?", ("${lab.worldAddress}", 7001))`
  )
  await as(FIRST, ask6(5150, others.six))
  const [four, six, ...more] = await take()
  t.like(four, { localAddress: others.four, localPort: 5150, sent: { packets: 1 } })
  t.like(six, { localAddress: others.six, localPort: 5150, received: { packets: 1 } })
  t.deepEqual(more, [])
  // The kernel would go on to send from it.
  await lab.onNode(['ip', 'addr', 'del', `${others.six}/64`, 'dev', 'up0'])
})

test.serial('its flows end with it, and whoever has its ids next has none of them', async (t) => {
  await lab.ask({ op: 'detach', id: 'watch' })
  const ended = await take()
  t.true(ended.length >= 8, `${ended.length}`)
  for (const own of [lab.nodeAddress, NODE_6]) {
    t.true(ended.filter(({ localAddress }) => localAddress === own).length >= 4, own)
  }
  t.true(ended.every(({ isOpen, vserver }) => !isOpen && vserver === 'watch'))
  t.deepEqual(await take(), [])
  await attach('next', FIRST)
  t.deepEqual(await take(), [])
  await as(FIRST, ask(5200))
  t.like(await take(), [{ vserver: 'next', localPort: 5200, isOpen: true }])
  await as(FIRST, ask6(5200))
  t.like(await take(), [{ vserver: 'next', localAddress: NODE_6, localPort: 5200, isOpen: true }])
})

test.serial('without its table nothing is told of a family, and what finds no room is counted', async (t) => {
  await lab.nft('flush chain ip6 slicenet_user_flows of_users')
  await as(FIRST, ask(5300) + ask6(5300))
  t.like(await take(), [{ localAddress: lab.nodeAddress, localPort: 5300 }])
  const skipped = async (): Promise<number> => (await lab.ask<FlowLosses>({ op: 'flowLosses' })).skipped
  const before = await skipped()
  await lab.nft('flush chain ip slicenet_user_flows of_users')
  for (const family of ['ip', 'ip6']) {
    await lab.nft(`add rule ${family} slicenet_user_flows of_users counter name no_room accept`)
  }
  await as(FIRST, ask(5301) + ask6(5301))
  t.deepEqual(await take(), [])
  t.is(await skipped(), before + 2)
})

test.serial('another daemon knows whose they are, and takes none of those before for its', async (t) => {
  await lab.killNode()
  await lab.startNode()
  await lab.ask({ op: 'watchFlows' })
  const told = async (): Promise<string[]> =>
    (await take())
      .map(({ vserver, localAddress, localPort }) => `${vserver} ${localAddress} ${localPort}`)
      .sort()
  const [four, six] = [`next ${lab.nodeAddress}`, `next ${NODE_6}`]
  t.deepEqual(await told(), [`${four} 5200`, `${four} 5300`, `${six} 5200`])
  await as(FIRST, ask(5400) + ask6(5400))
  t.deepEqual(await told(), [`${four} 5400`, `${six} 5400`])
  await lab.ask({ op: 'detach', id: 'next' })
  await lab.ask({ op: 'remove' })
  t.notRegex(await lab.onNode(['nft', 'list', 'tables']), /slicenet/)
})
