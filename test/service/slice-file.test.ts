import { readFile } from 'node:fs/promises'
import test, { type ExecutionContext } from 'ava'
import { SlicenetError } from '../../src/base/errors.ts'
import { parseSliceFile } from '../../src/service/slice-file.ts'
import type { YamlProblem } from '../../src/service/yaml-reader.ts'

const MIB = 1024 * 1024
const FULL = `
name: mesh
count: 3
minimum: 2
query: node.region == "eu" && node.cpu.free >= 200
resources:
  cpu: 200m
  cpuMax: 1
  memory: 64MiB
  disk: 64MiB
  egress: 1Mbps
  egressMax: 10Mbps
  egressPerDay: 1GiB
  pids: 64
ports: [tcp/any, tcp/9090, icmp/any]
rights: [raw-socket]
lease: 10m
renew: true
image: debian
program:
  argv: [python3, /srv/mesh.py, --count, 3]
  env: { KEY: value, PORT: 9090 }
  cwd: /srv
  user: nobody
files:
  /srv/mesh.py: ./mesh.py
  /srv/run.sh: { source: ./run.sh, mode: "0755" }
`
const MINIMAL = 'name: mesh\nimage: debian\n'

function problemsOf(t: ExecutionContext, text: string): readonly YamlProblem[] {
  const error = t.throws(() => parseSliceFile(text), { instanceOf: SlicenetError })
  t.is(error.code, 'SLICE_FILE_INVALID')
  return error.details?.['problems'] as readonly YamlProblem[]
}

/** Whether the text has just this mistake. */
const has = test.macro({
  exec(t, text: string, line: number, field: string, message: RegExp) {
    const problems = problemsOf(t, text)
    t.is(problems.length, 1, JSON.stringify(problems))
    t.is(problems[0]?.line, line)
    t.is(problems[0]?.field, field)
    t.regex(problems[0]?.message ?? '', message)
  },
  title: (given) => `${given ?? ''} is refused with its line and field`
})

test('a full description is read with its units resolved', (t) => {
  const { description, files } = parseSliceFile(FULL)
  t.deepEqual(description, {
    name: 'mesh',
    count: 3,
    minimum: 2,
    query: 'node.region == "eu" && node.cpu.free >= 200',
    resources: {
      cpuMillis: 200,
      cpuMillisMax: 1000,
      memoryBytes: 64 * MIB,
      diskBytes: 64 * MIB,
      egressBps: 1_000_000,
      egressBpsMax: 10_000_000,
      egressBytesPerDay: 1024 * MIB,
      pids: 64
    },
    ports: [{ protocol: 'tcp' }, { protocol: 'tcp', port: 9090 }, { protocol: 'icmp' }],
    rights: ['raw-socket'],
    leaseMs: 600_000,
    renew: true,
    image: 'debian',
    program: {
      argv: ['python3', '/srv/mesh.py', '--count', '3'],
      env: { KEY: 'value', PORT: '9090' },
      cwd: '/srv',
      user: 'nobody'
    }
  })
  t.deepEqual(files, [
    { path: '/srv/mesh.py', source: './mesh.py', line: 26 },
    { path: '/srv/run.sh', source: './run.sh', mode: 0o755, line: 27 }
  ])
})

test('what is left out has small defaults, and the minimum is the count', (t) => {
  const { description } = parseSliceFile(`${MINIMAL}count: 4\nresources: { cpu: 3 }\n`)
  t.is(description.minimum, 4)
  t.is(description.leaseMs, 3_600_000)
  t.is(description.resources.cpuMillisMax, 3000)
  t.deepEqual(description.ports, [])
  t.false('program' in description)
  t.false('query' in description)
})

const PLACED = `${MINIMAL}distinct: [site, organisation]
spread: country
rank: node.cpu.free * 2
pairwise: rtt_ms < 80 && a.region == b.region
`

test('how members are to lie to one another is read', (t) => {
  t.like(parseSliceFile(PLACED).description, {
    distinct: ['site', 'organisation'],
    spread: 'country',
    rank: 'node.cpu.free * 2',
    pairwise: 'rtt_ms < 80 && a.region == b.region'
  })
  t.deepEqual(parseSliceFile(`${MINIMAL}distinct: site\n`).description.distinct, ['site'])
})

