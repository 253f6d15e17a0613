import test from 'ava'
import { once } from 'node:events'
import { ERROR_CODES, SlicenetError, type ErrorCode } from '../../src/base/errors.ts'
import { formatError, plainStyle } from '../../src/cli/output.ts'
import { formatTable, tame } from '../../src/cli/table.ts'
import { serveControl } from '../daemon/control-fixture.ts'
import { cli } from './cli-fixture.ts'
import { finding, leaseView, nodeView } from './views.ts'

const COMMANDS = [
  'find',
  'explain',
  'slice',
  'slice create',
  'slice plan',
  'slice list',
  'slice show',
  'slice exec',
  'slice logs',
  'slice delete',
  'lease list',
  'node ports',
  'raw check',
  'ticket inspect',
  'daemon',
  'devnet up',
  'devnet down',
  'devnet status',
  'devnet exec',
  'image build',
  'image import',
  'image fetch',
  'image remove',
  'image list',
  'keys new',
  'keys show',
  'doctor',
  'status',
  'store check',
  'store repair'
]

test('every command has help with examples, on stdout, and exits with 0', async (t) => {
  for (const command of COMMANDS) {
    const { exitCode, stdout, stderr } = await cli([...command.split(' '), '--help'])
    t.is(exitCode, 0, command)
    t.regex(stdout, new RegExp(`Usage: slicenet ${command}`))
    t.is(stderr, '')
    if (command !== 'slice') t.regex(stdout, /Examples:\n {2}\S/, command)
  }
  t.regex((await cli(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/)
})

test('what the grammar does not have is USAGE, for people on stderr and for programs on stdout', async (t) => {
  const lines = [
    '',
    'fnd',
    'slice',
    'slice make',
    'find --bogus',
    'find a b',
    'explain',
    'explain a --slice b.yaml',
    'slice plan',
    'slice show',
    'slice exec mesh',
    'find -- ls',
    'devnet up --nodes many',
    'devnet up --nodes 0',
    'devnet up --name UP',
    'doctor --for lunch',
    'image import ./x',
    'image fetch',
    'image fetch busybox',
    'find --timeout soon',
    'find --timeout 0s'
  ]
  for (const line of lines) {
    const argv = line.split(' ').filter((word) => word !== '')
    const human = await cli(argv)
    t.is(human.exitCode, 2, line)
    t.is(human.stdout, '', line)
    t.regex(human.stderr, /error: .+\n {2}code: USAGE\n {2}hint: .+\n$|error: .+\n {2}code: USAGE\n$/, line)
    const program = await cli(['--json', ...argv])
    t.is(program.exitCode, 2, line)
    t.like(program.json(), { schema: 1, error: { code: 'USAGE', retryable: false } }, line)
  }
})

test('a misspelt command is met with the one that was meant', async (t) => {
  t.regex((await cli(['fnd'])).stderr, /unknown command 'fnd' \(Did you mean find\?\)/)
})

test('every code of an error leaves as its own exit code', async (t) => {
  for (const code of Object.keys(ERROR_CODES) as ErrorCode[]) {
    const services = {
      runDaemon: async () => {
        throw new SlicenetError(code, `about ${code}`, { hint: 'do this' })
      }
    }
    const human = await cli(['daemon'], { services })
    t.is(human.exitCode, ERROR_CODES[code].exit, code)
    t.is(human.stderr, `error: about ${code}\n  code: ${code}\n  hint: do this\n`)
    t.is(human.stdout, '')
    const program = await cli(['daemon', '--json'], { services })
    t.is(program.exitCode, ERROR_CODES[code].exit, code)
    const { retryable } = ERROR_CODES[code]
    t.deepEqual(program.json(), {
      schema: 1,
      error: { code, message: `about ${code}`, hint: 'do this', retryable }
    })
    t.is(program.stderr, '')
  }
})

test('a stack is printed when it was asked for, and never else', async (t) => {
  const services = {
    runDaemon: async () => {
      throw new TypeError('a mistake of ours')
    }
  }
  const quiet = await cli(['daemon'], { services })
  t.is(quiet.exitCode, 1)
  t.false(quiet.stderr.includes(' at '))
  const loud = await cli(['daemon'], { services, variables: { SLICENET_DEBUG: '1' } })
  t.regex(loud.stderr, /caused by: TypeError: a mistake of ours\n\s+at /)
})

test('a daemon that is not there is exit code 6, and how to start it', async (t) => {
  for (const command of [
    'find',
    'slice list',
    'slice show x',
    'lease list',
    'slice delete x',
    'slice logs x'
  ]) {
    const { exitCode, stderr } = await cli(command.split(' '))
    t.is(exitCode, 6, command)
    t.regex(stderr, /code: DAEMON_UNREACHABLE\n {2}hint: start it with `slicenet daemon`/)
  }
})

test('without a daemon a peer is started for the one command, and stopped whatever happens', async (t) => {
  let stops = 0
  const embed = (nodes: (typeof nodeView)[] | Error) => ({
    startEmbedded: async () => ({
      call: (async (_method: string, _params: object, { onItem }: { onItem: (item: object) => void }) => {
        if (nodes instanceof Error) throw nodes
        for (const node of nodes) onItem({ node })
        return {}
      }) as never,
      stop: async () => void stops++
    })
  })
  const found = await cli(['find', '--json'], { services: embed([nodeView]) })
  t.is(found.exitCode, 0)
  t.is(stops, 1)
  t.regex(found.stderr, /no daemon runs/)
  const failed = await cli(['find'], { services: embed(new SlicenetError('TIMEOUT', 'late')) })
  t.is(failed.exitCode, 7)
  t.is(stops, 2)
})

test('a command that takes longer than --timeout is TIMEOUT', async (t) => {
  await using control = await serveControl({
    async find(_, { signal }) {
      await once(signal, 'abort')
      return {}
    }
  })
  const { exitCode, stderr } = await cli(['find', '--timeout', '50ms'], { home: control.directory })
  t.is(exitCode, 7)
  t.regex(stderr, /error: not done within 50ms\n {2}code: TIMEOUT\n {2}hint: give it longer/)
})

test('an interrupt ends the command in order with 130', async (t) => {
  const began = Promise.withResolvers<void>()
  const aborted = Promise.withResolvers<void>()
  await using control = await serveControl({
    async find(_, { signal }) {
      began.resolve()
      await once(signal, 'abort')
      aborted.resolve()
      return {}
    }
  })
  const controller = new AbortController()
  const running = cli(['find'], { home: control.directory, interrupt: controller.signal })
  await began.promise
  controller.abort(new SlicenetError('INTERRUPTED', 'interrupted by SIGINT'))
  const { exitCode, stderr } = await running
  t.is(exitCode, 130)
  t.regex(stderr, /code: INTERRUPTED/)
  await aborted.promise
})

test('the daemon that is interrupted ends with 0 when it ended in order', async (t) => {
  const controller = new AbortController()
  const services = {
    async runDaemon({ signal }: { readonly signal: AbortSignal }) {
      controller.abort(new SlicenetError('INTERRUPTED', 'interrupted by SIGTERM'))
      t.true(signal.aborted)
    }
  }
  t.is((await cli(['daemon'], { services, interrupt: controller.signal })).exitCode, 0)
})

test('nodes are a table for people and a document for programs', async (t) => {
  await using control = await serveControl(finding(nodeView))
  const human = await cli(['find', 'node.cpu.free > 1'], { home: control.directory })
  t.is(
    human.stdout,
    'NAME   NODE              REGION  CPU FREE    MEMORY  DISK   EGRESS  IMAGES  AGENTS  VIA     AGE  RELIABILITY\n' +
      `node1  ${nodeView.id.slice(0, 16)}  eu      200m/2000m  64MiB   64MiB  1Mbps   debian  1       gossip  5s   -\n`
  )
  const program = (await cli(['find', '--json'], { home: control.directory })).json()
  t.is(program['schema'], 1)
  t.like((program['nodes'] as object[])[0], {
    id: nodeView.id,
    expiresAt: '2027-01-15T08:01:00.000Z',
    free: nodeView.free
  })
})

test('a query that matches nothing says what each node fails, with exit code 3', async (t) => {
  const nodes = [
    { node: nodeView.id, name: 'node1', failed: ['node.region == "us"'] },
    { node: nodeView.id, name: 'node22', failed: ['node.region == "us"', 'node.cpu.free >= 200'] }
  ]
  await using control = await serveControl({
    async find() {
      throw new SlicenetError('NO_MATCH', 'no node matches', { hint: 'ask for less', details: { nodes } })
    }
  })
  const human = await cli(['find', 'x'], { home: control.directory })
  t.is(human.exitCode, 3)
  t.is(
    human.stderr,
    'error: no node matches\n  code: NO_MATCH\n  hint: ask for less\n\n' +
      'NODE    FAILING CLAUSE\n' +
      'node1   node.region == "us"\n' +
      'node22  node.region == "us"\n' +
      '        node.cpu.free >= 200\n'
  )
  const program = (await cli(['find', 'x', '--json'], { home: control.directory })).json()
  t.like(program, { error: { code: 'NO_MATCH', retryable: true, details: { nodes } } })
})

test('ports of a node are listed with who has them', async (t) => {
  const range = { protocol: 'tcp' as const, first: 9000, last: 9002 }
  const { slice, lease, holder, vserver, state, notAfter } = leaseView
  const leased = { ...range, owner: 'lease' as const, slice, lease, holder, vserver, state, notAfter }
  const ports = [{ ...range, first: 22, last: 22, owner: 'program' as const }, leased]
  await using control = await serveControl({ nodePorts: async () => ({ ports }) })
  const { stdout } = await cli(['node', 'ports'], { home: control.directory })
  const [header, program, line] = stdout.split('\n')
  t.regex(header ?? '', /^PORT +OWNER +LEASE +HOLDER +VSERVER +STATE +ENDS$/)
  t.regex(program ?? '', /^tcp\/22 +a program of this machine +- +- +- +- +-$/)
  t.regex(line ?? '', /^tcp\/9000-9002 +mesh +bafyrei\S{9} .* running +2027-01-15T08:30:00Z$/)
  const { ports: told } = (await cli(['node', 'ports', '--json'], { home: control.directory })).json()
  t.like(told, [{ first: 22 }, { ...range, owner: 'lease', slice, notAfter: '2027-01-15T08:30:00.000Z' }])
})

test('leases are listed', async (t) => {
  await using control = await serveControl({ leaseList: async () => ({ leases: [leaseView] }) })
  const { stdout } = await cli(['lease', 'list'], { home: control.directory })
  t.regex(
    stdout,
    /^LEASE +SLICE +NODE .*\nbafyrei\S{9} {2}mesh .* tcp\/9000-9002 +running +2027-01-15T08:30:00Z\n$/
  )
})

test('the status of the peer is shown field by field', async (t) => {
  const status = {
    version: '0.5.0',
    principal: nodeView.id,
    name: 'here',
    roles: ['node' as const],
    multiaddrs: ['/ip4/198.18.0.1/tcp/4001'],
    pid: 42,
    startedAt: nodeView.advertisedAt,
    peers: 3,
    nodesKnown: 2,
    agentsKnown: 1,
    delegations: 1,
    leases: 0,
    warnings: ['the runtime is old']
  }
  await using control = await serveControl({ status: async () => status })
  const { stdout } = await cli(['status'], { home: control.directory })
  t.regex(stdout, /^name: +here\nprincipal: +12D3KooW\w+\nroles: +node\n/)
  t.regex(stdout, /\nstarted: +2027-01-15T08:00:00Z\n/)
  t.regex(stdout, /\nwarning: +the runtime is old\n/)
  const program = await cli(['status', '--json'], { home: control.directory })
  t.like(program.json(), { status: { name: 'here', startedAt: '2027-01-15T08:00:00.000Z' } })
})

test('colour is for terminals that want it', async (t) => {
  await using control = await serveControl(finding(nodeView))
  const home = control.directory
  t.true((await cli(['find'], { home, isTTY: true })).stdout.startsWith('\u001b[1mNAME'))
  t.true((await cli(['find'], { home })).stdout.startsWith('NAME'))
  t.true((await cli(['find'], { home, isTTY: true, variables: { NO_COLOR: '1' } })).stdout.startsWith('NAME'))
})

test('what peers say cannot steer the terminal', (t) => {
  t.is(tame('a\u001b[2Jb\u202ec\nd'), 'a\\u001b[2Jb\\u202ec\\u000ad')
  t.is(formatTable(['A'], [['x\u0007']]), 'A\nx\\u0007\n')
  const error = new SlicenetError('DENIED', 'no\u001b]0;title\u0007', { hint: '\u001b[31m' })
  t.false(formatError(error, plainStyle, false).includes('\u001b'))
})
