/** Vservers that share the node's network: what they send, what they may not, and what they see. */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import { Lab, udp, type Seen } from './lab.ts'
import { until } from './until.ts'

const lab = new Lab({ letter: 'u' })
/** Ids of the user that is attached, and of one that nobody knows. */
const FIRST = 11 * 65_536
const OTHER = 14 * 65_536
const RESOURCES = { egressBps: 1_000_000, egressBpsMax: 2_000_000 }
let pristine = ''
/** The hardware address by which the world is reached. */
let router = ''

test.before(async () => {
  await lab.up()
  pristine = await kernelState()
  await lab.onNode(['ping', '-c', '1', lab.worldAddress])
  const known = await lab.onNode(['ip', 'neigh', 'show', 'dev', 'up0'])
  router = /lladdr (\S+)/.exec(known)?.[1]?.replaceAll(':', '') ?? ''
})
test.after.always(() => lab.down())

async function kernelState(): Promise<string> {
  const parts = await Promise.all([
    lab.table('ip', 'slicenet'),
    lab.table('netdev', 'slicenet'),
    lab.onNode(['nft', '-s', 'list', 'chain', 'inet', 'slicenet', 'user_fewer_destinations']),
    lab.onNode(['nft', '-s', 'list', 'map', 'inet', 'slicenet', 'user_new_class']),
    ...['netdev', 'ip6'].map(async (family) => lab.table(family, 'slicenet_users').catch(() => 'none')),
    lab.onNode(['tc', 'class', 'show', 'dev', 'up0'])
  ])
  return parts.join('\n')
}

const attach = async (id = 'watch', first = FIRST, more: object = {}): Promise<unknown> => {
  const user = lab.link(id, 0, [], RESOURCES)
  return lab.ask({ op: 'attachIds', user: { ...user, firstId: first, lastId: first + 65_535, ...more } })
}

/** Runs python on the node as a user with CAP_NET_RAW; sockets are made as that user. */
async function as(uid: number, script: string): Promise<string> {
  const held = ['--inh-caps=+net_raw', '--ambient-caps=+net_raw']
  const python = ['/usr/bin/python3', '-c', `import socket, struct, sys, time\n${script}`]
  return (await lab.onNode(['setpriv', `--reuid=${uid}`, '--clear-groups', ...held, ...python])).trim()
}

const sendUdp = (address: string, port: number, sport = 0, count = 1): string => `
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", ${sport}))
for _ in range(${count}):
  try: s.sendto(b"x" * 1000, ("${address}", ${port}))
  except OSError as e: print(e.errno)
`

/** A datagram to `port` of the world, made from the frame up, in several ways. */
const sendFrame = (device: string, port: number, options: string): string => `
udp = struct.pack("!HHHH", 1234, ${port}, 8 + 4, 0) + b"fake"
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 9, 17, 0, socket.inet_aton("${lab.nodeAddress}"), socket.inet_aton("${lab.worldAddress}"))
total = sum(struct.unpack("!10H", head))
total = (total & 0xffff) + (total >> 16)
head = head[:10] + struct.pack("!H", ~total & 0xffff) + head[12:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
${options}
s.bind(("${device}", 0x0800))
mac = s.getsockname()[4]
try: s.send(bytes.fromhex("${device === 'up0' ? router : 'ff'.repeat(6)}") + mac + b"\\x08\\x00" + head + udp)
except OSError as e: print(e.errno)
`

const arrived = async (match: object, wait = 0.4): Promise<number> =>
  (await lab.world.ask<Seen[]>({ op: 'take', match, least: 1, wait })).length

test.serial(
  'what it sends counts as its own and leaves in a class of its own; what others send does not',
  async (t) => {
    t.deepEqual(await attach(), { address: lab.nodeAddress })
    t.deepEqual(await lab.ask({ op: 'list' }), ['watch'])
    await as(FIRST + 1000, sendUdp(lab.worldAddress, 9, 0, 20))
    // What waits in the queue is not yet counted.
    while ((await egress()) < 20 * 1000) await new Promise((resolve) => setTimeout(resolve, 20))
    const own = await egress()
    t.true(own < 21 * 1100, `${own} bytes`)
    await as(OTHER, sendUdp(lab.worldAddress, 9, 0, 20))
    t.is(await egress(), own)
    t.regex(await lab.onNode(['tc', 'class', 'show', 'dev', 'up0']), /rate 1Mbit ceil 2Mbit/)
    // Attached again with more, it stays one and keeps its count.
    await attach()
    t.is(await egress(), own)
  }
)

