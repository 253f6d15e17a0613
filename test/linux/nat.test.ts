import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import anyTest, { type TestFn } from 'ava'
import { start } from '../../src/base/host-program.ts'
import { devnetLeftovers } from '../../src/daemon/devnet-leftovers.ts'
import { createDevnetNetwork } from '../../src/daemon/devnet-network.ts'
import { LineProgram } from './net/lab.ts'

/**
 * A node and a researcher behind NATs of their own, beside a public agent, node and researcher: real daemons, vservers and
 * masquerading. They share one devnet, in order.
 */
const test = (anyTest as TestFn<undefined>).serial

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const LAN_PEER = fileURLToPath(new URL('fixtures/lan-peer.ts', import.meta.url))
const NAME = 'nat'
let home = ''

interface Outcome {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

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
  const env = { HOME: home, SLICENET_HOME: home, ...variables }
  const child = start(process.execPath, [MAIN, ...words], ['ignore', 'pipe', 'pipe'], { env })
  const read = async (stream: NodeJS.ReadableStream | null): Promise<string> => {
    let text = ''
    for await (const chunk of stream ?? []) text += String(chunk)
    return text
  }
  const [stdout, stderr] = await Promise.all([read(child.stdout), read(child.stderr), once(child, 'close')])
  return { exitCode: child.exitCode ?? -1, stdout, stderr }
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
  home = await mkdtemp(join(tmpdir(), 'sn-'))
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
  // Where it listens, and the address that its NAT has on the outside, after those of three public hosts.
  for (const address of [node?.address, '198.18.4.2']) {
    const direct = `/ip4/${address}/tcp/4001/p2p/${node?.principal}`
    const refused = await pingFrom('nat-researcher', direct, ...stranger('other'))
    t.is(refused.error?.code, 'PEER_UNREACHABLE', direct)
    t.is(refused.exitCode, 6)
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

/** What two peers on one LAN are connected to, with multicast or without, once they are or after a while. */
async function onLan(mdns: boolean): Promise<{ principals: string[]; connected: string[][] }> {
  const name = `l${process.pid}`
  const lan = { gateway: 'gateway', hosts: ['one', 'two'] }
  const network = createDevnetNetwork({ name, hosts: ['world'], lans: [lan] })
  await network.up()
  const programs = lan.hosts.map(
    (host) => new LineProgram([...network.enter(host), process.execPath, LAN_PEER, String(mdns)])
  )
  try {
    const principals = await Promise.all(programs.map(async (program) => program.answer<string>()))
    const connected: string[][] = [[], []]
    const following = programs.map(async (program, index) => {
      while (connected[index]?.length === 0) connected[index] = await program.answer<string[]>()
    })
    await Promise.race([Promise.all(following), delay(mdns ? 60_000 : 8000)])
    following.forEach((each) => void each.catch(() => {}))
    return { principals, connected }
  } finally {
    await Promise.all(programs.map(async (program) => program.end()))
    await network.down()
  }
}

test('peers on one LAN find each other by multicast without a bootstrap peer, and not when it is off', async (t) => {
  const { principals, connected } = await onLan(true)
  t.deepEqual(connected, [[principals[1]], [principals[0]]])
  const off = await onLan(false)
  t.deepEqual(off.connected, [[], []])
})
