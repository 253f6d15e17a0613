/** What is noted of administrative slices, when, and that it can be relied on. */
import { appendFile, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import anyTest, { type TestFn } from 'ava'
import { LIMITS } from '../../src/base/limits.ts'
import { silentLogger } from '../../src/base/log.ts'
import { AuditTrail, type AuditEntry } from '../../src/node/audit-trail.ts'
import { ProcessWatch } from '../../src/node/process-watch.ts'
import type { Lease } from '../../src/ticket/lease.ts'
import type { Right } from '../../src/ticket/rights.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { FakeProgram } from '../../src/enforce/fake-enforcer.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { FaultyEnforcer } from '../enforce/faulty-enforcer.ts'
import { HOUR, NOW, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import {
  codeOf,
  deleteLease,
  leaseOf,
  nodeLab,
  redeem,
  renew,
  type NodeLab,
  type Presented
} from './node-lab.ts'

const test = anyTest as TestFn<{ directory: string; clock: ManualClock }>
const agent = makeKey()
const administrator = makeKey()
const ordinary = makeKey()
const RIGHTS: readonly Right[] = ['administrative', 'cap-net-raw']
const administrative = { holders: [administrator.principal], capabilities: ['cap-net-raw' as const] }
const subject = { lease: 'l', slice: 'watch', principal: 'p', rights: RIGHTS }

test.beforeEach(async (t) => {
  t.context = { directory: await mkdtemp(join(tmpdir(), 'slicenet-audit-')), clock: new ManualClock() }
})
test.afterEach.always(async (t) => {
  await rm(t.context.directory, { recursive: true, force: true })
})

async function trailIn(
  { directory, clock }: { directory: string; clock: ManualClock },
  fileBytesMax?: number
): Promise<AuditTrail> {
  const init = {
    directory: join(directory, 'audit'),
    ...(fileBytesMax === undefined ? {} : { fileBytesMax })
  }
  const trail = new AuditTrail({ clock, logger: silentLogger }, init)
  await trail.start()
  return trail
}

/** Others run until they are ended. */
const forEver: FakeProgram = async ({ signal }) =>
  new Promise((resolve) => signal.addEventListener('abort', () => resolve(143)))
const PROGRAMS: Readonly<Record<string, FakeProgram>> = {
  seven: async () => 7,
  watch: forEver,
  a: forEver,
  x: forEver
}

interface Watched {
  readonly lab: NodeLab
  readonly audit: AuditTrail
  readonly presented: Presented
  readonly lease: Signed<Lease>
}

async function leased(context: { directory: string; clock: ManualClock }, rights = RIGHTS): Promise<Watched> {
  const audit = await trailIn(context)
  const findProgram = (name: string) => PROGRAMS[name]
  const enforcer = new FaultyEnforcer({ clock: context.clock }, { findProgram })
  const lab = await nodeLab({ clock: context.clock, enforcer, administrative, audit })
  const delegation = delegate(lab.key, agent, { rights: [...RIGHTS, 'raw-socket'] })
  const tickets = [issue(delegation, agent, administrator, { rights, ports: [] })]
  const presented = { delegation, tickets, holder: administrator }
  return { lab, audit, presented, lease: leaseOf(await redeem(lab, presented)) }
}

const told = (entries: readonly AuditEntry[]): string[] =>
  entries.map(({ act, outcome }) => `${act} ${outcome}`)

test('all that its holder does is noted before it is done and when it was, from the lease to its end', async (t) => {
  const { lab, audit, presented, lease } = await leased(t.context)
  const call = lab.as(administrator.principal)
  const own = { lease: lease.id }
  await call('upload', { ...own, files: [{ path: '/srv/run', content: Buffer.from('abc'), mode: 0o755 }] })
  const program = { argv: ['watch', '--all'], env: { TOKEN: 'secret' }, user: 'mesh', cwd: '/srv' }
  await call('launch', { ...own, program })
  await call('signal', { ...own, signal: 'SIGUSR1' })
  await call('freeze', own)
  await call('thaw', own)
  await call('addKey', { ...own, key: 'ssh-ed25519 AAAA me' })
  await call('delKey', { ...own, key: 'ssh-ed25519 AAAA me' })
  await call('stop', own)
  await t.throwsAsync(call('signal', { ...own, signal: 'SIGUSR1' }), { code: 'NOT_FOUND' })
  const supersedes = presented.tickets[0]?.id ?? ''
  const body = { seq: 2, notAfter: NOW + 2 * HOUR, supersedes, rights: RIGHTS, ports: [] }
  const tickets = [issue(presented.delegation, agent, administrator, body)]
  const changes = { renews: lease.id, nonce: new Uint8Array(16).fill(2) }
  const renewed = leaseOf(await renew(lab, { ...presented, tickets, changes }))
  await deleteLease(lab, renewed, administrator)
  const entries = await audit.read(1000)
  const both = (act: string): string[] => [`${act} begins`, `${act} done`]
  t.deepEqual(told(entries), [
    ...['lease', 'upload', 'launch', 'signal', 'freeze', 'thaw', 'addKey', 'delKey', 'stop'].flatMap(both),
    'signal begins',
    'signal NOT_FOUND',
    'renew done',
    ...both('end')
  ])
  for (const { slice, principal } of entries)
    t.deepEqual([slice, principal], ['mesh', administrator.principal])
  t.deepEqual(new Set(entries.map((entry) => entry.lease)), new Set([lease.id, renewed.id]))
  t.like(entries[0]?.details, { rights: RIGHTS, vserver: lease.body.vserver, image: lease.body.image })
  t.deepEqual(entries[2]?.details, { files: ['/srv/run 3 bytes 755'] })
  t.deepEqual(entries[4]?.details, { argv: ['watch', '--all'], user: 'mesh', cwd: '/srv' })
  t.deepEqual(entries[6]?.details, { signal: 'SIGUSR1' })
  t.notRegex(await readFile(join(t.context.directory, 'audit/acts.jsonl'), 'utf8'), /secret/)
})

test('a program that is attached to is noted with its exit code, and one that was not started with the error', async (t) => {
  const { lab, audit, lease } = await leased(t.context)
  const call = lab.as(administrator.principal)
  const exec = async (argv: string[]): Promise<unknown> =>
    call('exec', { lease: lease.id, program: { argv, env: {} } })
  t.deepEqual(await exec(['seven', 'times']), { exitCode: 7 })
  await t.throwsAsync(exec(['missing']), { code: 'PROGRAM_NOT_FOUND' })
  const entries = await audit.read(4)
  t.deepEqual(told(entries), ['exec begins', 'exec done', 'exec begins', 'exec PROGRAM_NOT_FOUND'])
  t.deepEqual(entries[1]?.details, { argv: ['seven', 'times'], exitCode: 7 })
})

test('of ordinary slices nothing is noted', async (t) => {
  const { lab, audit, lease } = await leased(t.context, ['raw-socket'])
  await lab.as(administrator.principal)('launch', { lease: lease.id, program: { argv: ['x'], env: {} } })
  await deleteLease(lab, lease, administrator)
  t.deepEqual(await audit.read(10), [])
})

test('refusals are noted of tickets that an agent of the node signed, and not of made-up ones', async (t) => {
  const audit = await trailIn(t.context)
  const delegations = {
    fault: () => undefined,
    isAgent: (principal: string) => principal === agent.principal,
    freed: () => {}
  }
  const lab = await nodeLab({ clock: t.context.clock, administrative, audit, delegations })
  const by = (issuer: typeof agent): Presented => {
    const delegation = delegate(lab.key, issuer, { rights: [...RIGHTS] })
    const tickets = [issue(delegation, issuer, ordinary, { rights: RIGHTS, ports: [] })]
    return { delegation, tickets, holder: ordinary }
  }
  t.is(codeOf(await redeem(lab, by(ordinary))), 'DENIED')
  t.deepEqual(await audit.read(10), [])
  t.is(codeOf(await redeem(lab, by(agent))), 'DENIED')
  const [entry, ...more] = await audit.read(10)
  t.deepEqual(more, [])
  t.like(entry, { act: 'refuse', outcome: 'DENIED', principal: ordinary.principal, slice: 'mesh' })
  t.false('lease' in entry!)
})

test('what cannot be noted is not done', async (t) => {
  const { lab, lease } = await leased(t.context)
  const call = lab.as(administrator.principal)
  const launch = (): Promise<unknown> =>
    call('launch', { lease: lease.id, program: { argv: ['x'], env: {} } })
  // A directory that is gone takes no entry, whoever writes.
  await rm(join(t.context.directory, 'audit'), { recursive: true })
  await t.throwsAsync(launch(), { code: 'STORE_FAILED' })
  t.is((await call('status', { lease: lease.id })).state, 'created')
  // A lease ends all the same.
  await deleteLease(lab, lease, administrator)
  t.deepEqual(await lab.enforcer.running(), [])
})

test('files are for the owner alone, take turns and are bounded; processes push out no act', async (t) => {
  const trail = await trailIn(t.context, 4096)
  await trail.note(subject, 'launch', 'begins', { argv: ['first'] })
  for (let count = 0; count < 300; count++)
    await trail.note(subject, 'process', 'seen', { argv: [`p${count}`] })
  const directory = join(t.context.directory, 'audit')
  const names = await readdir(directory)
  t.deepEqual(
    names.filter((name) => name.startsWith('processes')),
    ['processes.1.jsonl', 'processes.2.jsonl', 'processes.3.jsonl', 'processes.jsonl']
  )
  for (const name of names) {
    const { mode, size } = await stat(join(directory, name))
    t.is(mode & 0o777, 0o600)
    t.true(size < 4096 + LIMITS.auditEntryBytesMax)
  }
  t.is((await stat(directory)).mode & 0o777, 0o700)
  const entries = await trail.read(1000)
  t.deepEqual(entries[0]?.details, { argv: ['first'] }, 'the act is still there')
  t.deepEqual(entries.at(-1)?.details, { argv: ['p299'] })
  t.true(entries.length < 300, 'the first processes are not')
  t.is((await trail.read(5)).length, 5)
})

test('an entry is bounded, whatever is in it, and one that a crash cut off spoils no other', async (t) => {
  const trail = await trailIn(t.context)
  const argv = Array.from(
    { length: LIMITS.argumentsMax },
    (_one, index) => `${index}${'\u20ac'.repeat(5000)}`
  )
  await trail.note(subject, 'exec', 'begins', { argv, user: 'x' })
  const file = join(t.context.directory, 'audit/acts.jsonl')
  t.true((await stat(file)).size < 4 * LIMITS.auditEntryBytesMax)
  const [entry] = await trail.read(1)
  t.regex((entry!.details.argv as string[]).at(-1) ?? '', /^\u2026 \d+ more$/)
  await appendFile(file, '{"time": 1, "act": "la')
  const again = await trailIn(t.context)
  await again.note(subject, 'stop', 'done')
  t.deepEqual(told(await again.read(10)), ['exec begins', 'stop done'])
})

test('each process is noted once, and again when it runs something else; no more than so many a minute', async (t) => {
  const { lab, audit, lease } = await leased(t.context)
  const { manager, enforcer, clock } = lab
  const watch = new ProcessWatch({ manager, enforcer, audit, clock, logger: silentLogger })
  const seen = async (): Promise<unknown[]> =>
    (await audit.read(1000))
      .filter(({ act }) => act === 'process')
      .map(({ details }) => details.argv ?? details)
  await watch.look()
  await watch.look()
  t.deepEqual(await seen(), [['init']])
  await lab.as(administrator.principal)('launch', { lease: lease.id, program: { argv: ['a', 'b'], env: {} } })
  await watch.look()
  await watch.look()
  t.deepEqual(await seen(), [['init'], ['a', 'b']])
  const many = Array.from({ length: 1000 }, (_one, index) => ({
    pid: index,
    startedTicks: 1,
    uid: 0,
    argv: ['many']
  }))
  enforcer.processes = async () => many
  await watch.look()
  t.is((await seen()).length, LIMITS.auditProcessesPerMinute)
  enforcer.processes = async () => [{ pid: 1, startedTicks: 1, uid: 0, argv: ['another'] }]
  await clock.advance(60_000)
  await watch.look()
  t.deepEqual((await seen()).slice(-2), [{ passedOver: 1002 - LIMITS.auditProcessesPerMinute }, ['another']])
})
