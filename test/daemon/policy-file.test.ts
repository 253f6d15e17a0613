import { mkdtempDisposable, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { acceptedBy, matchedRule, type AdmissionPolicy } from '../../src/agent/admission-policy.ts'
import type { Clock } from '../../src/base/clock.ts'
import { SlicenetError } from '../../src/base/errors.ts'
import { silentLogger, type LogFields, type Logger } from '../../src/base/log.ts'
import { LIMITS } from '../../src/base/limits.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { parsePolicy } from '../../src/daemon/policy-file.ts'
import { PolicyKeeper, POLICY_POLL_MS } from '../../src/daemon/policy-keeper.ts'
import type { YamlProblem } from '../../src/service/yaml-reader.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { HOUR, makeKey } from '../ticket/fixtures.ts'

const staff = makeKey().principal
const banned = makeKey().principal
const partner = makeKey().principal

const FULL = `
rules:
  - name: banned
    match: { principals: [${banned}] }
    access: deny
  - name: staff
    match: { organisations: [${staff}] }
    longestTerm: 7d
    rights: [raw-socket]
    perPrincipal: { tickets: 64, cpu: 16, memory: 32GiB, disk: 200GiB, egress: 100Mbps }
    perOrganisation: { tickets: 512, cpu: 64 }
  - name: resellers
    match: { organisations: [${partner}], principals: [${staff}] }
    grants: wholesale
default:
  access: allow
  longestTerm: 2h
  perPrincipal: { tickets: 4 }
`

test('a rule bounds what its tickets say of the network', (t) => {
  const shaping = 'shaping: { icmp: 64kbps, destinationsPerMinute: 100, egressShare: 4 }'
  const { rules } = parsePolicy(`default:\n  access: allow\n  ${shaping}\n`, 'policy.yaml')
  t.deepEqual(rules[0]?.terms?.shaping, { icmpBps: 64_000, destinationsPerMinute: 100, egressShare: 4 })
  const denied = `default:\n  access: deny\n  ${shaping}\n`
  const error = t.throws(() => parsePolicy(denied, 'policy.yaml'), { code: 'CONFIG_INVALID' })
  t.regex(error?.message ?? '', /default.shaping.*means nothing where access is denied/)
})

test('a policy is read with its units resolved and what is left out filled in', (t) => {
  const { rules } = parsePolicy(FULL, 'policy.yaml')
  t.deepEqual(rules, [
    { name: 'banned', match: { principals: [banned], organisations: [] } },
    {
      name: 'staff',
      match: { principals: [], organisations: [staff] },
      terms: {
        grants: 'slices',
        durationMsMax: 7 * 24 * HOUR,
        rights: ['raw-socket'],
        perPrincipal: {
          tickets: 64,
          cpuMillis: 16_000,
          memoryBytes: 32 * 1024 ** 3,
          diskBytes: 200 * 1024 ** 3,
          egressBps: 100_000_000
        },
        perOrganisation: { tickets: 512, cpuMillis: 64_000 }
      }
    },
    {
      name: 'resellers',
      match: { principals: [staff], organisations: [partner] },
      terms: {
        grants: 'wholesale',
        durationMsMax: 30 * 24 * HOUR,
        rights: [],
        perPrincipal: { tickets: 256 },
        perOrganisation: {}
      }
    },
    {
      name: 'default',
      terms: {
        grants: 'slices',
        durationMsMax: 2 * HOUR,
        rights: [],
        perPrincipal: { tickets: 4 },
        perOrganisation: {}
      }
    }
  ])
})

test('an agent says whom its policy may grant slices to, unless that is anyone or more than an advert holds', (t) => {
  t.is(acceptedBy(parsePolicy(FULL, 'file')), undefined)
  const closed = FULL.replace(/access: allow[^]*/, 'access: deny\n')
  t.deepEqual(acceptedBy(parsePolicy(closed, 'file')), { principals: [], organisations: [staff] })
  const many = Array.from({ length: LIMITS.acceptedPrincipalsMax + 1 }, () => makeKey().principal)
  const rule = { name: 'many', match: { principals: many, organisations: [] } }
  const { rules } = parsePolicy(FULL, 'file')
  t.is(acceptedBy({ rules: [{ ...rule, ...(rules[1]?.terms && { terms: rules[1].terms }) }] }), undefined)
  t.deepEqual(acceptedBy({ rules: [rule] }), { principals: [], organisations: [] })
})

test('the policy that docs/operating.md shows is one, and does what it says', async (t) => {
  const text = await readFile(new URL('../../docs/operating.md', import.meta.url), 'utf8')
  const [, example = ''] = /```yaml\n(# policy\.yaml[^]*?)```/.exec(text) ?? []
  const keys = new Map<string, string>()
  const filled = example.replaceAll(/12D3Koo…\w*/g, (placeholder) => {
    const key = keys.get(placeholder) ?? makeKey().principal
    keys.set(placeholder, key)
    return key
  })
  const policy = parsePolicy(filled, 'policy.yaml')
  const ruleOf = (principal: string, organisations: string[] = []): string | undefined =>
    matchedRule(policy, principal, organisations)?.rule.name
  const [out = '', ours = '', others = ''] = keys.values()
  t.is(ruleOf(out), 'banned')
  t.is(ruleOf(out, [ours]), 'banned')
  t.is(ruleOf(staff, [ours]), 'our people')
  t.is(ruleOf(staff, [others]), 'partner')
  t.is(ruleOf(staff), 'default')
})

const wrong: Readonly<
  Record<string, readonly [from: string, to: string, line: number, field: string, message: RegExp]>
> = {
  'an unknown field': ['access: deny', 'acess: deny', 5, 'rules[0].acess', /did you mean access/],
  'an unknown access': ['access: deny', 'access: maybe', 5, 'rules[0].access', /known are allow, deny/],
  'a principal that is none': [
    `principals: [${banned}]`,
    'principals: [bob]',
    4,
    'rules[0].match.principals[0]',
    /peer ID/
  ],
  'a rule without a match': [`    match: { principals: [${banned}] }\n`, '', 3, 'rules[0].match', /missing/],
  'a rule that matches nobody': [
    `{ principals: [${banned}] }`,
    '{}',
    4,
    'rules[0].match',
    /who is left is for default/
  ],
  'one name twice': ['name: resellers', 'name: staff', 12, 'rules[2]', /another rule "staff"/],
  'a rule of the name of the default': [
    'name: staff',
    'name: default',
    6,
    'rules[1]',
    /another rule "default"/
  ],
  'a term without a unit': ['longestTerm: 7d', 'longestTerm: 7', 8, 'rules[1].longestTerm', /expected/],
  'a term that is too long': [
    'longestTerm: 7d',
    'longestTerm: 700d',
    8,
    'rules[1].longestTerm',
    /expected 1s to/
  ],
  'a right that there is not': ['raw-socket', 'root', 9, 'rules[1].rights[0]', /unknown/],
  'an amount of another kind': [
    'memory: 32GiB',
    'memory: 32Mbps',
    10,
    'rules[1].perPrincipal.memory',
    /expected/
  ],
  'a count that is no number': [
    'tickets: 64',
    'tickets: many',
    10,
    'rules[1].perPrincipal.tickets',
    /whole number/
  ],
  'an unknown quota': ['disk: 200GiB', 'pids: 3', 10, 'rules[1].perPrincipal.pids', /known are|did you mean/],
  'a quota for organisations that are not matched': [
    'perPrincipal: { tickets: 4 }',
    'perOrganisation: { tickets: 4 }',
    18,
    'default.perOrganisation',
    /nobody is matched by an organisation/
  ],
  'terms for whom nothing is granted': [
    'access: allow',
    'access: deny',
    17,
    'default.longestTerm',
    /means nothing/
  ],
  'no default': [
    FULL.slice(FULL.indexOf('default:')),
    '',
    2,
    'default',
    /missing: whether others are served/
  ],
  'a default that does not say whether': [
    '  access: allow\n',
    '',
    16,
    'default.access',
    /missing: allow or deny/
  ]
}
for (const [name, [from, to, line, field, message]] of Object.entries(wrong)) {
  test(`a policy with ${name} is refused with its line and field`, (t) => {
    t.true(FULL.includes(from))
    const [first] = problemsOf(t, FULL.replace(from, to))
    t.like(first, { line, field })
    t.regex(first?.message ?? '', message)
  })
}

function problemsOf(t: ExecutionContext, text: string): readonly YamlProblem[] {
  const error = t.throws(() => parsePolicy(text, 'policy.yaml'), { instanceOf: SlicenetError })
  t.is(error.code, 'CONFIG_INVALID')
  t.regex(error.message, /^policy\.yaml line \d+: /)
  return error.details?.['problems'] as readonly YamlProblem[]
}

test('bytes that are no policy are refused: none, too many, an alias, two documents', (t) => {
  for (const text of ['', '#'.repeat(LIMITS.policyFileBytesMax + 1), 'rules: &a [*a]', '---\n---\n', '[1]']) {
    t.throws(() => parsePolicy(text, 'file'), { code: 'CONFIG_INVALID' })
  }
})

test('a configuration names a policy file beside itself, or says it all by itself, but not both', (t) => {
  const config = (agent: string): string => `name: one\nagent: ${agent}`
  t.is(
    parseConfig(config('{ policy: policy.yaml }'), '/etc/slicenet/slicenet.yaml').agent?.policy,
    '/etc/slicenet/policy.yaml'
  )
  t.is(parseConfig(config('{ policy: /srv/p.yaml, hold: 2m }'), '/etc/x.yaml').agent?.policy, '/srv/p.yaml')
  t.is(parseConfig(config('{ holders: anyone }'), '/etc/x.yaml').agent?.policy, undefined)
  for (const field of [
    'holders: anyone',
    'rights: []',
    'ticketsPerHolder: 3',
    'partners: []',
    'longestTerm: 1d'
  ]) {
    t.throws(() => parseConfig(config(`{ policy: p, ${field} }`), 'x.yaml'), {
      code: 'CONFIG_INVALID',
      message: /either policy or holders/
    })
  }
})

interface Kept extends AsyncDisposable {
  readonly file: string
  readonly taken: AdmissionPolicy[]
  readonly told: (LogFields | undefined)[]
  readonly keeper: PolicyKeeper
  /** Time passes until the file was looked at so often. */
  look(times: number): Promise<void>
}

async function kept(text: string): Promise<Kept> {
  const directory = await mkdtempDisposable(join(tmpdir(), 'slicenet-policy-'))
  const file = join(directory.path, 'policy.yaml')
  await writeFile(file, text)
  const clock = new ManualClock()
  const keeping = { sleepers: 0 }
  const watched: Clock = {
    now: () => clock.now(),
    monotonic: () => clock.monotonic(),
    timeout: (ms) => clock.timeout(ms),
    async sleep(ms, options) {
      keeping.sleepers++
      await clock.sleep(ms, options).finally(() => keeping.sleepers--)
    }
  }
  const taken: AdmissionPolicy[] = []
  const told: (LogFields | undefined)[] = []
  const logger: Logger = { ...silentLogger, warn: (_message, fields) => void told.push(fields) }
  const keeper = new PolicyKeeper(
    { clock: watched, logger, take: (policy) => void taken.push(policy) },
    { file }
  )
  return {
    file,
    taken,
    told,
    keeper,
    async look(times) {
      for (let time = 0; time < times; time++) {
        await clock.advance(POLICY_POLL_MS)
        // The file is read by other threads; then the keeper sleeps again.
        while (keeping.sleepers === 0) await new Promise((resolve) => setImmediate(resolve))
      }
    },
    async [Symbol.asyncDispose]() {
      await keeper.stop()
      await directory.remove()
    }
  }
}

const names = ({ taken }: Kept): string[][] => taken.map(({ rules }) => rules.map(({ name }) => name))
const OTHER = FULL.replace('name: staff', 'name: people')

test('a policy is taken again when its file changed, and only then', async (t) => {
  await using policy = await kept(FULL)
  await policy.keeper.start()
  await policy.look(3)
  t.is(policy.taken.length, 1)
  await writeFile(policy.file, OTHER)
  await policy.look(3)
  t.deepEqual(names(policy)[1], ['banned', 'people', 'resellers', 'default'])
  // As editors and configuration management do it.
  await writeFile(`${policy.file}.new`, FULL)
  await rename(`${policy.file}.new`, policy.file)
  await policy.look(3)
  t.is(policy.taken.length, 3)
  t.deepEqual(policy.told, [])
})

test('what is no policy is told once, with its line, and the policy before stays', async (t) => {
  await using policy = await kept(FULL)
  await policy.keeper.start()
  await writeFile(policy.file, FULL.replace('access: deny', 'access: maybe'))
  await policy.look(4)
  t.is(policy.taken.length, 1)
  t.is(policy.told.length, 1)
  t.regex(String(policy.told[0]?.['problem']), /policy\.yaml line 5: rules\[0\]\.access: unknown: maybe/)
  await rm(policy.file)
  await policy.look(4)
  t.is(policy.told.length, 2)
  await writeFile(policy.file, OTHER)
  await policy.look(3)
  t.is(policy.taken.length, 2)
})

test('a file that is being written is not taken by halves, though a half be a policy by itself', async (t) => {
  await using policy = await kept(FULL)
  await policy.keeper.start()
  const whole = `default:\n  access: allow\nrules:\n  - { name: banned, match: { principals: [${banned}] }, access: deny }\n`
  const half = whole.slice(0, whole.indexOf('rules:'))
  t.notThrows(() => parsePolicy(half, 'file'))
  await writeFile(policy.file, half)
  await policy.look(1)
  await writeFile(policy.file, whole)
  await policy.look(3)
  t.deepEqual(names(policy).slice(1), [['banned', 'default']])
})

test('an agent does not begin with a policy that is none', async (t) => {
  await using policy = await kept(FULL.replace('default:', 'defaults:'))
  await t.throwsAsync(policy.keeper.start(), {
    code: 'CONFIG_INVALID',
    message: /line 2: default: missing: .* \(and 1 more\)/
  })
  await rm(policy.file)
  await t.throwsAsync(policy.keeper.start(), {
    code: 'CONFIG_INVALID',
    message: /cannot be read: there is no file/
  })
  t.deepEqual(policy.taken, [])
})
