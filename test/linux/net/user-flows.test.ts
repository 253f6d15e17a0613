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

interface Family {
  readonly name: string
  /** As python calls it. */
  readonly family: 'AF_INET' | 'AF_INET6'
  readonly any: string
  readonly node: string
  readonly world: string
  /** Of the world's, that which takes connections and that which answers datagrams. */
  readonly ports: { readonly listening: number; readonly answering: number }
  /** Who asks from the world. */
  readonly asker: () => LineProgram
  readonly headerBytes: number
  /** The protocol's number, and a ping. */
  readonly ping: readonly [number, string]
}

const FOUR: Family = {
  name: 'IPv4',
  family: 'AF_INET',
  any: '0.0.0.0',
  node: lab.nodeAddress,
  world: lab.worldAddress,
  ports: { listening: 7000, answering: 7001 },
  asker: () => lab.world,
  headerBytes: 20,
  ping: [1, '0800f7fe00010000']
}
const SIX: Family = {
  name: 'IPv6',
  family: 'AF_INET6',
  any: '::',
  node: NODE_6,
  world: WORLD_6,
  ports: { listening: 7002, answering: 7003 },
  asker: () => world6,
  headerBytes: 40,
  ping: [58, '8000000000010000']
}

const ask = (sport: number, { family, any, world, ports }: Family = FOUR, from = any): string => `
s = socket.socket(socket.${family}, socket.SOCK_DGRAM)
s.bind(("${from}", ${sport}))
s.settimeout(1)
s.sendto(b"?", ("${world}", ${ports.answering}))
s.recv(100)
`

const take = async (): Promise<Flow[]> => {
  const flows = await lab.ask<Flow[]>({ op: 'takeFlows', all: true })
  return flows.filter(({ vserver }) => vserver === 'watch' || vserver === 'next')
}

// The same ports of both, so that one is not taken for the other.
for (const each of [FOUR, SIX]) {
  const { name, family, any, node, world, ports, headerBytes } = each

  test.serial(
    `what its users send over ${name} is told as its own, both ways, and what others send is not`,
    async (t) => {
      if (each === FOUR) await attach('watch', FIRST)
      await as(FIRST + 1000, ask(5001, each))
      await as(OTHER, ask(5002, each))
      await as(0, ask(5003, each))
      const [flow, ...more] = await take()
      t.deepEqual(more, [])
      t.like(flow, {
        vserver: 'watch',
        protocol: 'udp',
        localAddress: node,
        localPort: 5001,
        remoteAddress: world,
        remotePort: ports.answering,
        begunBy: 'vserver',
        isTracked: true,
        isOpen: true,
        sent: { packets: 1, bytes: headerBytes + 8 + 1 }
      })
      t.is(flow?.received.packets, 1)
      t.deepEqual(await take(), [], 'once')
      // More of the same is the same flow.
      await as(FIRST + 1000, ask(5001, each))
      const [again, ...others] = await take()
      t.deepEqual(others, [])
      t.like(again, { id: flow?.id ?? '', sent: { packets: 2 } })
      t.true((again?.first ?? 0) <= (again?.last ?? 0))
    }
  )

  test.serial(`connections, pings, and what the world begins over ${name} are told as well`, async (t) => {
    const [protocol, ping] = each.ping
    await as(FIRST, `s = socket.create_connection(("${world}", ${ports.listening})); s.recv(100); s.close()`)
    await as(
      FIRST,
      `s = socket.socket(socket.${family}, socket.SOCK_RAW, ${protocol})
s.sendto(bytes.fromhex("${ping}"), ("${world}", 0))`
    )
    const serving = as(
      FIRST,
      `s = socket.socket(socket.${family}, socket.SOCK_DGRAM)
s.bind(("${any}", 5100))
s.settimeout(5)
data, who = s.recvfrom(100)
s.sendto(b"answer", who)`
    )
    const asked = { op: 'ask', host: node, port: 5100, sport: 6100 }
    for (let round = 0; round < 20; round++) {
      const answer = await each.asker().ask<string>({ ...asked, timeout: 0.2 })
      if (answer === 'answer') break
    }
    await serving
    const flows = await take()
    t.true(flows.every(({ localAddress, vserver }) => localAddress === node && vserver === 'watch'))
    const tcp = flows.find((flow) => flow.protocol === 'tcp')
    t.like(tcp, { remoteAddress: world, remotePort: ports.listening, begunBy: 'vserver' })
    t.true((tcp?.received.bytes ?? 0) > 0)
    t.like(
      flows.find((flow) => flow.protocol === 'icmp'),
      { remoteAddress: world, localPort: 0, isTracked: false }
    )
    t.like(
      flows.find(({ begunBy }) => begunBy === 'remote'),
      { protocol: 'udp', localPort: 5100, remotePort: 6100 }
    )
  })
}

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
  await as(FIRST, ask(5150, SIX, others.six))
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
  await as(FIRST, ask(5200, SIX))
  t.like(await take(), [{ vserver: 'next', localAddress: NODE_6, localPort: 5200, isOpen: true }])
})

test.serial('without its table nothing is told of a family, and what finds no room is counted', async (t) => {
  await lab.nft('flush chain ip6 slicenet_user_flows of_users')
  await as(FIRST, ask(5300) + ask(5300, SIX))
  t.like(await take(), [{ localAddress: lab.nodeAddress, localPort: 5300 }])
  const skipped = async (): Promise<number> => (await lab.ask<FlowLosses>({ op: 'flowLosses' })).skipped
  const before = await skipped()
  await lab.nft('flush chain ip slicenet_user_flows of_users')
  for (const family of ['ip', 'ip6']) {
    await lab.nft(`add rule ${family} slicenet_user_flows of_users counter name no_room accept`)
  }
  await as(FIRST, ask(5301) + ask(5301, SIX))
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
  await as(FIRST, ask(5400) + ask(5400, SIX))
  t.deepEqual(await told(), [`${four} 5400`, `${six} 5400`])
  await lab.ask({ op: 'detach', id: 'next' })
  await lab.ask({ op: 'remove' })
  t.notRegex(await lab.onNode(['nft', 'list', 'tables']), /slicenet/)
})
