import test from 'ava'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { SliceDescription } from '../../src/service/slice.ts'
import { serveControl, type ControlFixture } from '../daemon/control-fixture.ts'
import { holderKey, NOW, nodeKey } from '../daemon/signed-objects.ts'
import { cli, Memory, openStdin } from './cli-fixture.ts'
import { memberView, sliceView } from './views.ts'

const mesh = sliceView('mesh', [
  memberView('node1'),
  memberView('node2', { node: holderKey.principal, lease: `bafyrei${'b'.repeat(52)}` })
])
const slices = {
  sliceList: async () => ({ slices: [mesh, sliceView('probe1', []), sliceView('probe2', [])] })
}

/** Serves an `exec` that repeats its standard input. */
async function serveEcho(exitCode: number): Promise<ControlFixture & { readonly asked: unknown[] }> {
  const asked: unknown[] = []
  const control = await serveControl({
    ...slices,
    async sliceExec(params, call) {
      asked.push(params)
      for await (const { bytes } of call.input) {
        if (bytes === undefined) break
        await call.emit({ stream: 'stdout', bytes })
      }
      await call.emit({ stream: 'stderr', bytes: Buffer.from('done\n') })
      return { exitCode }
    }
  })
  return { ...control, [Symbol.asyncDispose]: () => control[Symbol.asyncDispose](), asked }
}

test('a slice is made of its file, with progress on stderr and the members on stdout', async (t) => {
  let asked: SliceDescription | undefined
  await using control = await serveControl({
    async sliceCreate(description, call) {
      asked = description
      await call.emit({ step: 'find', message: '2 nodes match', ms: 12 })
      await call.emit({ step: 'redeem', message: '2 leases' })
      return mesh
    }
  })
  const file = join(control.directory, 'mesh.yaml')
  await writeFile(file, 'name: mesh\ncount: 2\nimage: debian\nfiles: { /srv/a.sh: a.sh }\n')
  await writeFile(join(control.directory, 'a.sh'), 'echo')
  const { exitCode, stdout, stderr } = await cli(['slice', 'create', file], { home: control.directory })
  t.is(exitCode, 0)
  t.is(stderr, 'find: 2 nodes match (12ms)\nredeem: 2 leases\n')
  t.regex(stdout, /^slice: {4}mesh\nstate: {4}active\nmembers: {2}2 of 2\n/)
  t.regex(stdout, /\nMEMBER +NODE +STATE +ADDRESS +PORTS +VSERVER +LEASE +AGENT +ENDS\nnode1 +12D3KooW/)
  t.is(asked?.files[0]?.path, '/srv/a.sh')
  t.is(asked?.minimum, 2)
})

test('mistakes in a slice file are exit code 2 with the line, before any daemon is asked', async (t) => {
  await using control = await serveControl({})
  const file = join(control.directory, 'mesh.yaml')
  const mistakes: [string, RegExp][] = [
    ['name: mesh\nimage: debian\ncuont: 3\n', /line 3: cuont: unknown field; did you mean count\?/],
    ['name: mesh\n', /line 1: image: missing/],
    [
      'name: mesh\nimage: debian\nresources: { memory: 64 potatoes }\n',
      /line 3: resources\.memory: expected a size/
    ],
    ['name: mesh\nimage: debian\nlease: forever\n', /line 3: lease: expected a duration/]
  ]
  for (const [text, expected] of mistakes) {
    await writeFile(file, text)
    const { exitCode, stderr } = await cli(['slice', 'create', file], { home: control.directory })
    t.is(exitCode, 2)
    t.regex(stderr, expected)
    t.regex(stderr, /code: SLICE_FILE_INVALID/)
  }
})

test('a member that sends ever more slowly because its day’s bytes run out is shown so', async (t) => {
  const narrowed = sliceView('mesh', [memberView('node1', { egressNarrowed: true }), memberView('node2')])
  await using control = await serveControl({ ...slices, sliceShow: async () => narrowed })
  const { stdout } = await cli(['slice', 'show', 'mesh'], { home: control.directory })
  t.regex(stdout, /\nnode1 .* running \(egress narrowed\) /)
  t.regex(stdout, /\nnode2 .* running {3}/)
})