test('the slice descriptions of docs/cli.md are read', async (t) => {
  const text = await readFile(new URL('../../docs/cli.md', import.meta.url), 'utf8')
  const examples = [...text.matchAll(/```yaml\n(name: [\s\S]*?)```/g)].map(([, yaml = '']) => yaml)
  t.is(examples.length, 4)
  const [, monitor, mesh, pairs] = examples.map((yaml) => parseSliceFile(yaml).description)
  t.deepEqual(monitor?.rights, ['administrative', 'cap-net-raw'])
  t.like(mesh, {
    distinct: ['site'],
    spread: 'organisation',
    rank: 'node.uplinkBps',
    pairwise: 'rtt_ms < 80'
  })
  t.deepEqual(pairs?.distinct, ['site', 'organisation'])
})

test('a query that cannot be read', has, `${MINIMAL}query: node.region ==\n`, 3, 'query', /cannot be read/)
test(
  'a query that looks at nothing there is',
  has,
  `${MINIMAL}count: 2\nquery: host.region == "eu"\n`,
  4,
  'query',
  /Unknown variable: host: host\.region == "eu"$/
)
test('a rank that is no number', has, `${MINIMAL}rank: node.cpu.free > 3\n`, 3, 'rank', /a number, not bool/)
test('a rank of text', has, `${MINIMAL}rank: '"x"'\n`, 3, 'rank', /a number, not string/)
test(
  'a condition on pairs that is none',
  has,
  `${MINIMAL}pairwise: rtt_ms + 1.0\n`,
  3,
  'pairwise',
  /true or false/
)
test('a condition on pairs about one node', has, `${MINIMAL}pairwise: node.x == 1\n`, 3, 'pairwise', /node/)
test('an attribute of no name', has, `${MINIMAL}spread: Site-Name\n`, 3, 'spread', /name of an attribute/)
test('no attributes', has, `${MINIMAL}distinct: []\n`, 3, 'distinct', /at least one/)
test('an attribute twice', has, `${MINIMAL}distinct: [site, site]\n`, 3, 'distinct[1]', /listed twice/)
test(
  'more attributes than are looked at',
  has,
  `${MINIMAL}distinct: [a, b, c, d, e]\n`,
  3,
  'distinct',
  /at most 4/
)

test('a misspelt field', has, `${MINIMAL}cuont: 3\n`, 3, 'cuont', /unknown field; did you mean count\?/)
test('a strange field', has, `${MINIMAL}colour: red\n`, 3, 'colour', /unknown field; known are name, count/)
test(
  'a misspelt resource',
  has,
  `${MINIMAL}resources:\n  cpumax: 1\n`,
  4,
  'resources.cpumax',
  /did you mean cpuMax/
)
test('a missing name', has, 'image: debian\n', 1, 'name', /missing/)
test('a missing image', has, 'name: mesh\n', 1, 'image', /missing/)
test('a missing program', has, `${MINIMAL}program: { cwd: / }\n`, 3, 'program.argv', /missing/)
test('a duplicate key', has, `${MINIMAL}name: again\n`, 3, '', /unique/)
test('text for a number', has, `${MINIMAL}count: three\n`, 3, 'count', /expected a whole number, got "three"/)
test('a fraction of a member', has, `${MINIMAL}count: 1.5\n`, 3, 'count', /integer/i)
test('no members', has, `${MINIMAL}count: 0\nminimum: 0\n`, 3, 'count', />=1/)
test(
  'a minimum beyond the count',
  has,
  `${MINIMAL}count: 2\nminimum: 3\n`,
  4,
  'minimum',
  /must not exceed count/
)
test('a number for text', has, 'name: 42\nimage: debian\n', 1, 'name', /expected text, got "42"/)
test('a slice name in upper case', has, 'name: Mesh\nimage: debian\n', 1, 'name', /a-z/)
test(
  'a size without unit',
  has,
  `${MINIMAL}resources: { memory: 64 }\n`,
  3,
  'resources.memory',
  /expected a size/
)
test(
  'a rate in bytes',
  has,
  `${MINIMAL}resources: { egress: 1MiB }\n`,
  3,
  'resources.egress',
  /expected a rate/
)
test(
  'a cap below the guarantee',
  has,
  `${MINIMAL}resources: { cpu: 2, cpuMax: 1 }\n`,
  3,
  'resources.cpuMax',
  /caps/
)
test('a lease without unit', has, `${MINIMAL}lease: 60\n`, 3, 'lease', /expected a duration/)
test('a wish to renew that is neither', has, `${MINIMAL}renew: often\n`, 3, 'renew', /expected true or false/)
test('a lease too long', has, `${MINIMAL}lease: 1000d\n`, 3, 'lease', /expected 1s to 90d/)
test('ranges of ports and GRE keys are read', (t) => {
  const { description } = parseSliceFile(
    `${MINIMAL}ports: [tcp/9100-9110, gre/4294967295, gre/any, udp/5-5]\n`
  )
  t.deepEqual(description.ports, [
    { protocol: 'tcp', port: 9100, last: 9110 },
    { protocol: 'gre', port: 4_294_967_295 },
    { protocol: 'gre' },
    { protocol: 'udp', port: 5 }
  ])
})

