import { readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import anyTest, { type TestFn } from 'ava'
import type { NodePortView } from '../../src/daemon/node-port-protocol.ts'
import { devnetLeftovers } from '../../src/daemon/devnet-leftovers.ts'
import { runCommand, type Outcome } from './command-line.ts'
import { ownHome, ownName } from './own-names.ts'

/** Tests of the whole: real daemons on hosts of a devnet, spoken to as a user would. They share one devnet, in order. */
const test = (anyTest as TestFn<undefined>).serial

const REDEEMER = fileURLToPath(new URL('fixtures/redeemer.ts', import.meta.url))
const CHEATING_AGENT = fileURLToPath(new URL('fixtures/cheating-agent.ts', import.meta.url))
const NAME = ownName('whole')
let home = ''

async function slicenet(words: readonly string[], input = ''): Promise<Outcome> {
  return runCommand(words, { home, input })
}

const on = (host: string, words: readonly string[], input?: string): Promise<Outcome> =>
  slicenet(['devnet', 'exec', '--name', NAME, host, '--', 'slicenet', ...words], input)
const asResearcher = (words: readonly string[], input?: string): Promise<Outcome> =>
  on('researcher', words, input)

/** Writes a slice file and gives its path. */
async function sliceFile(name: string, fields: string): Promise<string> {
  const path = join(home, `${name}.yaml`)
  const common = `name: ${name}\nimage: busybox\nlease: 10m\nresources: { cpu: 100m, memory: 32MiB, disk: 32MiB, egress: 500kbps, egressPerDay: 1GiB, pids: 32 }\n`
  await writeFile(path, common + fields)
  return path
}

async function membersOf(
  slice: string
): Promise<{ nodeName: string; vserver: string; state: string; notAfter: string; exitCode?: number }[]> {
  const { stdout } = await asResearcher(['slice', 'show', slice, '--json'])
  return (JSON.parse(stdout) as { slice: { members: [] } }).slice.members
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (await condition()) return
    await delay(150)
  }
  throw new Error('the condition did not come true')
}

const noLease = async (): Promise<boolean> => {
  const lists = await Promise.all(['node1', 'node2'].map((host) => on(host, ['lease', 'list', '--json'])))
  return lists.every(({ stdout }) => {
    const { leases } = JSON.parse(stdout) as { leases: { state: string }[] }
    return leases.every(({ state }) => state === 'ended' || state === 'renewed')
  })
}

test.before(async (t) => {
  t.timeout(180_000)
  home = await ownHome('whole')
  const image = await slicenet(['image', 'build', 'busybox'])
  t.is(image.exitCode, 0, image.stderr)
  const up = await slicenet([
    'devnet',
    'up',
    '--name',
    NAME,
    '--nodes',
    '2',
    '--agents',
    '2',
    '--brokers',
    '1'
  ])
  t.is(up.exitCode, 0, up.stderr)
})

test.after.always(async () => {
  await slicenet(['devnet', 'down', '--name', NAME])
  await rm(home, { recursive: true, force: true })
})