test('slices are listed and shown, by the beginning of their name', async (t) => {
  await using control = await serveControl({ ...slices, sliceShow: async () => mesh })
  const home = control.directory
  const { stdout } = await cli(['slice', 'list'], { home })
  t.is(
    stdout,
    'SLICE   STATE   MEMBERS  CREATED               ENDS\n' +
      'mesh    active  2/2      2027-01-15T08:00:00Z  2027-01-15T08:30:00Z\n' +
      'probe1  active  0/0      2027-01-15T08:00:00Z  2027-01-15T08:30:00Z\n' +
      'probe2  active  0/0      2027-01-15T08:00:00Z  2027-01-15T08:30:00Z\n'
  )
  const shown = (await cli(['slice', 'show', 'me', '--json'], { home })).json()
  t.like(shown, { schema: 1, slice: { name: 'mesh', createdAt: '2027-01-15T08:00:00.000Z' } })
})

test('a name that several slices begin with is AMBIGUOUS_ID, and an unknown one NOT_FOUND', async (t) => {
  await using control = await serveControl(slices)
  const home = control.directory
  const ambiguous = await cli(['slice', 'show', 'probe'], { home })
  t.is(ambiguous.exitCode, 2)
  t.regex(ambiguous.stderr, /could be any slice of probe1, probe2\n {2}code: AMBIGUOUS_ID/)
  t.is((await cli(['slice', 'delete', 'x'], { home })).exitCode, 1)
  const member = await cli(['slice', 'exec', 'mesh', '--member', 'node', '--', 'ls'], { home })
  t.is(member.exitCode, 2)
  t.regex(member.stderr, /AMBIGUOUS_ID/)
})

test('exec passes words, standard input, both outputs and the exit code through', async (t) => {
  await using control = await serveEcho(42)
  const input = Buffer.alloc(300_000, 'x')
  const argv = [
    'slice',
    'exec',
    'mesh',
    '--member',
    'node2',
    '--',
    'sh',
    '-c',
    'exit 42',
    '--json',
    '--',
    '--help'
  ]
  const stdin = Readable.from([input])
  const { exitCode, stdout, stderr } = await cli(argv, { home: control.directory, stdin })
  t.is(exitCode, 42)
  t.is(stdout.length, input.length)
  t.is(stderr, 'done\n')
  t.deepEqual(control.asked, [
    {
      slice: 'mesh',
      member: mesh.members[1]?.lease,
      program: { argv: ['sh', '-c', 'exit 42', '--json', '--', '--help'], env: {} }
    }
  ])
})

test('exec at a terminal lends it: its size and changes of it, keys as they are typed', async (t) => {
  const heard: unknown[] = []
  const stdin = Object.assign(openStdin(), {
    isTTY: true,
    modes: [] as boolean[],
    setRawMode(isRaw: boolean) {
      stdin.modes.push(isRaw)
    }
  })
  await using control = await serveControl({
    ...slices,
    async sliceExec({ terminal, program }, call) {
      heard.push(terminal, program.env)
      stdin.write('\u0003')
      for await (const { bytes, terminal: size } of call.input) {
        heard.push(size ?? Buffer.from(bytes ?? []).toString())
        if (size !== undefined) break
        stdout.resizeTo(90, 30)
      }
      return { exitCode: 3 }
    }
  })
  const stdout = new Memory({ isTTY: true, columns: 101, rows: 33 })
  const options = { home: control.directory, stdin, stdout, variables: { TERM: 'vt220' } }
  const { exitCode } = await cli(['slice', 'exec', 'mesh', '--', 'bash'], options)
  t.is(exitCode, 3)
  t.deepEqual(heard, [{ columns: 101, rows: 33 }, { TERM: 'vt220' }, '\u0003', { columns: 90, rows: 30 }])
  t.deepEqual(stdin.modes, [true, false])
})

test('exec has pipes where one end is no terminal, for documents, and with --no-tty', async (t) => {
  await using control = await serveEcho(0)
  const home = control.directory
  const terminal = () => Object.assign(Readable.from([]), { isTTY: true })
  await cli(['slice', 'exec', 'mesh', '--', 'cat'], { home, isTTY: true })
  await cli(['slice', 'exec', 'mesh', '--', 'cat'], { home, stdin: terminal() })
  await cli(['slice', 'exec', 'mesh', '--json', '--', 'cat'], { home, isTTY: true, stdin: terminal() })
  await cli(['slice', 'exec', 'mesh', '--no-tty', '--', 'cat'], { home, isTTY: true, stdin: terminal() })
  const lent = control.asked.map((params) => Object.hasOwn(params as object, 'terminal'))
  t.deepEqual(lent, [false, false, false, false])
  await cli(['slice', 'exec', 'mesh', '--tty', '--', 'cat'], { home })
  t.like(control.asked.at(-1), { terminal: { columns: 200, rows: 24 } })
  const both = await cli(['slice', 'exec', 'mesh', '--tty', '--json', '--', 'cat'], { home })
  t.is(both.exitCode, 2)
})

