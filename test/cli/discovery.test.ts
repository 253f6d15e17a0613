import test from 'ava'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SlicenetError } from '../../src/base/errors.ts'
import type { ControlMethods } from '../../src/daemon/control-client.ts'
import type { ExplanationView, PlannedMemberView, RejectionView } from '../../src/daemon/control-protocol.ts'
import type { Handlers } from '../../src/protocol/method.ts'
import { serveControl, type ControlFixture } from '../daemon/control-fixture.ts'
import { agentKey, holderKey, NOW } from '../daemon/signed-objects.ts'
import { cli } from './cli-fixture.ts'
import { finding, nodeView } from './views.ts'

const HOSTILE = 'n\u001b[2J\u202e'

const widest = (text: string): number => Math.max(...text.split('\n').map((line) => Array.from(line).length))

// oxlint-disable-next-line no-control-regex -- what a terminal would obey.
const plain = (text: string): string => text.replaceAll(/\u001b\[\d+m/g, '')

async function sliceFile({ directory }: ControlFixture, text = 'count: 2\n'): Promise<string> {
  const path = join(directory, 'mesh.yaml')
  await writeFile(path, `name: mesh\nimage: debian\n${text}`)
  return path
}

test('a table of nodes fits a terminal of 80 columns, and has every column where no terminal reads it', async (t) => {
  const wide = { ...nodeView, name: 'n'.repeat(64), images: { debian: '', busybox: '' }, reliability: 934 }
  await using control = await serveControl(finding({ ...nodeView, ageMs: 65_000 }, wide))
  const home = control.directory
  const narrow = plain((await cli(['find'], { home, isTTY: true, columns: 80 })).stdout)
  t.true(widest(narrow) <= 80 + 32, 'names are cut')
  t.regex(narrow, /^NAME +NODE +REGION +CPU FREE +MEMORY +AGE +RELIABILITY\n/)
  t.regex(narrow, /\nnode1 .* 1\.1m +-\n/)
  t.regex(narrow, /\nn{31}… .* 5s +93%\n/)
  const all = (await cli(['find'], { home })).stdout
  t.regex(all, /DISK +EGRESS +IMAGES +AGENTS +VIA/)
})

test('ordinary names leave a table of nodes within 80 columns', async (t) => {
  await using control = await serveControl(finding(nodeView))
  const options = { home: control.directory, isTTY: true, columns: 80 }
  t.true(widest(plain((await cli(['find'], options)).stdout)) <= 80)
})

function watched(): Pick<Handlers<ControlMethods>, 'discover'> {
  return {
    async discover({ query }, { emit, signal }) {
      if (query === 'node.') throw new SlicenetError('QUERY_INVALID', 'this query cannot be read')
      await emit({ event: 'match', node: nodeView })
      await emit({ event: 'expire', node: { ...nodeView, name: HOSTILE } })
      if (!signal.aborted) await once(signal, 'abort')
      return {}
    }
  }
}

/** Watches until both events were shown, and interrupts then. */
async function watchBoth(words: readonly string[], control: ControlFixture) {
  const controller = new AbortController()
  let events = 0
  const now = (): number => {
    events += 1
    if (events === 2) {
      setImmediate(() => controller.abort(new SlicenetError('INTERRUPTED', 'interrupted by SIGINT')))
    }
    return NOW
  }
  return cli(['find', '--watch', ...words], {
    home: control.directory,
    services: { now },
    interrupt: controller.signal
  })
}

test('a watch prints a line an event, tamed, and ends in order when interrupted', async (t) => {
  await using control = await serveControl(watched())
  const { exitCode, stdout, stderr } = await watchBoth([], control)
  t.is(exitCode, 0)
  t.is(stderr, '')
  const [header, first, second, rest] = stdout.split('\n')
  t.regex(header ?? '', /^TIME +EVENT +NAME +NODE +REGION +CPU FREE$/)
  t.regex(first ?? '', /^2027-\S+Z match +node1 +12D3KooW\w{8} eu +200m\/2000m$/)
  t.regex(second ?? '', /^2027-\S+Z expire n\\u001b\[2J\\u202e /)
  t.is(rest, '')
  t.true(widest(`${header}\n${first}`) <= 80)
})

test('a watch for programs is one document an event', async (t) => {
  await using control = await serveControl(watched())
  const { exitCode, stdout } = await watchBoth(['true', '--json'], control)
  t.is(exitCode, 0)
  const documents = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  t.is(documents.length, 2)
  t.like(documents[0], { schema: 1, event: 'match', node: { id: nodeView.id, ageMs: 5000 } })
  t.regex(String(documents[0]?.['time']), /^2027-.*Z$/)
  t.like(documents[1], { event: 'expire', node: { name: HOSTILE } })
})

test('the timeout of a watch is its end and no failure', async (t) => {
  await using control = await serveControl(watched())
  const options = { home: control.directory }
  const { exitCode, stderr } = await cli(['find', '--watch', '--timeout', '100ms'], options)
  t.is(exitCode, 0)
  t.is(stderr, '')
})

test('a watch that cannot begin or is cut off fails as every command does', async (t) => {
  await using control = await serveControl(watched())
  t.is((await cli(['find', 'node.', '--watch'], { home: control.directory })).exitCode, 2)
  t.is((await cli(['find', '--watch'])).exitCode, 6)
})

const failing: ExplanationView = {
  node: holderKey.principal,
  name: HOSTILE,
  matches: false,
  failed: [{ clause: 'node.region == "us"', value: '"eu\u0007"' }, { clause: 'node.gpu >= 1' }],
  via: 'gossip',
  ageMs: 500
}
const matching: ExplanationView = {
  node: nodeView.id,
  name: 'node1',
  matches: true,
  failed: [],
  via: 'pull',
  ageMs: 61_000
}

const explaining = (nodes: readonly ExplanationView[]): Pick<Handlers<ControlMethods>, 'explain'> => ({
  async explain(_, { emit }) {
    for (const node of nodes) await emit(node)
    return {}
  }
})

test('every node is explained with all that it fails, tamed; 0 where some match', async (t) => {
  await using control = await serveControl(explaining([matching, failing]))
  const { exitCode, stdout } = await cli(['explain', 'x'], { home: control.directory })
  t.is(exitCode, 0)
  t.is(
    stdout,
    `node1             ${nodeView.id.slice(0, 16)}  matches, heard 1m ago\n` +
      `n\\u001b[2J\\u202e  ${holderKey.principal.slice(0, 16)}  does not match, heard 0s ago\n` +
      '  node.region == "us"  (it is "eu\\u0007")\n' +
      '  node.gpu >= 1  (it has none)\n' +
      '\n1 of 2 nodes match.\n'
  )
  const program = (await cli(['explain', 'x', '--json'], { home: control.directory })).json()
  t.deepEqual(program, { schema: 1, nodes: [matching, failing], matching: 1 })
})

test('where none matches explaining exits with 3, and has something to show all the same', async (t) => {
  await using control = await serveControl(explaining([failing]))
  const human = await cli(['explain', 'x'], { home: control.directory })
  t.is(human.exitCode, 3)
  t.regex(human.stdout, /node\.gpu >= 1/)
  t.regex(human.stderr, /error: none of 1 nodes matches\n {2}code: NO_MATCH/)
  const program = (await cli(['explain', 'x', '--json'], { home: control.directory })).json()
  t.like(program, { matching: 0, nodes: [failing], error: { code: 'NO_MATCH' } })
  await using empty = await serveControl(explaining([]))
  const nobody = await cli(['explain', 'x'], { home: empty.directory })
  t.is(nobody.exitCode, 3)
  t.regex(nobody.stderr, /no node is known[^]*slicenet status/)
})

test('a slice file stands for what it needs of nodes, and one that is wrong is refused', async (t) => {
  const asked: unknown[] = []
  await using control = await serveControl({
    async explain(what, { emit }) {
      asked.push(what)
      await emit(matching)
      return {}
    }
  })
  const file = await sliceFile(control, 'count: 2\nquery: node.cpu.free > 1\n')
  t.is((await cli(['explain', '--slice', file], { home: control.directory })).exitCode, 0)
  t.like(asked[0], {
    want: { count: 2, minimum: 2, query: 'node.cpu.free > 1', image: 'debian' }
  })
  const wrong = await sliceFile(control, 'count: many\n')
  t.is((await cli(['explain', '--slice', wrong], { home: control.directory })).exitCode, 2)
  t.is((await cli(['slice', 'plan', wrong], { home: control.directory })).exitCode, 2)
  t.is((await cli(['slice', 'plan', `${wrong}.none`], { home: control.directory })).exitCode, 1)
})

const member: PlannedMemberView = {
  node: nodeView.id,
  name: 'node1',
  agent: agentKey.principal,
  agentName: 'agent1',
  site: 's\u001bpot',
  rank: '12',
  rttMicros: 3210
}
const spare: RejectionView = { node: holderKey.principal, name: 'node2', failed: [] }
const refused: RejectionView = {
  node: holderKey.principal,
  name: 'node3',
  failed: failing.failed.slice(0, 1)
}

const planning = (
  members: readonly PlannedMemberView[],
  result: { satisfiable: boolean; reason?: string }
): Pick<Handlers<ControlMethods>, 'plan'> => ({
  async plan(_, { emit }) {
    for (const one of members) await emit({ member: one })
    for (const rejection of [spare, refused]) await emit({ rejection })
    return result
  }
})

test('a plan shows members with site, agent, rank and round-trip time, and why not the others', async (t) => {
  await using control = await serveControl(planning([member], { satisfiable: true }))
  const file = await sliceFile(control)
  const human = await cli(['slice', 'plan', file], { home: control.directory })
  t.is(human.exitCode, 0)
  t.is(
    human.stdout,
    'MEMBER  NODE              SITE        AGENT   RANK  RTT\n' +
      `node1   ${nodeView.id.slice(0, 16)}  s\\u001bpot  agent1  12    3.2ms\n` +
      '\nOTHER NODES\n' +
      `node2  ${holderKey.principal.slice(0, 16)}  not needed\n` +
      `node3  ${holderKey.principal.slice(0, 16)}  passed over\n` +
      '  node.region == "us"  (it is "eu\\u0007")\n' +
      '\nThe slice could be made: 1 of 2 members could be had.\n'
  )
  const program = await cli(['slice', 'plan', file, '--json'], { home: control.directory })
  t.deepEqual(program.json(), {
    schema: 1,
    plan: { satisfiable: true, members: [member], rejections: [spare, refused] }
  })
})

test('of many nodes that are not needed some are named and the rest counted', async (t) => {
  await using control = await serveControl({
    async plan(_, { emit }) {
      for (let index = 0; index < 30; index++) await emit({ rejection: { ...spare, name: `n${index}` } })
      await emit({ rejection: refused })
      return { satisfiable: true }
    }
  })
  const { stdout } = await cli(['slice', 'plan', await sliceFile(control)], { home: control.directory })
  t.is(stdout.match(/not needed\n/g)?.length, 20)
  t.regex(stdout, /\nnode3 .* passed over\n[^]*\n10 more are not needed\.\n/)
})

test('a plan is asked of the broker that is named, and of nobody else', async (t) => {
  const asked: unknown[] = []
  await using control = await serveControl({
    async plan({ broker }) {
      asked.push(broker)
      return { satisfiable: true }
    }
  })
  const file = await sliceFile(control)
  const { principal } = agentKey
  for (const words of [[], ['--broker', 'any'], ['--broker', principal]]) {
    t.is((await cli(['slice', 'plan', file, ...words], { home: control.directory })).exitCode, 0)
  }
  t.deepEqual(asked, [undefined, 'any', principal])
  const unknown = await cli(['slice', 'plan', file, '--broker', 'agent1'], { home: control.directory })
  t.regex(unknown.stderr, /code: KEY_INVALID/)
})

test('a plan that cannot be had exits with 3 and NO_MATCH, and still shows all', async (t) => {
  const reason = '0 of 2 members could be had'
  await using control = await serveControl(planning([], { satisfiable: false, reason }))
  const file = await sliceFile(control)
  const human = await cli(['slice', 'plan', file], { home: control.directory })
  t.is(human.exitCode, 3)
  t.regex(
    human.stdout,
    /^OTHER NODES\nnode2[^]*The slice could not be made: 0 of 2 members could be had\.\n$/
  )
  t.regex(human.stderr, /error: 0 of 2 members could be had\n {2}code: NO_MATCH/)
  const program = (await cli(['slice', 'plan', file, '--json'], { home: control.directory })).json()
  t.like(program, {
    plan: { satisfiable: false, reason, members: [] },
    error: { code: 'NO_MATCH', message: reason }
  })
})

test('what is too long for a line of the terminal goes on the next', async (t) => {
  const clause = `node.name == "${'x'.repeat(60)}"`
  await using control = await serveControl(
    explaining([{ ...failing, failed: [{ clause, value: '"a name of some length"' }] }])
  )
  const options = { home: control.directory, isTTY: true, columns: 80 }
  const { stdout } = await cli(['explain', 'x'], options)
  t.true(plain(stdout).includes(`  ${clause}\n    (it is "a name of some length")\n`))
  t.true(widest(plain(stdout)) <= 80)
})
