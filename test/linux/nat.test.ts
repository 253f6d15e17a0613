import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import anyTest, { type TestFn } from 'ava'
import { run } from '../../src/base/host-program.ts'
import type { Lan } from '../../src/daemon/devnet-lan.ts'
import { devnetLeftovers } from '../../src/daemon/devnet-leftovers.ts'
import { createDevnetNetwork, type DevnetNetwork } from '../../src/daemon/devnet-network.ts'
import type { PeerHostInit } from '../../src/peer/host.ts'
import { DEFAULT_REACH } from '../../src/peer/reach.ts'
import type { PeerRequest } from './fixtures/peer-process.ts'
import { LineProgram } from './net/lab.ts'
import { runCommand, type Outcome } from './command-line.ts'
import { ownHome, ownName } from './own-names.ts'

/**
 * A node and a researcher behind NATs of their own, beside a public agent, node and researcher: real daemons, vservers and
 * masquerading. They share one devnet, in order.
 */
const test = (anyTest as TestFn<undefined>).serial

const PEER_PROCESS = fileURLToPath(new URL('fixtures/peer-process.ts', import.meta.url))
const NAME = ownName('nat')
let home = ''

interface HostView {
  readonly name: string
  readonly principal: string
  readonly address: string
}

interface PingDocument {
  readonly ping?: { readonly relayed: boolean; readonly address: string; readonly rttMicros: number[] }
  readonly error?: { readonly code: string }
}

async function slicenet(words: readonly string[], variables: Record<string, string> = {}): Promise<Outcome> {
  return runCommand(words, { home, variables })
}

const on = (host: string, words: readonly string[]): Promise<Outcome> =>
  slicenet(['devnet', 'exec', '--name', NAME, host, '--', ...words])

async function hosts(): Promise<Record<string, HostView>> {
  const { stdout } = await slicenet(['devnet', 'status', '--name', NAME, '--json'])
  const { devnet } = JSON.parse(stdout) as { devnet: { hosts: HostView[] } }
  return Object.fromEntries(devnet.hosts.map((host) => [host.name, host]))
}

async function pingFrom(
  host: string,
  peer: string,
  ...before: string[]
): Promise<PingDocument & { exitCode: number }> {
  const { exitCode, stdout } = await on(host, [...before, 'slicenet', 'ping', peer, '--count', '3', '--json'])
  return { exitCode, ...(JSON.parse(stdout) as PingDocument) }
}

async function addressesOf(host: string): Promise<string[]> {
  const { stdout } = await on(host, ['slicenet', 'status', '--json'])
  return (JSON.parse(stdout) as { status: { multiaddrs: string[] } }).status.multiaddrs
}

test.before(async (t) => {
  t.timeout(180_000)
  home = await ownHome('nat')
  const image = await slicenet(['image', 'build', 'busybox'])
  t.is(image.exitCode, 0, image.stderr)
  const up = await slicenet(['devnet', 'up', '--name', NAME, '--nodes', '1', '--agents', '1', '--nat'])
  t.is(up.exitCode, 0, up.stderr)
})

test.after.always(async () => {
  await slicenet(['devnet', 'down', '--name', NAME])
  await rm(home, { recursive: true, force: true })
})

test('peers behind NATs tell of their relay only, and public ones of themselves', async (t) => {
  const { 'agent-a': agent, node1, 'nat-node': node } = await hosts()
  const through = `/ip4/${agent?.address}/tcp/4001/p2p/${agent?.principal}/p2p-circuit/p2p/${node?.principal}`
  const addresses = await addressesOf('nat-node')
  t.true(addresses.includes(through), addresses.join(' '))
  t.true(addresses.every((address) => address.includes('/p2p-circuit/')))
  t.true((await addressesOf('nat-researcher')).every((address) => address.includes('/p2p-circuit/')))
  t.deepEqual(await addressesOf('node1'), [`/ip4/${node1?.address}/tcp/4001/p2p/${node1?.principal}`])
})