test('programs are stopped, signalled, frozen and thawed, on all members or one', async (t) => {
  const asked: unknown[] = []
  await using control = await serveControl({
    ...slices,
    async sliceAct(params) {
      asked.push(params)
      return { members: mesh.members.map(({ node, nodeName, lease }) => ({ node, nodeName, lease })) }
    }
  })
  const home = control.directory
  const { stdout } = await cli(['slice', 'freeze', 'me'], { home })
  t.is(stdout, 'mesh: 2 members frozen\n')
  await cli(['slice', 'thaw', 'mesh', '--member', 'node2'], { home })
  await cli(['slice', 'stop', 'mesh'], { home })
  for (const name of ['hup', 'SIGHUP']) await cli(['slice', 'signal', 'mesh', name], { home })
  t.deepEqual(asked, [
    { slice: 'mesh', act: 'freeze' },
    { slice: 'mesh', act: 'thaw', member: mesh.members[1]?.lease },
    { slice: 'mesh', act: 'stop' },
    { slice: 'mesh', act: 'SIGHUP' },
    { slice: 'mesh', act: 'SIGHUP' }
  ])
  t.is((await cli(['slice', 'signal', 'mesh', 'SIGSEGV'], { home })).exitCode, 2)
  t.is(asked.length, 5)
})

test('where something could not be done to a member is told, and ends with its reason', async (t) => {
  await using control = await serveControl({
    ...slices,
    async sliceAct() {
      const [one, other] = mesh.members.map(({ node, nodeName, lease }) => ({ node, nodeName, lease }))
      return {
        members: [one!, { ...other!, reason: { code: 'BUSY', message: 'it is frozen', hint: 'thaw it' } }]
      }
    }
  })
  const { exitCode, stdout, stderr } = await cli(['slice', 'stop', 'mesh'], { home: control.directory })
  t.is(exitCode, 1)
  t.is(stdout, 'mesh: 1 member stopped\n')
  t.regex(stderr, /not on node2: it is frozen\n {2}code: BUSY\n {2}hint: thaw it\n/)
})

test('what was dropped of a slice is shown by member and reason, most first', async (t) => {
  const asked: unknown[] = []
  await using control = await serveControl({
    ...slices,
    async sliceCounters(params) {
      asked.push(params)
      const [one, other] = mesh.members.map(({ node, nodeName, lease }) => ({ node, nodeName, lease }))
      const silent = { ...other!, dropped: {}, reason: { code: 'PEER_UNREACHABLE', message: 'no answer' } }
      return { members: [{ ...one!, dropped: { source: 3, untracked: 12 } }, silent] as never }
    }
  })
  const home = control.directory
  const { exitCode, stdout, stderr } = await cli(['slice', 'counters', 'me'], { home })
  t.is(exitCode, 6)
  t.is(stdout, 'MEMBER  REASON     PACKETS\nnode1   untracked  12\nnode1   source     3\n')
  t.regex(stderr, /not known of node2: no answer/)
  const { stdout: json } = await cli(['slice', 'counters', 'mesh', '--member', 'node1', '--json'], { home })
  t.deepEqual((JSON.parse(json) as { members: { dropped: object }[] }).members[0]?.dropped, {
    source: 3,
    untracked: 12
  })
  t.deepEqual(asked, [{ slice: 'mesh' }, { slice: 'mesh', member: mesh.members[0]?.lease }])
})

test('exec ends with the program although standard input stays open', async (t) => {
  await using control = await serveControl({ ...slices, sliceExec: async () => ({ exitCode: 0 }) })
  const stdin = openStdin()
  const { exitCode } = await cli(['slice', 'exec', 'mesh', '--', 'true'], { home: control.directory, stdin })
  t.is(exitCode, 0)
  t.true(stdin.destroyed)
})

test('exec gathers its outputs in one document for programs', async (t) => {
  await using control = await serveEcho(7)
  const options = { home: control.directory, stdin: Readable.from([Buffer.from([0xff, 0xfe])]) }
  const finished = await cli(['slice', 'exec', 'mesh', '--json', '--', 'cat'], options)
  t.is(finished.exitCode, 7)
  t.deepEqual(finished.json(), {
    schema: 1,
    exitCode: 7,
    stdoutBase64: '//4=',
    stderr: 'done\n',
    truncated: false
  })
})