test('a slice of both nodes runs a program, and its output, its exit codes and its end show', async (t) => {
  const file = await sliceFile(
    'pair',
    'count: 2\nports: [tcp/any]\nprogram: { argv: [sh, /srv/run] }\nfiles: { /srv/run: ./run }\n'
  )
  await writeFile(
    join(home, 'run'),
    'echo "$SLICENET_SLICE at $SLICENET_ADDRESS:$SLICENET_PORT of $SLICENET_MEMBERS"; exit 3\n'
  )
  const made = await asResearcher(['slice', 'create', file])
  t.is(made.exitCode, 0, made.stderr)
  await until(async () => (await membersOf('pair')).every(({ exitCode }) => exitCode === 3))
  const logs = await asResearcher(['slice', 'logs', 'pair', '--member', 'node1'])
  t.regex(logs.stdout, /pair at 198\.18\.\d+\.2:2\d{4} of node1=198\.18\.\d+\.2:2\d{4} node2=198/)
  const own = await asResearcher(
    ['slice', 'exec', 'pair', '--member', 'node2', '--', 'sh', '-c', 'cat; exit 42'],
    'through\n'
  )
  t.is(own.stdout, 'through\n')
  t.is(own.exitCode, 42)
  // The address at which clouds tell machines about themselves.
  const out = ['nc', '-w', '1', '169.254.169.254', '80']
  t.is((await asResearcher(['slice', 'exec', 'pair', '--member', 'node1', '--', ...out])).exitCode, 1)
  const counters = await asResearcher(['slice', 'counters', 'pair', '--json'])
  t.is(counters.exitCode, 0, counters.stderr)
  const { members } = JSON.parse(counters.stdout) as {
    members: { nodeName: string; dropped: Record<string, number> }[]
  }
  const dropped = Object.fromEntries(members.map((member) => [member.nodeName, member.dropped]))
  t.true((dropped['node1']?.['denied'] ?? 0) > 0, counters.stdout)
  t.deepEqual(dropped['node2'], {})
  const taken = await asResearcher(['slice', 'create', file])
  t.is(taken.exitCode, 1)
  t.regex(taken.stderr, /NAME_TAKEN/)
  const deleted = await asResearcher(['slice', 'delete', 'pair'])
  t.is(deleted.exitCode, 0, deleted.stderr)
  t.true(await noLease())
})

test('programs are restarted, frozen, thawed, signalled and stopped, and one runs at a terminal', async (t) => {
  const program = `program: { argv: [sh, -c, 'trap "exit 9" USR1; echo here; read line < /hold || exit 1'], restart: on-failure }`
  const file = await sliceFile('kept', `count: 2\n${program}\n`)
  const made = await asResearcher(['slice', 'create', file])
  t.is(made.exitCode, 0, made.stderr)
  const states = async (): Promise<(string | undefined)[][]> => {
    const { stdout } = await asResearcher(['slice', 'show', 'kept', '--json'])
    const { slice } = JSON.parse(stdout) as {
      slice: { members: { state: string; restarts?: number; frozen?: true }[] }
    }
    return slice.members.map(({ state, restarts = 0, frozen }) => [
      state,
      restarts > 0 ? 'restarted' : undefined,
      frozen === true ? 'frozen' : undefined
    ])
  }
  await until(async () => (await states()).every(([, restarted]) => restarted !== undefined))
  const hold = 'mkfifo /hold && sleep 1000 > /hold'
  const holding = asResearcher(['slice', 'exec', 'kept', '--member', 'node1', '--', 'sh', '-c', hold])
  await until(async () => (await states())[0]?.[0] === 'running')
  await asResearcher(['slice', 'freeze', 'kept', '--member', 'node1'])
  t.is((await states())[0]?.[2], 'frozen')
  const frozen = await asResearcher(['slice', 'stop', 'kept', '--member', 'node1'])
  t.regex(
    frozen.stderr,
    /not on node1: vserver kept-\w+ is frozen\n {2}code: BUSY\n {2}hint: thaw it first\n/
  )
  await asResearcher(['slice', 'thaw', 'kept'])
  t.deepEqual(
    (await states()).map(([, , still]) => still),
    [undefined, undefined]
  )
  const signalled = await asResearcher(['slice', 'signal', 'kept', 'usr1', '--member', 'node1'])
  t.is(signalled.exitCode, 0, signalled.stderr)
  const stopped = await asResearcher(['slice', 'stop', 'kept'])
  t.is(stopped.stdout, 'kept: 2 members stopped\n')
  t.deepEqual(
    (await membersOf('kept')).map(({ state }) => state),
    ['exited', 'exited']
  )
  const terminal = ['slice', 'exec', 'kept', '--member', 'node2', '--tty', '--', 'sh', '-c', 'tty; stty size']
  t.is((await asResearcher(terminal)).stdout, '/dev/pts/0\r\n24 80\r\n')
  t.is((await asResearcher(['slice', 'delete', 'kept'])).exitCode, 0)
  await holding
})

test('a query that nothing matches exits with 3 and names the failing clauses by node', async (t) => {
  const found = await asResearcher(['find', 'node.region == "mars" && node.cpu.free >= 1', '--json'])
  t.is(found.exitCode, 3)
  const { error } = JSON.parse(found.stdout) as {
    error: { code: string; details: { nodes: { failed: string[] }[] } }
  }
  t.is(error.code, 'NO_MATCH')
  t.deepEqual(
    error.details.nodes.map(({ failed }) => failed),
    [['node.region == "mars" (it is "eu")'], ['node.region == "mars" (it is "us")']]
  )
})

