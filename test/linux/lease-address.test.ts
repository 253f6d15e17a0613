/** The addresses that a lease and a node's adverts name, by commands on a devnet, while those of the node's uplink change. */
import { setTimeout as delay } from 'node:timers/promises'
import anyTest, { type TestFn } from 'ava'
import { run } from '../../src/base/host-program.ts'
import type { Outcome } from './command-line.ts'
import { until } from './net/until.ts'
import { SmallDevnet } from './small-devnet.ts'

const test = (anyTest as TestFn<undefined>).serial

const devnet = new SmallDevnet({ letters: 'ladr' })

const asResearcher = async (...words: string[]): Promise<Outcome> => devnet.on('researcher', ...words)
const onNode = async (...words: string[]): Promise<string> =>
  run('ip', ['-n', `slicenet-${devnet.name}-node1`, ...words])

async function addressOf(slice: string): Promise<string> {
  const { stdout, stderr } = await asResearcher('slice', 'show', slice, '--json')
  const [member] = (JSON.parse(stdout) as { slice: { members: { address: string }[] } }).slice.members
  return member?.address ?? stderr
}

/** What the node's adverts say that vservers are reached by over IPv6. */
async function advertised6(): Promise<string | number | undefined> {
  const { stdout } = await asResearcher('find', '--json')
  const [node] = (JSON.parse(stdout) as { nodes: { attributes: Record<string, string | number> }[] }).nodes
  return node?.attributes.address6
}

async function create(slice: string): Promise<Outcome> {
  return asResearcher('slice', 'create', await devnet.sliceFile(slice, 'busybox'))
}

test.before(async (t) => {
  t.timeout(300_000)
  await devnet.up()
})

test.after.always(async (t) => {
  const down = await devnet.down()
  t.is(down.exitCode, 0, down.stderr)
})

test('leases name the uplink’s address as it is, without a restart, and one that runs goes on', async (t) => {
  t.timeout(300_000)
  const first = await create('first')
  t.is(first.exitCode, 0, first.stderr)
  const before = await addressOf('first')
  const shown = JSON.parse(await onNode('-j', 'addr', 'show', 'dev', 'up0')) as {
    addr_info: { local: string }[]
  }[]
  t.is(before, shown[0]?.addr_info[0]?.local ?? '')
  const [after, gateway] = [before.replace(/\d+$/, '6'), before.replace(/\d+$/, '1')]
  // The daemon is still reached by the one before, which comes second now.
  await onNode('addr', 'del', `${before}/24`, 'dev', 'up0')
  await onNode('addr', 'add', `${after}/24`, 'dev', 'up0')
  await onNode('addr', 'add', `${before}/24`, 'dev', 'up0')
  await onNode('route', 'add', 'default', 'via', gateway, 'dev', 'up0')
  // It looks every second.
  await delay(3000)
  t.is(await addressOf('first'), before, 'what was signed stays as it is')
  const second = await create('second')
  t.is(second.exitCode, 0, second.stderr)
  t.is(await addressOf('second'), after)
  const renewed = await asResearcher('slice', 'renew', 'first')
  t.is(renewed.exitCode, 0, renewed.stderr)
  t.is(await addressOf('first'), after)
})

test('adverts name the uplink’s IPv6 address as it is, without a restart', async (t) => {
  t.timeout(300_000)
  t.is(await advertised6(), undefined)
  for (const address of ['2001:db8:77::6', '2001:db8:77::7']) {
    await onNode('addr', 'add', `${address}/64`, 'dev', 'up0', 'nodad')
    t.true(await until(async () => (await advertised6()) === address))
    await onNode('addr', 'del', `${address}/64`, 'dev', 'up0')
    t.true(await until(async () => (await advertised6()) === undefined))
  }
})

test('a node whose uplink is away warns of it until it is back', async (t) => {
  t.timeout(300_000)
  const warnings = async (): Promise<readonly string[]> => {
    const { stdout } = await devnet.on('node1', 'status', '--json')
    const { status } = JSON.parse(stdout) as { status: { warnings: string[] } }
    return status.warnings.filter((warning) => warning.startsWith('the uplink up0 is not used: '))
  }
  t.deepEqual(await warnings(), [])
  const shown = JSON.parse(await onNode('-j', '-4', 'addr', 'show', 'dev', 'up0')) as {
    addr_info: { local: string }[]
  }[]
  const addresses = shown[0]?.addr_info.map(({ local }) => local) ?? []
  await onNode('-4', 'addr', 'flush', 'dev', 'up0')
  t.true(await until(async () => (await warnings()).length === 1))
  for (const address of addresses) await onNode('addr', 'add', `${address}/24`, 'dev', 'up0')
  const gateway = addresses[0]?.replace(/\d+$/, '1') ?? ''
  await onNode('route', 'add', 'default', 'via', gateway, 'dev', 'up0')
  t.true(await until(async () => (await warnings()).length === 0))
})
