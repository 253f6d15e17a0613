/** The flows of vservers that share the node's network: whose of the node's connections are theirs, and until when. */
import test from 'ava'
import type { Flow } from '../../../src/enforce/network/flow.ts'
import { Lab } from './lab.ts'

const FIRST = 11 * 65_536
const OTHER = 14 * 65_536
const lab = new Lab({ letter: 'x' })

test.before(async () => {
  await lab.up()
  await lab.ask({ op: 'watchFlows' })
  await lab.world.ask({ op: 'listen', port: 7000 })
  await lab.world.ask({ op: 'answer', port: 7001 })
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

test.serial('its flows end with it, and whoever has its ids next has none of them', async (t) => {
  await lab.ask({ op: 'detach', id: 'watch' })
  const ended = await take()
  t.true(ended.length >= 4, `${ended.length}`)
  t.true(ended.every(({ isOpen, vserver }) => !isOpen && vserver === 'watch'))
  t.deepEqual(await take(), [])
  await attach('next', FIRST)
  t.deepEqual(await take(), [])
  await as(FIRST, ask(5200))
  t.like(await take(), [{ vserver: 'next', localPort: 5200, isOpen: true }])
})

test.serial('another daemon knows whose they are, and without the table nothing is told', async (t) => {
  await lab.killNode()
  await lab.startNode()
  await lab.ask({ op: 'watchFlows' })
  const known = await take()
  t.deepEqual(
    known.map(({ vserver, localPort }) => [vserver, localPort]),
    [['next', 5200]],
    'and takes nothing of those before for its'
  )
  await lab.nft('flush chain ip slicenet_user_flows of_users')
  await as(FIRST, ask(5300))
  t.deepEqual(
    (await take()).filter(({ localPort }) => localPort === 5300),
    []
  )
  await lab.ask({ op: 'detach', id: 'next' })
  await lab.ask({ op: 'remove' })
  t.notRegex(await lab.onNode(['nft', 'list', 'tables']), /slicenet/)
})