test('logs of several members come in whole lines with their names, of one as they are', async (t) => {
  const entry = { node: nodeKey.principal, nodeName: 'node1', stream: 'stdout' as const, time: NOW }
  const other = { ...entry, node: holderKey.principal, nodeName: 'n2' }
  await using control = await serveControl({
    ...slices,
    async sliceLogs(_, call) {
      const euro = Buffer.from('€')
      await call.emit({ ...entry, bytes: Buffer.concat([Buffer.from('a'), euro.subarray(0, 1)]) })
      await call.emit({ ...other, bytes: Buffer.from('b\nc\nd') })
      await call.emit({ ...entry, bytes: Buffer.concat([euro.subarray(1), Buffer.from('\n')]) })
      return {}
    }
  })
  const home = control.directory
  t.is(
    (await cli(['slice', 'logs', 'mesh'], { home })).stdout,
    'n2    | b\nn2    | c\nnode1 | a€\nn2    | d\n'
  )
  t.is(
    (await cli(['slice', 'logs', 'mesh', '--member', 'node1'], { home })).stdout,
    'ab\nc\nd€\n'.replace('ab', 'a\ufffdb').replace('€', '\ufffd\ufffd')
  )
  const { entries } = (await cli(['slice', 'logs', 'mesh', '--json'], { home })).json() as {
    entries: object[]
  }
  t.deepEqual(entries[1], { ...other, time: '2027-01-15T08:00:00.000Z', text: 'b\nc\nd' })
  const followed = await cli(['slice', 'logs', 'mesh', '--json', '--follow'], { home })
  const lines = followed.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as object)
  t.deepEqual(lines[1], { schema: 1, ...other, time: '2027-01-15T08:00:00.000Z', text: 'b\nc\nd' })
})

test('deleting tells what remains on nodes that cannot be reached', async (t) => {
  let unreachable: string[] = []
  await using control = await serveControl({
    ...slices,
    sliceDelete: async () => ({ deleted: 1, unreachable })
  })
  const home = control.directory
  const clean = await cli(['slice', 'delete', 'mesh'], { home })
  t.is(clean.exitCode, 0)
  t.is(clean.stdout, 'mesh: 1 member ended\n')
  unreachable = [nodeKey.principal]
  const partial = await cli(['slice', 'delete', 'mesh', '--json'], { home })
  t.is(partial.exitCode, 6)
  t.like(partial.json(), { slice: 'mesh', deleted: 1, unreachable, error: { code: 'PEER_UNREACHABLE' } })
})

test('renewing tells the actual end of each lease, and why one was not renewed', async (t) => {
  const asked: unknown[] = []
  const member = { node: nodeKey.principal, nodeName: 'node1', lease: mesh.members[0]?.lease ?? '' }
  const renewed = { ...member, notAfter: NOW + 7_200_000, renewed: true }
  const failed = {
    ...member,
    nodeName: 'node2',
    notAfter: NOW + 1_800_000,
    renewed: false,
    reason: { code: 'QUOTA_EXCEEDED' as const, message: 'too long a term', hint: 'ask for less' }
  }
  let members = [renewed]
  await using control = await serveControl({
    ...slices,
    async sliceRenew(params, { emit }) {
      asked.push(params)
      await emit({ step: 'renew', message: '1 leases renewed', ms: 1 })
      return { slice: 'mesh', notAfter: Math.min(...members.map(({ notAfter }) => notAfter)), members }
    }
  })
  const home = control.directory
  const clean = await cli(['slice', 'renew', 'me'], { home })
  t.is(clean.exitCode, 0)
  t.regex(clean.stdout, /^slice: {2}mesh\nends: {3}2027-01-15T10:00:00Z\n\nMEMBER /)
  members = [renewed, failed]
  const partly = await cli(['slice', 'renew', 'mesh', '--for', '2h', '--json'], { home })
  t.is(partly.exitCode, 5)
  t.like(partly.json(), {
    slice: 'mesh',
    notAfter: '2027-01-15T08:30:00.000Z',
    members: [{ renewed: true }, { renewed: false, reason: { code: 'QUOTA_EXCEEDED' } }],
    error: {
      code: 'QUOTA_EXCEEDED',
      message: '1 of 2 leases of mesh were not renewed: too long a term',
      hint: 'ask for less'
    }
  })
  t.deepEqual(asked, [{ slice: 'mesh' }, { slice: 'mesh', durationMs: 7_200_000 }])
  t.is((await cli(['slice', 'renew', 'mesh', '--for', '100d'], { home })).exitCode, 2)
  t.is((await cli(['slice', 'renew', 'mesh', '--for', 'ever'], { home })).exitCode, 2)
})
