import test, { type ExecutionContext } from 'ava'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createKey } from '../../src/daemon/key-file.ts'
import { cli, type Finished } from './cli-fixture.ts'

async function home(t: ExecutionContext): Promise<{ home: string; principal: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'slicenet-org-'))
  t.teardown(() => rm(directory, { recursive: true }))
  const { principal } = await createKey(join(directory, 'identity.key'))
  return { home: directory, principal }
}

const codeOf = ({ json }: Finished): unknown => (json()['error'] as { code?: unknown } | undefined)?.code
const DAY = 24 * 3_600_000

test('an organisation vouches, and the member takes it in', async (t) => {
  const [organisation, alice, mallory] = [await home(t), await home(t), await home(t)]
  const vouched = await cli(['org', 'vouch', alice.principal, '--name', 'example.org'], organisation)
  t.is(vouched.exitCode, 0, vouched.stderr)
  t.regex(vouched.stdout, /^slicenet-membership-[1-9A-HJ-NP-Za-km-z]+\n$/)
  t.is((await cli(['org', 'list'], alice)).stdout, 'Nobody vouches for this peer.\n')
  for (let times = 0; times < 2; times++) {
    const joined = await cli(['org', 'join', vouched.stdout.trim(), '--json'], alice)
    t.is(joined.exitCode, 0, joined.stdout)
    t.like(joined.json(), {
      issuer: organisation.principal,
      organisation: 'example.org',
      member: alice.principal
    })
  }
  const { memberships } = (await cli(['org', 'list', '--json'], alice)).json() as {
    memberships: { issuer: string; notAfter: string }[]
  }
  t.is(memberships.length, 1)
  t.is(memberships[0]?.issuer, organisation.principal)
  const left = Date.parse(memberships[0]?.notAfter ?? '') - Date.now()
  t.true(left > 29 * DAY && left <= 30 * DAY)
  t.regex((await cli(['org', 'list'], alice)).stdout, /example\.org {2}12D3KooW/)
  const foreign = await cli(['org', 'join', vouched.stdout, '--json'], mallory)
  t.is(codeOf(foreign), 'MEMBERSHIP_FOREIGN')
  t.is(foreign.exitCode, 5)
  t.deepEqual(await readdir(mallory.home), ['identity.key'])
})

test('a membership travels as a file too, which is never replaced', async (t) => {
  const [organisation, alice] = [await home(t), await home(t)]
  const file = join(alice.home, 'alice.membership')
  const argv = ['org', 'vouch', alice.principal, '--name', 'x', '--for', '1h', '--out', file]
  t.is((await cli(argv, organisation)).exitCode, 0)
  t.is(codeOf(await cli([...argv, '--json'], organisation)), 'NAME_TAKEN')
  t.regex(await readFile(file, 'utf8'), /^slicenet-membership-\w+\n$/)
  t.is((await cli(['org', 'join', file], alice)).exitCode, 0)
  const inspected = await cli(['ticket', 'inspect', file], alice)
  t.regex(inspected.stdout, /^type: +membership\n/)
  const later = { now: () => Date.now() + DAY }
  t.is(
    codeOf(await cli(['org', 'join', file, '--json'], { ...alice, services: later })),
    'MEMBERSHIP_EXPIRED'
  )
  t.deepEqual((await cli(['org', 'list', '--json'], { ...alice, services: later })).json()['memberships'], [])
})

test('what is asked for wrongly is refused with a code', async (t) => {
  const [organisation, alice] = [await home(t), await home(t)]
  const refused = async (argv: string[], code: string, who = organisation): Promise<void> => {
    const finished = await cli([...argv, '--json'], who)
    t.is(codeOf(finished), code, argv.join(' '))
  }
  const vouch = ['org', 'vouch', alice.principal]
  await refused(vouch, 'USAGE')
  await refused(['org', 'vouch', 'alice', '--name', 'x'], 'KEY_INVALID')
  await refused([...vouch, '--name', 'x', '--for', '3y'], 'USAGE')
  await refused([...vouch, '--name', 'x', '--for', '9999d'], 'USAGE')
  await refused([...vouch, '--name', ''], 'USAGE')
  await refused(['org', 'join', 'slicenet-membership-zzz'], 'ENCODING_INVALID', alice)
  await refused(['org', 'join', '/nowhere'], 'NOT_FOUND', alice)
  const { stdout } = await cli([...vouch, '--name', 'x'], organisation)
  await refused(['org', 'join', stdout.trim().slice(0, -1)], 'ENCODING_INVALID', alice)
  await refused(['org', 'join', stdout.replace('membership', 'invite')], 'ENCODING_INVALID', alice)
  await refused(['invite', 'create', '--name', 'x'], 'DAEMON_UNREACHABLE')
  const at = ['invite', 'create', '--name', 'x', '--bootstrap']
  await refused([...at, '/ip4/127.0.0.1/tcp/1'], 'USAGE')
  await refused([...at, 'nonsense'], 'USAGE')
  await refused(['join', stdout.trim()], 'ENCODING_INVALID', alice)
})
