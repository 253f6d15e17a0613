/** The address that a lease names, by commands on a devnet, while the address of its node's uplink changes. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import anyTest, { type TestFn } from 'ava'
import { run } from '../../src/base/host-program.ts'
import { runCommand, type Outcome } from './command-line.ts'

const test = (anyTest as TestFn<undefined>).serial

const NAME = 'ladr'
let home = ''

const slicenet = async (...words: string[]): Promise<Outcome> => runCommand(words, { home })
const asResearcher = async (...words: string[]): Promise<Outcome> =>
  slicenet('devnet', 'exec', '--name', NAME, 'researcher', '--', 'slicenet', ...words)
const onNode = async (...words: string[]): Promise<string> =>
  run('ip', ['-n', `slicenet-${NAME}-node1`, ...words])

async function addressOf(slice: string): Promise<string> {
  const { stdout, stderr } = await asResearcher('slice', 'show', slice, '--json')
  const [member] = (JSON.parse(stdout) as { slice: { members: { address: string }[] } }).slice.members
  return member?.address ?? stderr
}

async function create(slice: string): Promise<Outcome> {
  const resources = 'resources: { cpu: 100m, memory: 64MiB, disk: 32MiB, pids: 32 }\n'
  await writeFile(join(home, `${slice}.yaml`), `name: ${slice}\nimage: busybox\nlease: 10m\n${resources}`)
  return asResearcher('slice', 'create', join(home, `${slice}.yaml`))
}

test.before(async (t) => {
  t.timeout(300_000)
  home = await mkdtemp(join(tmpdir(), 'sn-'))
  const built = await slicenet('image', 'build', 'busybox')
  t.is(built.exitCode, 0, built.stderr)
  const up = await slicenet('devnet', 'up', '--name', NAME, '--nodes', '1', '--agents', '1')
  t.is(up.exitCode, 0, up.stderr)
})

test.after.always(async (t) => {
  const down = await slicenet('devnet', 'down', '--name', NAME)
  t.is(down.exitCode, 0, down.stderr)
  await rm(home, { recursive: true, force: true })
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