test('a malformed query exits with 2 and says where', async (t) => {
  const found = await asResearcher(['find', 'node.region =='])
  t.is(found.exitCode, 2)
  t.regex(found.stderr, /QUERY_INVALID/)
})

test('every node is explained, with what it fails and what is there instead', async (t) => {
  const explained = await asResearcher(['explain', 'node.region == "eu" && node.cpu.free >= 1', '--json'])
  t.is(explained.exitCode, 0, explained.stderr)
  const { nodes, matching } = JSON.parse(explained.stdout) as {
    matching: number
    nodes: { name: string; failed: unknown[] }[]
  }
  t.is(matching, 1)
  t.deepEqual(
    nodes.map(({ name, failed }) => ({ name, failed })),
    [
      { name: 'node1', failed: [] },
      { name: 'node2', failed: [{ clause: 'node.region == "eu"', value: '"us"' }] }
    ]
  )
  const nobody = await asResearcher(['explain', 'node.region == "mars"'])
  t.is(nobody.exitCode, 3)
  t.regex(nobody.stdout, /node1 [^]*node2 [^]*0 of 2 nodes match/)
})

test('a plan is a dry run: 0 when the slice could be made, 3 when not, and no ticket of either', async (t) => {
  const pair = await sliceFile('planned', 'count: 2\nrank: node.cpu.free\n')
  const planned = await asResearcher(['slice', 'plan', pair, '--json'])
  t.is(planned.exitCode, 0, planned.stderr)
  const { plan } = JSON.parse(planned.stdout) as { plan: { members: { name: string; site: string }[] } }
  t.deepEqual(plan.members.map(({ name, site }) => `${name} ${site}`).toSorted(), [
    'node1 site1',
    'node2 site2'
  ])
  const large = await asResearcher(['slice', 'plan', await sliceFile('planned', 'count: 3\n')])
  t.is(large.exitCode, 3)
  t.regex(large.stderr, /code: NO_MATCH/)
  const known = await asResearcher(['explain', '--slice', pair])
  t.is(known.exitCode, 0, known.stderr)
  const { stdout } = await on('broker1', ['status', '--json'])
  const { principal } = (JSON.parse(stdout) as { status: { principal: string } }).status
  for (const broker of [principal, 'any']) {
    const words = ['slice', 'plan', await sliceFile('planned', 'count: 2\n'), '--broker', broker, '--json']
    const remote = await asResearcher(words)
    t.is(remote.exitCode, 0, remote.stderr)
    const { plan: told } = JSON.parse(remote.stdout) as { plan: { members: unknown[] } }
    t.is(told.members.length, 2)
  }
  for (const agent of ['agent-a', 'agent-b']) {
    const { stdout: listed } = await on(agent, ['ticket', 'list', '--json'])
    t.false(listed.includes('"planned"'), agent)
  }
})

test('a watch shows what is there and ends in order when its time is over', async (t) => {
  const watch = await asResearcher(['find', 'node.region == "eu"', '--watch', '--json', '--timeout', '5s'])
  t.is(watch.exitCode, 0, watch.stderr)
  const [first] = watch.stdout.trim().split('\n')
  const { event, node } = JSON.parse(first ?? '') as { event: string; node: { name: string; ageMs: number } }
  t.deepEqual([event, node.name], ['match', 'node1'])
  t.true(node.ageMs < 60_000)
})

test('a slice with more members than the overlay has nodes exits with 3 and leaves nothing', async (t) => {
  const made = await asResearcher(['slice', 'create', await sliceFile('large', 'count: 50\n')])
  t.is(made.exitCode, 3)
  t.regex(made.stderr, /2 nodes match where 50 of 50 members are needed/)
  const { stdout } = await asResearcher(['slice', 'list', '--json'])
  t.deepEqual((JSON.parse(stdout) as { slices: unknown[] }).slices, [])
})