const egress = (): Promise<number> => lab.ask<number>({ op: 'egressBytes', id: 'watch' })

test.serial('echoes that it sends have a bucket of their own, until they are not told apart', async (t) => {
  const echo = Buffer.concat([Buffer.from([8, 0, 0, 0, 0, 7, 0, 1]), Buffer.alloc(1000)])
  const flood = `
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
end = time.monotonic() + 1
while time.monotonic() < end:
  s.sendto(bytes.fromhex("${echo.toString('hex')}"), ("${lab.worldAddress}", 0))
  time.sleep(0.001)
`
  const leaving = async (): Promise<number> => {
    const before = await lab.settledBytes('watch')
    await as(FIRST, flood)
    return (await egress()) - before
  }
  const told = await leaving()
  await lab.nft(
    'flush chain netdev slicenet_users classify; add rule netdev slicenet_users classify meta priority set meta skuid map @class; add rule netdev slicenet_users classify accept'
  )
  const untold = await leaving()
  t.log({ told, untold })
  t.true(told > 0 && told * 4 < untold)
  await attach()
})

test.serial(
  'a scan of its is cut and counted, as its lease says and the policy, until it is not',
  async (t) => {
    const scan = async (uid: number, net: string): Promise<number> => {
      const before = (await lab.counters()).drops.destinations
      const script = `
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for host in range(1, 201):
  try: s.sendto(b"x", ("198.18.${net}.%d" % host, 9))
  except OSError: pass
`
      await as(uid, script)
      return (await lab.counters()).drops.destinations - before
    }
    const [byPolicy, ofOther] = [await scan(FIRST, '210'), await scan(OTHER, '211')]
    await attach('watch', FIRST, { shaping: { destinationsPerMinute: 40 } })
    await attach('more', OTHER, { shaping: { destinationsPerMinute: 40 } })
    const byLease = await scan(OTHER, '212')
    const dropped = await lab.ask<Record<string, number>>({ op: 'dropped', id: 'more' })
    await lab.nft('flush chain inet slicenet user_destinations')
    const uncut = await scan(OTHER, '213')
    t.log({ byPolicy, ofOther, byLease, uncut })
    // A quarter of a minute's worth may come at once.
    t.true(byPolicy >= 40 && byPolicy <= 51)
    t.is(ofOther, 0)
    t.true(byLease >= 185 && byLease <= 191)
    t.is(dropped.destinations, byLease)
    t.is(uncut, 0)
    await lab.ask({ op: 'detach', id: 'more' })
    await lab.killNode()
    await lab.startNode()
    await attach()
  }
)

const ways: Readonly<Record<string, string>> = {
  plainly: '',
  'past the queue': 's.setsockopt(263, 20, 1)',
  'with the priority of its class': 's.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 0x51ce0019)',
  'with a mark': 's.setsockopt(socket.SOL_SOCKET, 36, 7)'
}
for (const [name, options] of Object.entries(ways)) {
  test.serial(`a frame that it makes below IP goes nowhere, sent ${name}`, async (t) => {
    await lab.world.ask({ op: 'take', wait: 0 })
    const before = (await lab.counters()).injected
    await as(FIRST, sendFrame('up0', 7001, options))
    t.is(await arrived({ dport: 7001 }), 0)
    t.is((await lab.counters()).injected, before + 1)
    await as(OTHER, sendFrame('up0', 7002, options))
    t.is(await arrived({ dport: 7002 }), 1, 'of somebody else it arrives')
  })
}