test('an unknown protocol', has, `${MINIMAL}ports: [sctp/any]\n`, 3, 'ports[0]', /expected tcp\/any/)
test('a port beyond the last', has, `${MINIMAL}ports: [tcp/70000]\n`, 3, 'ports[0]', /expected tcp\/any/)
test('a port below the first', has, `${MINIMAL}ports: [tcp/0]\n`, 3, 'ports[0]', /from 1 to 65535/)
test('a range that runs backwards', has, `${MINIMAL}ports: [udp/9-8]\n`, 3, 'ports[0]', /got udp\/9-8/)
test('a GRE key beyond the last', has, `${MINIMAL}ports: [gre/4294967296]\n`, 3, 'ports[0]', /4294967295/)
test('a port in a range before it', has, `${MINIMAL}ports: [tcp/5-9, tcp/9]\n`, 3, 'ports[1]', /tcp\/5-9/)
test('a port twice', has, `${MINIMAL}ports: [tcp/9, tcp/9]\n`, 3, 'ports[1]', /twice/)
test('bounds and a share are read with their units, as many as are said', (t) => {
  const shaping =
    'shaping: { icmp: 64kbps, options: 8kbps, newDestinations: 0.1Mbps, destinationsPerMinute: 30 }'
  t.deepEqual(parseSliceFile(`${MINIMAL}${shaping}\n`).description.shaping, {
    icmpBps: 64_000,
    optionsBps: 8000,
    newDestinationsBps: 100_000,
    destinationsPerMinute: 30
  })
  const share = parseSliceFile(`${MINIMAL}shaping: { egressShare: 3 }\n`).description
  t.deepEqual(share.shaping, { egressShare: 3 })
  t.is(parseSliceFile(MINIMAL).description.shaping, undefined)
})
test('an empty shaping', has, `${MINIMAL}shaping: {}\n`, 3, 'shaping', /expected one of icmp/)
test('a rate of nothing', has, `${MINIMAL}shaping: { icmp: 0 }\n`, 3, 'shaping.icmp', /at least/)
test(
  'a share of nothing',
  has,
  `${MINIMAL}shaping: { egressShare: 0 }\n`,
  3,
  'shaping.egressShare',
  /at least 1/
)
test(
  'a share too large',
  has,
  `${MINIMAL}shaping: { egressShare: 33 }\n`,
  3,
  'shaping.egressShare',
  /at most 32/
)
test('an unknown right', has, `${MINIMAL}rights: [raw-sockets]\n`, 3, 'rights[0]', /did you mean raw-socket/)
test(
  'a capability without the right to an administrative slice',
  has,
  `${MINIMAL}rights: [cap-net-raw]\n`,
  3,
  'rights',
  /cap-net-raw needs the right administrative/
)
test(
  'an administrative slice with a port',
  has,
  `${MINIMAL}ports: [tcp/any]\nrights: [administrative]\n`,
  4,
  'rights',
  /own no ports/
)
test('a capability that nobody leases', has, `${MINIMAL}rights: [cap-sys-admin]\n`, 3, 'rights[0]', /unknown/)
test('a relative path inside', has, `${MINIMAL}files: { srv/x: ./x }\n`, 3, 'files.srv/x', /absolute/)
test(
  'a path that climbs',
  has,
  `${MINIMAL}files: { /srv/../etc/x: ./x }\n`,
  3,
  'files./srv/../etc/x',
  /without/
)
test(
  'a mode that is none',
  has,
  `${MINIMAL}files: { /srv/x: { source: x, mode: 999 } }\n`,
  3,
  'files./srv/x.mode',
  /0755/
)
test(
  'a file without source',
  has,
  `${MINIMAL}files: { /srv/x: { mode: "0755" } }\n`,
  3,
  'files./srv/x.source',
  /missing/
)
test(
  'a list for a map',
  has,
  `${MINIMAL}resources: [1]\n`,
  3,
  'resources',
  /expected a map of fields, got a list/
)
test('an empty argv', has, `${MINIMAL}program: { argv: [] }\n`, 3, 'program.argv', /at least the program/)
test(
  'a bad variable name',
  has,
  `${MINIMAL}program: { argv: [a], env: { "A B": x } }\n`,
  3,
  'program.env.A B',
  /./
)
test('an alias', has, 'name: &a mesh\nimage: debian\n', 1, '', /anchors/)
test('a tag', has, `${MINIMAL}query: !js "x"\n`, 3, '', /tag/i)
test('a second document', has, `${MINIMAL}---\nname: other\n`, 3, '', /one YAML document/)
test('an empty file', has, '', 1, '', /empty/)
test('a list at the top', has, '- name\n', 1, '', /expected a map of fields/)