test('a slice that may have fewer members than asked for is made with those, and exits with 4', async (t) => {
  const made = await asResearcher([
    'slice',
    'create',
    await sliceFile('some', 'count: 3\nminimum: 2\n'),
    '--json'
  ])
  t.is(made.exitCode, 4, made.stderr)
  const { slice, error } = JSON.parse(made.stdout) as {
    slice: { state: string; members: unknown[] }
    error: { code: string }
  }
  t.is(slice.state, 'partial')
  t.is(slice.members.length, 2)
  t.is(error.code, 'PARTIAL_SLICE')
  t.is((await asResearcher(['slice', 'delete', 'some'])).exitCode, 0)
})

test('a port that another slice owns is refused, and nothing of the second slice stays', async (t) => {
  const first = await asResearcher([
    'slice',
    'create',
    await sliceFile(
      'owner',
      'count: 1\nquery: node.name == "node1"\nports: [tcp/20000, tcp/20010-20012, gre/20000]\n'
    )
  ])
  t.is(first.exitCode, 0, first.stderr)
  const owned = async (): Promise<string[]> => {
    const { stdout } = await on('node1', ['node', 'ports', '--json'])
    const { ports } = JSON.parse(stdout) as { ports: NodePortView[] }
    t.true(ports.some(({ owner }) => owner === 'node'))
    const alive = ports.filter(({ owner, state }) => owner === 'lease' && state === 'active')
    return alive.map(({ protocol, first: from, last, slice }) => `${protocol} ${from} ${last} ${slice}`)
  }
  t.deepEqual(await owned(), ['tcp 20000 20000 owner', 'tcp 20010 20012 owner', 'gre 20000 20000 owner'])
  const second = await asResearcher([
    'slice',
    'create',
    await sliceFile('envious', 'count: 1\nquery: node.name == "node1"\nports: [tcp/20000]\n')
  ])
  t.is(second.exitCode, 1)
  t.regex(second.stderr, /PORT_TAKEN/)
  t.regex(
    second.stderr,
    /tcp\/20000 (of this node is held by slice owner of|is not among the ports of this node that the agent may grant)/
  )
  const { stdout } = await asResearcher(['slice', 'list', '--json'])
  t.deepEqual(
    (JSON.parse(stdout) as { slices: { name: string }[] }).slices.map(({ name }) => name),
    ['owner']
  )
  t.is((await asResearcher(['slice', 'delete', 'owner'])).exitCode, 0)
  t.deepEqual(await owned(), [])
})

test('a program that the image lacks is refused, and the slice is given back', async (t) => {
  const made = await asResearcher([
    'slice',
    'create',
    await sliceFile('wrong', 'count: 2\nprogram: { argv: [no-such-program] }\n')
  ])
  t.is(made.exitCode, 1)
  t.regex(made.stderr, /PROGRAM_NOT_FOUND/)
  t.true(await noLease())
})

test('a real node takes the honest demand and refuses every dishonest one with its code', async (t) => {
  const directory = join(home, 'devnet', NAME)
  const run = await slicenet(['devnet', 'exec', '--name', NAME, '--', process.execPath, REDEEMER, directory])
  t.is(run.exitCode, 0, run.stderr)
  t.deepEqual(JSON.parse(run.stdout), {
    'a ticket redeemed by someone else': 'TICKET_WRONG_HOLDER',
    "the holder's own demand sent by someone else": 'TICKET_WRONG_HOLDER',
    'a ticket for another node': 'TICKET_WRONG_NODE',
    'a forged link below a ticket that may not be delegated': 'CHAIN_INVALID',
    'a forged link by a stranger': 'CHAIN_INVALID',
    'a ticket with an altered signature': 'SIGNATURE_INVALID',
    'an expired ticket': 'TICKET_EXPIRED',
    'the honest demand': 'lease',
    'the same demand again': 'lease',
    'one lease for both': 'true',
    'another demand for the same ticket': 'TICKET_REDEEMED',
    'a lease deleted by someone else': 'LEASE_NOT_HELD',
    'a lease deleted by its holder': 'deleted'
  })
})