test.serial('nor does it on the loopback device or to a vserver, whose link may be younger', async (t) => {
  const vserver = await lab.vserver('young', [udp(9000)])
  const device = /^\d+: (sl\d+)@/m.exec(await lab.onNode(['ip', '-o', 'link']))?.[1] ?? ''
  const seen = async (port: number): Promise<number> =>
    (await vserver.probe.ask<Seen[]>({ op: 'take', match: { dport: port }, least: 1, wait: 0.4 })).length
  await as(FIRST, sendFrame(device, 7003, ''))
  t.is(await seen(7003), 0)
  await as(OTHER, sendFrame(device, 7004, ''))
  t.is(await seen(7004), 1)
  const before = (await lab.counters()).injected
  await as(FIRST, sendFrame('lo', 7005, ''))
  t.is((await lab.counters()).injected, before + 1)
})

test.serial(
  'it sends from no port that another owns, and to no range that vservers may not reach',
  async (t) => {
    const sends = async (uid: number, sport: number): Promise<number> => {
      await as(uid, sendUdp(lab.worldAddress, 7006, sport))
      return arrived({ dport: 7006, sport })
    }
    t.is(await sends(FIRST, 9000), 0, 'the port of the vserver')
    t.is(await sends(FIRST, 9001), 1)
    const denied = async (uid: number): Promise<string> => as(uid, sendUdp('169.254.169.254', 80))
    const before = (await lab.counters()).drops.denied
    t.is(await denied(FIRST), '1')
    t.is((await lab.counters()).drops.denied, before + 1)
    await denied(OTHER)
    t.is((await lab.counters()).drops.denied, before + 1, 'of somebody else it is no matter of ours')
    await lab.ask({ op: 'detach', id: 'young' })
  }
)

test.serial(
  'it sends under no address but the node’s own, though CAP_NET_RAW lets it bind to any',
  async (t) => {
    const script = `
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_IP, 19, 1)
s.bind(("203.0.113.9", 0))
try: s.sendto(b"forged", ("${lab.worldAddress}", 7010)); print("sent")
except OSError as e: print(e.errno)
`
    const before = (await lab.counters()).drops.forged
    t.is(await as(FIRST, script), '1')
    t.is((await lab.counters()).drops.forged, before + 1)
    t.is(await as(OTHER, script), 'sent', 'somebody else does')
    t.is((await lab.counters()).drops.forged, before + 1)
  }
)

test.serial('what was dropped of it is counted for it, whichever of its users sent it', async (t) => {
  const before = await lab.ask<Record<string, number>>({ op: 'dropped', id: 'watch' })
  t.true((before['injected'] ?? 0) >= Object.keys(ways).length)
  t.is(before['denied'], 1)
  t.is(before['forged'], 1)
  await as(FIRST + 500, sendUdp('169.254.169.254', 80))
  await as(OTHER, sendUdp('169.254.169.254', 80))
  t.deepEqual(await lab.ask({ op: 'dropped', id: 'watch' }), { ...before, denied: 2 })
})

test.serial('of IPv6 it reaches the internet alone, under the node’s own address', async (t) => {
  await lab.onNode(['ip', '-6', 'addr', 'add', '2001:db8::1/64', 'dev', 'up0', 'nodad'])
  const targets = ['fd00::9', '2001:db8::9', '2001:db8:9::9', '2001::9', '2002::9', '3fff::9', '2a0f::9']
  for (const to of targets) {
    await lab.onNode(['ip', '-6', 'neigh', 'replace', to, 'lladdr', '02:00:00:00:00:09', 'dev', 'up0'])
    await lab.onNode(['ip', '-6', 'route', 'replace', `${to}/128`, 'dev', 'up0'])
  }
  const send = (to: string, from = '::'): string => `
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(41, 75, 1)
s.bind(("${from}", 0))
try: s.sendto(b"x", ("${to}", 7011)); print("sent")
except OSError as e: print(e.errno)
`
  const sent = async (uid: number): Promise<readonly string[]> => {
    const all = await Promise.all(targets.map(async (to) => as(uid, send(to))))
    return targets.filter((_, at) => all[at] === 'sent')
  }
  const before = await lab.ask<Record<string, number>>({ op: 'dropped', id: 'watch' })
  t.deepEqual(await sent(FIRST), ['2a0f::9'])
  t.deepEqual(await sent(OTHER), targets)
  t.is(await as(FIRST, send('2a0f::9', '2001:db8::77')), '1')
  // What is dropped in the moment in which the table is made anew, as for a new device, is not counted.
  const isCounted = async (): Promise<boolean> => {
    await as(FIRST, send('fd00::9'))
    await as(FIRST, send('2a0f::9', '2001:db8::77'))
    const now = await lab.ask<Record<string, number>>({ op: 'dropped', id: 'watch' })
    return ['denied', 'forged'].every((reason) => now[reason]! > before[reason]!)
  }
  t.true(await until(isCounted))
  t.is(await as(OTHER, send('2a0f::9', '2001:db8::77')), 'sent')
  // The node's tables follow what it has.
  await lab.onNode(['ip', '-6', 'addr', 'del', '2001:db8::1/64', 'dev', 'up0'])
})

