/** A node whose kernel has no tables of IPv6: what is of IPv4 holds all the same. */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import test from 'ava'
import type { Flow } from '../../../src/enforce/network/flow.ts'
import { Lab, tcp, udp, type Vserver } from './lab.ts'

const FIN = 1
const lab = new Lab({ letter: 'y' })
let directory = ''
let one: Vserver

/** Stands in for nft, and refuses what such a kernel does. */
const WITHOUT_SIX = `#!/bin/sh
input=$(cat)
if printf '%s %s' "$*" "$input" | grep -Eq '(table|chain|rule|set|map|counter|element) ip6 '; then
  echo 'Error: Could not process rule: Operation not supported' >&2
  exit 1
fi
printf '%s\\n' "$input" | /usr/sbin/nft "$@"
`
/** Where host programs are looked for first. */
const FIRST_PLACE = '/usr/local/sbin'

/** Runs its arguments with that nft, in a mount namespace of their own. */
const through = (): string[] => [
  'unshare',
  '--mount',
  'sh',
  '-c',
  `mount --bind ${directory} ${FIRST_PLACE} && exec "$@"`,
  'sh'
]

test.before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'slicenet-nft-'))
  await writeFile(join(directory, 'nft'), WITHOUT_SIX)
  await chmod(join(directory, 'nft'), 0o755)
  await lab.up()
  await lab.killNode()
  await lab.world.ask({ op: 'answer', port: 7000 })
})
test.after.always(async () => {
  await lab.down()
  await rm(directory, { recursive: true, force: true })
})

test.serial('a transaction with a table of IPv6 in it fails there', async (t) => {
  const apply = async (lines: string): Promise<string> =>
    lab.onNode([...through(), `${FIRST_PLACE}/nft`, '-f', '-'], lines)
  const four = 'add table ip probe; delete table ip probe'
  await t.throwsAsync(apply(`${four}; add table ip6 probe`), { message: /not supported/ })
  await t.notThrowsAsync(apply(four))
})

test.serial('the node’s network comes up, and vservers have IPv4', async (t) => {
  await lab.startNode({ nodeAddress6: 'none' }, through())
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

test.serial('all of it can be taken away', async (t) => {
  await lab.ask({ op: 'detach', id: 'one' })
  await lab.ask({ op: 'remove' })
  t.is((await lab.onNode(['nft', 'list', 'ruleset'])).trim(), '')
})