test('an unquoted mode is read as octal', (t) => {
  const { files } = parseSliceFile(`${MINIMAL}files: { /srv/x: { source: x, mode: 0755 } }\n`)
  t.is(files[0]?.mode, 0o755)
})

test('all mistakes are told at once, in the order of their lines', (t) => {
  const problems = problemsOf(t, 'name: Mesh\ncount: x\nresources:\n  memory: lots\n')
  t.deepEqual(
    problems.map(({ line, field }) => `${line} ${field}`),
    ['1 name', '1 image', '2 count', '4 resources.memory']
  )
})

test('the message names the file, the line and the field', (t) => {
  const error = t.throws(() => parseSliceFile('name: mesh\nimage: 5\n', { fileName: 'mesh.yaml' }))
  t.regex(error.message, /^mesh\.yaml line 2: image: expected text, got "5"$/)
})

test('a bomb of aliases is refused at its first anchor', (t) => {
  const levels = Array.from({ length: 20 }, (_, i) => `l${i}: &l${i} [${'*l' + Math.max(0, i - 1)},x]`)
  const [first] = problemsOf(t, `l: &l [x]\n${levels.join('\n')}\n`)
  t.regex(first?.message ?? '', /anchors|aliases/i)
})

test('a file of more than 64 KiB is refused before it is parsed', (t) => {
  const [problem] = problemsOf(t, `${MINIMAL}# ${'x'.repeat(64 * 1024)}\n`)
  t.regex(problem?.message ?? '', /at most 65536/)
})

test('deep nesting is refused, whatever it is made of', (t) => {
  problemsOf(t, `${MINIMAL}resources: ${'['.repeat(30_000)}\n`)
  problemsOf(t, `${MINIMAL}resources: ${'{a: '.repeat(10_000)}\n`)
  problemsOf(
    t,
    `${MINIMAL}resources:\n${Array.from({ length: 300 }, (_, i) => `${' '.repeat(i + 1)}a:`).join('\n')}\n`
  )
  problemsOf(t, `${MINIMAL}resources: ${'- '.repeat(30_000)}x\n`)
})

test('text that is no YAML gives a problem, not a crash', (t) => {
  for (const text of ['name: "mesh', '{', 'a: b: c', '\t- x', '%YAML 9\n---\na', '? [a]: b', '\u0000']) {
    t.true(problemsOf(t, text).length > 0, text)
  }
})