test.serial('it reaches a vserver by the ports that this owns, and by no other way', async (t) => {
  const { probe, address } = await lab.vserver('inner', [udp(9010)])
  const seen = async (dport: number): Promise<number> =>
    (await probe.ask<Seen[]>({ op: 'take', match: { dport }, least: 1, wait: 0.4 })).length
  t.is(await as(FIRST, sendUdp(lab.nodeAddress, 9010)), '')
  t.is(await seen(9010), 1)
  const before = (await lab.counters()).drops.device
  t.is(await as(FIRST, sendUdp(address, 7020)), '1')
  t.is((await lab.counters()).drops.device, before + 1)
  t.is(await seen(7020), 0)
  t.is(await as(OTHER, sendUdp(address, 7021)), '', 'somebody else may, as the node itself')
  t.is(await seen(7021), 1)
  await lab.ask({ op: 'detach', id: 'inner' })
})

test.serial('a device that is made again under its name is looked after as well', async (t) => {
  const make = async (): Promise<void> => {
    await lab.onNode(['ip', 'link', 'add', 'again0', 'type', 'veth', 'peer', 'name', 'again1'])
    await lab.onNode(['ip', 'link', 'set', 'again0', 'up'])
  }
  const rules = async (): Promise<string> => lab.onNode(['nft', 'list', 'table', 'netdev', 'slicenet_users'])
  await make()
  while (!(await rules()).includes('"again0"')) await new Promise((resolve) => setTimeout(resolve, 100))
  await lab.onNode(['ip', 'link', 'del', 'again0'])
  await make()
  while (!(await rules()).includes('"again0"')) await new Promise((resolve) => setTimeout(resolve, 100))
  const before = (await lab.counters()).injected
  await as(FIRST, sendFrame('again0', 7013, ''))
  t.is((await lab.counters()).injected, before + 1)
  await lab.onNode(['ip', 'link', 'del', 'again0'])
})

test.serial('a device that comes later is looked after within moments', async (t) => {
  await lab.onNode(['ip', 'link', 'add', 'late0', 'type', 'veth', 'peer', 'name', 'late1'])
  await lab.onNode(['ip', 'link', 'set', 'late0', 'up'])
  const rules = async (): Promise<string> => lab.onNode(['nft', 'list', 'table', 'netdev', 'slicenet_users'])
  while (!(await rules()).includes('"late0"')) await new Promise((resolve) => setTimeout(resolve, 100))
  const before = (await lab.counters()).injected
  await as(FIRST, sendFrame('late0', 7012, ''))
  t.is((await lab.counters()).injected, before + 1)
  await lab.onNode(['ip', 'link', 'delete', 'late0'])
})

test.serial('it sees the frames of another host on the uplink', async (t) => {
  const seen = as(
    FIRST,
    `
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0x0300)
s.bind(("up0", 3))
s.settimeout(20)
while True:
  frame = s.recv(2000)
  if frame[9] == 17 and frame[22:24] == struct.pack("!H", 7007): print(socket.inet_ntoa(frame[12:16])); break
`
  )
  // It may begin to look after the first were sent.
  const done = new AbortController()
  void seen.finally(() => done.abort()).catch(() => {})
  while (!done.signal.aborted) {
    await lab.world.ask({ op: 'ask', host: lab.nodeAddress, port: 7007, timeout: 0.2 })
  }
  t.is(await seen, lab.worldAddress)
})

