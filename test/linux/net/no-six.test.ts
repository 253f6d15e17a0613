/** A node whose kernel has no tables of IPv6: what is of IPv4 holds all the same. */
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import type { Flow } from '../../../src/enforce/network/flow.ts'
import { Lab, tcp, udp, type Vserver } from './lab.ts'
import { FIRST_PLACE, NftInPlace } from './nft-in-place.ts'

const FIN = 1
const lab = new Lab({ letter: 'y' })
let place: NftInPlace
let one: Vserver

/** Refuses what such a kernel does; lets that pass, or fails at the probe, where it is told so. */
const WITHOUT_SIX = `
if [ -e ${FIRST_PLACE}/busy ] && printf '%s' "$input" | grep -q slicenet_probe; then
  echo 'Error: Could not process rule: Device or resource busy' >&2
  exit 1
fi
if [ ! -e ${FIRST_PLACE}/with-six ] && printf '%s %s' "$*" "$input" | grep -Eq '(table|chain|rule|set|map|counter|element) ip6 '; then
  echo 'Error: Could not process rule: Operation not supported' >&2
  exit 1
fi`

test.before(async () => {
  place = await NftInPlace.make(WITHOUT_SIX)
  await lab.up()
  await lab.killNode()
  await lab.world.ask({ op: 'answer', port: 7000 })
})
test.after.always(async () => {
  await lab.down()
  await place.remove()
})

test.serial('a transaction with a table of IPv6 in it fails there', async (t) => {
  const apply = async (lines: string): Promise<string> =>
    lab.onNode([...place.through, `${FIRST_PLACE}/nft`, '-f', '-'], lines)
  const four = 'add table ip probe; delete table ip probe'
  await t.throwsAsync(apply(`${four}; add table ip6 probe`), { message: /not supported/ })
  await t.notThrowsAsync(apply(four))
})

test.serial('the node’s network comes up, and vservers have IPv4', async (t) => {
  await lab.startNode({ nodeAddress6: 'none' }, place.through)
  one = await lab.vserver('one', [tcp(9090), udp(9090)])
  const ask = { op: 'ask', host: lab.worldAddress, port: 7000, sport: 9090 }
  t.is(await one.probe.ask(ask), `${lab.nodeAddress}:9090`)
})

test.serial('flows are noted, outside of connections too', async (t) => {
  await lab.ask({ op: 'watchFlows' })
  // What was begun before is not counted.
  await one.probe.ask({ op: 'ask', host: lab.worldAddress, port: 7000, sport: 9091 })
  const packet = { op: 'send', proto: 'tcp', src: one.address, dst: lab.worldAddress }
  await one.probe.ask({ ...packet, sport: 9090, dport: 81, flags: FIN })
  const seen = new Set<string>()
  for (let round = 0; round < 50 && seen.size < 2; round++) {
    for (const { protocol, isTracked } of await lab.ask<Flow[]>({ op: 'takeFlows', all: true }))
      seen.add(`${protocol} ${isTracked}`)
    await delay(100)
  }
  t.deepEqual([...seen].sort(), ['tcp false', 'udp true'])
})

test.serial('a vserver’s traffic ends at its time', async (t) => {
  const ask = { op: 'ask', host: lab.worldAddress, port: 7000, sport: 9090 }
  await lab.ask({ op: 'setEnds', ends: [[one.address, Date.now() - 2000]] })
  t.is(await one.probe.ask(ask), 'timeout')
  await lab.ask({ op: 'setEnds', ends: [[one.address, Date.now() + 3_600_000]] })
  t.is(await one.probe.ask(ask), `${lab.nodeAddress}:9090`)
})

test.serial('a vserver that shares the node’s network has IPv4, and sends nothing over IPv6', async (t) => {
  const firstId = 11 * 65_536
  const neighbour = '2001:db8:9::2'
  await lab.onNode(['ip', 'addr', 'add', '2001:db8:9::1/64', 'dev', 'up0', 'nodad'])
  const mac = '02:00:00:00:00:09'
  await lab.onNode(['ip', 'neigh', 'add', neighbour, 'lladdr', mac, 'dev', 'up0', 'nud', 'permanent'])
  await lab.nft(`table netdev spy {
    counter left {}
    chain up0 { type filter hook egress device "up0" priority 10; udp dport 7001 counter name left; }
  }`)
  const left = async (): Promise<string> =>
    /packets \d+/.exec(await lab.onNode(['nft', 'list', 'counter', 'netdev', 'spy', 'left']))?.[0] ?? ''
  const send = async (uid: number, family: 'AF_INET' | 'AF_INET6', host: string): Promise<string> =>
    lab.onNode([
      'setpriv',
      `--reuid=${uid}`,
      '--clear-groups',
      '/usr/bin/python3',
      '-c',
      `import socket; socket.socket(socket.${family}, socket.SOCK_DGRAM).sendto(b"x", ("${host}", 7001))`
    ])
  await lab.ask({ op: 'attachIds', user: { ...lab.link('watch', 0), firstId, lastId: firstId + 65_535 } })
  await send(firstId, 'AF_INET6', neighbour)
  t.is(await left(), 'packets 0')
  await send(firstId, 'AF_INET', lab.worldAddress)
  t.is(await left(), 'packets 1')
  const flows = await lab.ask<Flow[]>({ op: 'takeFlows', all: true })
  const own = flows.filter(({ vserver }) => vserver === 'watch')
  t.like(own, [{ protocol: 'udp', remoteAddress: lab.worldAddress, remotePort: 7001 }])
  // Others are none of it.
  await send(0, 'AF_INET6', neighbour)
  t.is(await left(), 'packets 2')
  // A daemon puts its rules in place once more when it looks at the devices for the first time.
  for (let round = 0; round < 5 && (await left()) === 'packets 2'; round++) {
    await lab.nft(`flush chain netdev slicenet_users on_${Buffer.from('up0').toString('hex')}`)
    await send(firstId, 'AF_INET6', neighbour)
  }
  t.is(await left(), 'packets 3', 'without the rule it leaves')
  await lab.ask({ op: 'detach', id: 'watch' })
  await lab.nft('delete table netdev spy')
})

test.serial('all of it can be taken away', async (t) => {
  await lab.ask({ op: 'detach', id: 'one' })
  await lab.ask({ op: 'remove' })
  t.is((await lab.onNode(['nft', 'list', 'ruleset'])).trim(), '')
})

test.serial('where nft fails at the probe, the kernel is not taken for one without them', async (t) => {
  await lab.killNode()
  await Promise.all(['busy', 'with-six'].map((name) => place.say(name)))
  await t.throwsAsync(lab.startNode({ nodeAddress6: 'none' }, place.through), {
    code: 'HOST_PROGRAM_FAILED',
    message: /resource busy/
  })
  await place.unsay('busy')
  // The same process asks again.
  await lab.ask({ op: 'start' })
  const firstId = 11 * 65_536
  await lab.ask({ op: 'attachIds', user: { ...lab.link('watch', 0), firstId, lastId: firstId + 65_535 } })
  t.regex(await lab.onNode(['nft', 'list', 'tables']), /^table ip6 slicenet_users$/m)
})