test('a slice is renewed: each lease gets a later end, in the virtual machine that it has', async (t) => {
  const made = await asResearcher(['slice', 'create', await sliceFile('lasting', 'count: 2\n')])
  t.is(made.exitCode, 0, made.stderr)
  const before = await membersOf('lasting')
  const renewed = await asResearcher(['slice', 'renew', 'lasting', '--for', '30m', '--json'])
  t.is(renewed.exitCode, 0, renewed.stderr)
  const after = await membersOf('lasting')
  t.deepEqual(
    after.map(({ vserver }) => vserver),
    before.map(({ vserver }) => vserver)
  )
  const soonest = (members: { notAfter: string }[]): number =>
    Math.min(...members.map(({ notAfter }) => Date.parse(notAfter)))
  t.true(soonest(after) > soonest(before) + 10 * 60_000)
  t.is((await asResearcher(['slice', 'delete', 'lasting'])).exitCode, 0)
  t.true(await noLease())
})

test('nodes say where they are in the network, and what their shaped uplinks carry', async (t) => {
  await until(async () => {
    const { stdout } = await asResearcher(['find', '--json', 'node.uplinkBps > 1000000'])
    const { nodes = [] } = JSON.parse(stdout) as { nodes?: { coordinate?: object }[] }
    return nodes.filter(({ coordinate }) => coordinate !== undefined).length === 2
  })
  const beyond = await asResearcher(['find', 'node.uplinkBps > 100000000'])
  t.is(beyond.exitCode, 3, beyond.stdout)
})

test('an agent that issues too much is refused, proven to everybody, and not dealt with any more', async (t) => {
  const directory = join(home, 'devnet', NAME)
  const words = ['devnet', 'exec', '--name', NAME, '--', process.execPath, CHEATING_AGENT, directory]
  const cheated = await slicenet(words)
  t.is(cheated.exitCode, 0, cheated.stderr)
  const { agent, outcomes } = JSON.parse(cheated.stdout) as { agent: string; outcomes: string[] }
  t.deepEqual(outcomes, ['lease', 'ISSUER_CHEATED'], 'first come, and the second shows what the first was')
  const proofs = async (): Promise<{ proof: string; accused: string; kind: string }[]> => {
    const { stdout } = await asResearcher(['proof', 'list', '--json'])
    return (JSON.parse(stdout) as { proofs: [] }).proofs
  }
  await until(async () => (await proofs()).length > 0)
  const [proof] = await proofs()
  t.like(proof, { accused: agent, kind: 'over-issued' })
  const file = join(home, 'proof.bin')
  t.is((await asResearcher(['proof', 'save', proof?.proof ?? '', file])).exitCode, 0)
  const checked = await slicenet(['ticket', 'verify-proof', file])
  t.is(checked.exitCode, 0, checked.stderr)
  t.regex(checked.stdout, /cpuMillis/)
  const bytes = await readFile(file)
  bytes[bytes.length - 20] = (bytes[bytes.length - 20] ?? 0) ^ 1
  await writeFile(file, bytes)
  t.is((await slicenet(['ticket', 'verify-proof', file])).exitCode, 5)
  const made = await asResearcher(['slice', 'create', await sliceFile('wary', 'count: 2\n'), '--json'])
  t.is(made.exitCode, 0, made.stderr)
  const { slice } = JSON.parse(made.stdout) as { slice: { members: { agent: string }[] } }
  t.true(slice.members.every((member) => member.agent !== agent))
  t.is((await asResearcher(['slice', 'delete', 'wary'])).exitCode, 0)
})

test("a node's daemon killed with -9 loses no lease, and its vserver and program run on", async (t) => {
  const file = await sliceFile(
    'steady',
    'count: 1\nquery: node.name == "node1"\nprogram: { argv: [sleep, "300"] }\n'
  )
  const made = await asResearcher(['slice', 'create', file])
  t.is(made.exitCode, 0, made.stderr)
  const inside = ['slice', 'exec', 'steady', '--', 'cat', '/proc/1/stat'] as const
  const before = await asResearcher(inside)
  const { stdout } = await on('node1', ['status', '--json'])
  process.kill((JSON.parse(stdout) as { status: { pid: number } }).status.pid, 'SIGKILL')
  await until(async () => (await membersOf('steady'))[0]?.state === 'unknown')
  const revived = slicenet(['devnet', 'exec', '--name', NAME, 'node1', '--', 'slicenet', 'daemon'])
  await until(async () => (await membersOf('steady'))[0]?.state === 'running')
  const after = await asResearcher(inside)
  // The same init, by the time it was started: nothing was made again.
  t.is(after.stdout.split(' ')[21], before.stdout.split(' ')[21])
  t.is((await asResearcher(['slice', 'delete', 'steady'])).exitCode, 0)
  const { stdout: status } = await on('node1', ['status', '--json'])
  process.kill((JSON.parse(status) as { status: { pid: number } }).status.pid, 'SIGTERM')
  t.is((await revived).exitCode, 0)
})