test.serial('it is found again after the daemon was killed, and others come and go beside it', async (t) => {
  const before = await kernelState()
  const own = await egress()
  const { injected: _, ...drops } = await lab.ask<Record<string, number>>({ op: 'dropped', id: 'watch' })
  await lab.killNode()
  await as(FIRST, sendFrame('up0', 7008, ''))
  t.is(await arrived({ dport: 7008 }), 0, 'nor meanwhile')
  await lab.startNode()
  t.deepEqual(await lab.ask({ op: 'list' }), ['watch'])
  t.is(await kernelState(), before)
  t.true((await egress()) >= own)
  t.like(await lab.ask({ op: 'dropped', id: 'watch' }), drops)
  await Promise.all([attach('second', FIRST + 65_536), attach('third', FIRST + 2 * 65_536)])
  await lab.ask({ op: 'detach', id: 'second' })
  const sent = (await lab.counters()).injected
  for (const first of [FIRST, FIRST + 65_536, FIRST + 2 * 65_536]) await as(first, sendFrame('up0', 7009, ''))
  t.is((await lab.counters()).injected, sent + 2, 'of the one that was taken away it is not')
  await lab.ask({ op: 'detach', id: 'third' })
})

/** Whether each of the node's tables looks at what the node itself sends. */
async function looks(): Promise<boolean[]> {
  const tables = await Promise.all(
    ['ip', 'inet'].map(async (family) => lab.onNode(['nft', 'list', 'table', family, 'slicenet']))
  )
  return tables.map((table) => table.includes('chain from_node {'))
}

test.serial('while there is one, and no longer, rules look at what the node itself sends', async (t) => {
  t.deepEqual(await looks(), [true, true])
  await lab.ask({ op: 'detach', id: 'watch' })
  t.deepEqual(await looks(), [false, false])
  await lab.killNode()
  await lab.startNode()
  t.deepEqual(await looks(), [false, false])
  await attach('second', FIRST + 65_536)
  await attach()
  await lab.ask({ op: 'detach', id: 'second' })
  t.deepEqual(await looks(), [true, true])
  await lab.killNode()
  await lab.startNode()
  t.deepEqual(await looks(), [true, true])
})

test.serial('on an uplink that is made again it sends nothing until that is shaped', async (t) => {
  await lab.killNode()
  await lab.removeUplink()
  await lab.makeUplink(lab.nodeAddress)
  t.is(await as(FIRST, sendUdp(lab.worldAddress, 7020)), '1')
  t.is(await as(OTHER, sendUdp(lab.worldAddress, 7020)), '')
  // Nor does it answer.
  const answer = async (uid: number, port: number): Promise<string> => {
    const answering = as(
      uid,
      `
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", ${port}))
s.settimeout(10)
try: s.sendto(b"x", s.recvfrom(100)[1]); print("sent")
except OSError as e: print(e.errno)
`
    )
    const asking = { op: 'ask', host: lab.nodeAddress, port, timeout: 0.2 }
    // The program may not listen yet.
    for (;;) {
      const [said] = await Promise.all([
        Promise.race([answering, delay(250).then(() => undefined)]),
        lab.world.ask(asking)
      ])
      if (said !== undefined) return said
    }
  }
  t.is(await answer(FIRST, 7031), '1')
  t.is(await answer(OTHER, 7032), 'sent')
  await lab.startNode()
  t.is(await answer(FIRST, 7033), 'sent')
  t.is(await as(FIRST, sendUdp(lab.worldAddress, 7020)), '')
})

test.serial('a detached one leaves nothing', async (t) => {
  await lab.ask({ op: 'detach', id: 'watch' })
  await lab.ask({ op: 'detach', id: 'watch' })
  t.deepEqual(await lab.ask({ op: 'list' }), [])
  t.is(await kernelState(), pristine)
  await lab.ask({ op: 'remove' })
  t.is((await lab.onNode(['nft', 'list', 'ruleset'])).trim(), '')
})