test('a node behind a NAT is reached through a relay, and without one at none of its addresses', async (t) => {
  const { 'nat-node': node } = await hosts()
  const [relayed = ''] = await addressesOf('nat-node')
  const named = await pingFrom('nat-researcher', 'nat-node')
  t.is(named.exitCode, 0)
  t.like(named.ping, { relayed: true })
  // A peer of its own that knows nothing but what it is given.
  const stranger = (name: string): string[] => ['env', `SLICENET_HOME=${join(home, name)}`]
  t.is((await pingFrom('nat-researcher', relayed, ...stranger('one'))).exitCode, 0)
  // Where it listens, and the address that its NAT has on the outside, after those of three public hosts. Neither answers, so
  // both are waited for together.
  const directly = [node?.address, '198.18.4.2'].map((ip) => `/ip4/${ip}/tcp/4001/p2p/${node?.principal}`)
  const refused = await Promise.all(
    directly.map(async (address, index) => pingFrom('nat-researcher', address, ...stranger(`other${index}`)))
  )
  for (const [index, { error, exitCode }] of refused.entries()) {
    t.is(error?.code, 'PEER_UNREACHABLE', directly[index])
    t.is(exitCode, 6)
  }
})

test('a relayed connection becomes direct where one of both is public', async (t) => {
  const { exitCode, ping } = await pingFrom('researcher', 'nat-node')
  t.is(exitCode, 0)
  t.like(ping, { relayed: false })
  const table = (await on('nat-node', ['slicenet', 'peers'])).stdout
  t.regex(table, / out +direct /)
})

test('a researcher behind a NAT makes, uses, renews and ends a slice of a public node and one behind another NAT', async (t) => {
  t.is((await pingFrom('nat-researcher', 'node1')).ping?.relayed, false)
  const file = join(home, 'through.yaml')
  await writeFile(
    file,
    'name: through\nimage: busybox\ncount: 2\nlease: 10m\nprogram: { argv: [sh, -c, "echo here; sleep 600"] }\nresources: { cpu: 100m, memory: 32MiB, disk: 32MiB, egress: 500kbps, egressPerDay: 1GiB, pids: 32 }\n'
  )
  const made = await on('nat-researcher', ['slicenet', 'slice', 'create', file, '--json'])
  t.is(made.exitCode, 0, made.stdout)
  const { slice } = JSON.parse(made.stdout) as { slice: { members: { nodeName: string }[] } }
  t.deepEqual(slice.members.map(({ nodeName }) => nodeName).sort(), ['nat-node', 'node1'])
  for (const member of ['node1', 'nat-node']) {
    const words = ['slicenet', 'slice', 'exec', 'through', '--member', member, '--']
    const ran = await on('nat-researcher', [...words, 'sh', '-c', 'echo in a vserver; exit 7'])
    t.is(ran.exitCode, 7, ran.stderr)
    t.is(ran.stdout, 'in a vserver\n')
    const megabyte = await on('nat-researcher', [...words, 'head', '-c', '1000000', '/dev/zero'])
    t.is(megabyte.stdout.length, 1_000_000, megabyte.stderr)
  }
  t.like((await pingFrom('nat-researcher', 'nat-node')).ping, { relayed: true }, 'still through the relay')
  const renewed = await on('nat-researcher', ['slicenet', 'slice', 'renew', 'through', '--for', '30m'])
  t.is(renewed.exitCode, 0, renewed.stderr)
  const deleted = await on('nat-researcher', ['slicenet', 'slice', 'delete', 'through'])
  t.is(deleted.exitCode, 0, deleted.stderr)
})

test('taking the devnet down leaves nothing, NATs and LANs included', async (t) => {
  const down = await slicenet(['devnet', 'down', '--name', NAME])
  t.is(down.exitCode, 0, down.stderr)
  t.deepEqual(await devnetLeftovers(NAME, { directories: [join(home, 'devnet', NAME)] }), [])
})

interface PeerProcess {
  readonly principal: string
  readonly ask: <T>(request: PeerRequest) => Promise<T>
}

interface NetworkOfPeers {
  readonly network: DevnetNetwork
  readonly name: string
  readonly peer: (host: string, init: Partial<PeerHostInit>) => Promise<PeerProcess>
}

