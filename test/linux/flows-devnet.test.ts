/** A complaint about a slice's packets, from the slice to the answer, by commands on a devnet. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { devnetLeftovers } from '../../src/daemon/devnet-leftovers.ts'
import type { Outcome } from './command-line.ts'
import { SmallDevnet } from './small-devnet.ts'

/** They share one devnet, in order. */
const test = (anyTest as TestFn<undefined>).serial

const devnet = new SmallDevnet({ letters: 'flw' })

const on = async (host: string, ...words: string[]): Promise<Outcome> => devnet.on(host, ...words)

interface Shown {
  readonly slice?: string
  readonly lease?: string
  readonly principal?: string
  readonly vserver: string
  readonly remoteAddress: string
  readonly remotePort: number
  readonly localPort: number
}

const documentsOf = ({ stdout }: Outcome): Record<string, unknown>[] =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)

test.before(async (t) => {
  t.timeout(180_000)
  await devnet.up()
  const shaping = 'shaping: { icmp: 64kbps, destinationsPerMinute: 30, egressShare: 3 }\n'
  const file = await devnet.sliceFile('noisy', 'busybox', shaping)
  const created = await on('researcher', 'slice', 'create', file)
  t.is(created.exitCode, 0, created.stderr)
})

test.after.always(async () => devnet.down())

test('a complaint is answered with the slice, the lease and the holder, and all of it is as it was signed', async (t) => {
  t.timeout(120_000)
  const status = await on('agent-a', 'status', '--json')
  const addresses = (documentsOf(status)[0] as { status: { multiaddrs: string[] } }).status.multiaddrs
  const victim = /\/ip4\/(198\.[\d.]+)/.exec(addresses.join(' '))?.[1] ?? ''
  t.not(victim, '')
  const send = `echo x | nc -w 1 ${victim} 5353; true`
  const sent = await on('researcher', 'slice', 'exec', 'noisy', '--', 'sh', '-c', send)
  t.is(sent.exitCode, 0, sent.stderr)
  const question = ['node', 'whois', '--time', '5s', '--address', victim, '--port', '5353', '--json']
  const answer = await on('node1', ...question)
  t.is(answer.exitCode, 0, answer.stderr + answer.stdout)
  const [flow] = (documentsOf(answer)[0] as { flows: Shown[] }).flows
  const [lease] = (
    documentsOf(await on('node1', 'lease', 'list', '--json'))[0] as {
      leases: { lease: string; holder: string; vserver: string; shaping?: object }[]
    }
  ).leases
  t.deepEqual(lease?.shaping, { icmpBps: 64_000, destinationsPerMinute: 30, egressShare: 3 })
  // And kept to: eight times the usual turn is the most that a node of a devnet gives, and three were asked for.
  const host = ['devnet', 'exec', '--name', devnet.name, 'node1', '--']
  const classes = (await devnet.slicenet(...host, 'tc', '-d', 'class', 'show', 'dev', 'up0')).stdout
  t.regex(classes, /quantum 18168 .*\n/)
  t.regex(classes, /ceil 64Kbit/)
  t.like(flow, {
    slice: 'noisy',
    lease: lease?.lease,
    principal: lease?.holder,
    vserver: lease?.vserver,
    remoteAddress: victim,
    remotePort: 5353
  })
  const other = await on('node1', 'node', 'whois', '--time', '5s', '--address', victim, '--port', '5354')
  t.not(other.exitCode, 0)
  t.regex(other.stderr, /NOT_FOUND/)
})

test('the record is given to other programs, and verified', async (t) => {
  t.timeout(120_000)
  const lines = documentsOf(await on('node1', 'node', 'flows', '--since', '10m', '--json-lines'))
  t.true(lines.some((flow) => flow['remotePort'] === 5353 && flow['slice'] === 'noisy'))
  const file = join(devnet.home, 'flows.ipfix')
  const written = await on('node1', 'node', 'flows', '--ipfix', file, '--json')
  t.is(written.exitCode, 0, written.stderr)
  t.is((await readFile(file)).readUInt16BE(0), 10)
  const root = await on('node1', 'node', 'audit', 'root', '--sign')
  t.is(root.exitCode, 0, root.stderr)
  await writeFile(join(devnet.home, 'root'), root.stdout)
  const verified = await on('node1', 'node', 'audit', 'verify', '--root', join(devnet.home, 'root'), '--json')
  t.is(verified.exitCode, 0, verified.stdout)
  t.like(documentsOf(verified)[0], { sound: true, faults: [], unwatched: [] })
  const elsewhere = await on('researcher', 'node', 'flows')
  t.regex(elsewhere.stderr, /NOT_FOUND/)
})

test('nothing of it is left on the machine', async (t) => {
  t.timeout(120_000)
  const down = await devnet.slicenet('devnet', 'down', '--name', devnet.name)
  t.is(down.exitCode, 0, down.stderr)
  t.deepEqual(await devnetLeftovers(devnet.name), [])
})