/** Runs a command on node1 in namespaces of its own, made by unshare(1) with these words. */
const apart = (words: readonly string[]): Promise<Outcome> =>
  slicenet(['devnet', 'exec', '--name', NAME, 'node1', '--', 'unshare', ...words])

test('a node on a machine that lacks a program says which and how to get it, and leaves nothing', async (t) => {
  const hide = 'mount --bind /dev/null "$(command -v nft)" && exec slicenet daemon'
  const refused = await apart(['--mount', '--propagation', 'private', 'sh', '-c', hide])
  t.is(refused.exitCode, 1)
  t.regex(refused.stderr, /lacks what a node needs: nft/)
  t.regex(refused.stderr, /HOST_PROGRAM_MISSING/)
  t.regex(refused.stderr, /slicenet doctor --install/)
  t.is((await on('node1', ['daemon', '--timeout', '5s'])).exitCode, 0, 'with the program it starts')
})

test('a node, a devnet and images ask for root', async (t) => {
  // In a user namespace without a mapping nobody is root.
  const node = await apart(['--user', 'slicenet', 'daemon'])
  t.is(node.exitCode, 1)
  t.regex(node.stderr, /NOT_ROOT/)
  const devnet = await apart(['--user', 'slicenet', 'devnet', 'up', '--name', 'other'])
  t.is(devnet.exitCode, 1)
  t.regex(devnet.stderr, /NOT_ROOT/)
})

test('a daemon whose address another program listens on says so', async (t) => {
  const config = JSON.parse(await readFile(join(home, 'devnet', NAME, 'node1', 'slicenet.yaml'), 'utf8')) as {
    listen: string[]
  }
  const port = Number(config.listen[0]?.split('/').at(-1))
  const script = `import socket, subprocess, sys; s = socket.create_server(("", ${port})); sys.exit(subprocess.call(["slicenet", "daemon"]))`
  const refused = await slicenet(['devnet', 'exec', '--name', NAME, 'node1', '--', 'python3', '-c', script])
  t.is(refused.exitCode, 1)
  t.regex(refused.stderr, /PORT_IN_USE/)
})

test('a daemon whose state was altered on disk refuses to start and names the repair', async (t) => {
  const store = join(home, 'devnet', NAME, 'node1', 'store')
  const journals = (await readdir(store, { recursive: true }))
    .filter((path) => /journal.*\d/.test(path))
    .sort()
  const path = join(store, journals[0] ?? 'no journal')
  const sound = await readFile(path)
  const altered = Buffer.from(sound)
  altered[200] = (altered[200] ?? 0) ^ 1
  await writeFile(path, altered)
  const refused = await on('node1', ['daemon'])
  t.is(refused.exitCode, 1)
  t.regex(refused.stderr, /STORE_CORRUPT/)
  t.regex(refused.stderr, /slicenet store repair/)
  await writeFile(path, sound)
})

test('taking the devnet down leaves nothing of what was there', async (t) => {
  const directories = [join(home, 'devnet', NAME)]
  const kinds = new Set((await devnetLeftovers(NAME, { directories })).map(({ kind }) => kind))
  // Were the list blind, this would not see what is there now.
  t.true(kinds.isSupersetOf(new Set(['process', 'namespace', 'mount', 'loop-device'])))
  const down = await slicenet(['devnet', 'down', '--name', NAME])
  t.is(down.exitCode, 0, down.stderr)
  t.deepEqual(await devnetLeftovers(NAME, { directories }), [])
})