/** Peers without roles on hosts of a network of their own, for as long as the work takes. */
async function withPeers(
  hosts: readonly string[],
  lans: readonly Lan[],
  work: (peers: NetworkOfPeers) => Promise<void>
): Promise<void> {
  const name = ownName('lan')
  const network = createDevnetNetwork({ name, hosts, lans })
  const programs: LineProgram[] = []
  await network.up()
  try {
    await work({
      network,
      name,
      async peer(host, init) {
        const program = new LineProgram([
          ...network.enter(host),
          process.execPath,
          PEER_PROCESS,
          JSON.stringify(init)
        ])
        programs.push(program)
        const principal = await program.answer<string>()
        return { principal, ask: async (request) => program.ask(request) }
      }
    })
  } finally {
    await Promise.all(programs.map(async (program) => program.end()))
    await network.down()
  }
}

/** Asks until the answer is as wanted, a bounded number of times. */
async function eventually<T>(
  ask: () => Promise<T>,
  isWanted: (answer: T) => boolean,
  tries = 200
): Promise<T> {
  let answer = await ask()
  for (let count = 0; count < tries && !isWanted(answer); count++) {
    await delay(150)
    answer = await ask()
  }
  return answer
}

const LAN = { gateway: 'gateway', hosts: ['one', 'two'] }

test('peers on one LAN find each other by multicast without a bootstrap peer, and not when it is off', async (t) => {
  for (const mdns of [true, false]) {
    await withPeers([], [LAN], async ({ peer }) => {
      const peers = await Promise.all(
        LAN.hosts.map(async (host) => peer(host, { reach: { ...DEFAULT_REACH, mdns } }))
      )
      const connected = await Promise.all(
        peers.map(async ({ ask }) =>
          eventually(
            async () => ask<string[]>({ op: 'connected' }),
            (others) => others.length > 0,
            mdns ? 200 : 50
          )
        )
      )
      const expected = mdns ? peers.map(({ principal }) => [principal]).toReversed() : [[], []]
      t.deepEqual(connected, expected)
    })
  }
})

/** Gives a host an address of the Internet's: DCUtR passes over those that the devnet is made of. */
async function makeGlobal(
  name: string,
  network: DevnetNetwork,
  host: string,
  index: number
): Promise<string> {
  const address = `11.0.0.${index + 1}`
  const [program = '', ...enter] = network.enter(host)
  const router = network.address(host).replace(/\d+$/, '1')
  await run(program, [...enter, 'ip', 'address', 'add', `${address}/32`, 'dev', 'up0'])
  const route = ['ip', 'route', 'replace', 'default', 'via', router, 'dev', 'up0', 'src', address]
  await run(program, [...enter, ...route])
  const back = ['ip', 'route', 'add', address, 'via', network.address(host)]
  await run('nsenter', [`--net=/run/netns/slicenet-${name}-router`, ...back])
  return address
}

test('DCUtR makes a relayed connection direct for addresses of the Internet, and not between two behind NATs', async (t) => {
  const lans = [
    { gateway: 'gateway1', hosts: ['hidden1'] },
    { gateway: 'gateway2', hosts: ['hidden2'] }
  ]
  const hosts = ['relay', 'public']
  await withPeers(hosts, lans, async ({ network, name, peer }) => {
    const [at, other] = await Promise.all(
      hosts.map(async (host, index) => makeGlobal(name, network, host, index))
    )
    const relay = await peer('relay', { listen: [`/ip4/${at}/tcp/4001`] })
    const bootstrap = [`/ip4/${at}/tcp/4001/p2p/${relay.principal}`]
    const [hidden, hiddenToo, seen] = await Promise.all([
      peer('hidden1', { bootstrap }),
      peer('hidden2', { bootstrap, reach: { ...DEFAULT_REACH, reserve: 'never' } }),
      peer('public', { bootstrap, listen: [`/ip4/${other}/tcp/4001`] })
    ])
    const relayed = `${bootstrap[0]}/p2p-circuit/p2p/${hidden.principal}`
    const told = await eventually(
      async () => hidden.ask<string[]>({ op: 'addresses' }),
      (addresses) => addresses.includes(relayed)
    )
    t.true(told.includes(relayed), told.join(' '))
    const ping = { op: 'ping', address: relayed } as const
    t.is((await seen.ask<boolean[]>(ping)).at(-1), false, 'direct in the end')
    t.deepEqual(await hiddenToo.ask<boolean[]>(ping), [true], 'relayed, and it stays so')
  })
})
