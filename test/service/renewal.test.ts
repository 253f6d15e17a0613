import test from 'ava'
import { settle } from '../base/manual-clock.ts'
import { openAnyObject } from '../../src/ticket/any-object.ts'
import type { SliceDescription } from '../../src/service/slice.ts'
import { HOUR, makeKey } from '../ticket/fixtures.ts'
import { vouch } from '../ticket/memberships.ts'
import { RETRY_MS, overlay, slice, type Overlay } from './overlay.ts'

const SECOND = 1000
const MINUTE = 60 * SECOND
/** A minute long: the manual clock wakes every loop of every node on its way. */
const mesh = (count: number, changes: Partial<SliceDescription> = {}): SliceDescription =>
  slice({ count, leaseMs: MINUTE, ...changes })
const renewals = ({ calls }: Overlay): string[] => calls.filter((call) => call.startsWith('renewLease'))

/** The ends of the leases that hold something at their nodes, earliest first. */
function ends({ nodes }: Overlay): number[] {
  return nodes
    .flatMap(({ manager }) => manager.table.holding().map(({ lease }) => lease.body.notAfter))
    .sort((a, b) => a - b)
}

async function vservers({ nodes }: Overlay): Promise<string[]> {
  const running = await Promise.all(nodes.map(({ enforcer }) => enforcer.running()))
  return running.flat().toSorted()
}

test('a renewed slice goes on in the same virtual machines, to the end that was asked for', async (t) => {
  const one = await overlay({ nodes: 3, agents: 2 })
  const before = await one.services.create(mesh(3))
  const running = await vservers(one)
  await one.clock.advance(30 * SECOND)
  const steps: string[] = []
  const { members, notAfter } = await one.services.renew('mesh', {
    durationMs: 2 * MINUTE,
    onProgress: ({ step }) => void steps.push(step)
  })
  t.deepEqual(steps, ['renew'])
  t.is(notAfter, one.clock.now() + 2 * MINUTE)
  t.true(members.every((member) => member.renewed && member.notAfter === notAfter))
  t.deepEqual(ends(one), [notAfter, notAfter, notAfter])
  t.deepEqual(await vservers(one), running)
  const after = await one.services.show('mesh')
  t.is(after.notAfter, notAfter)
  t.deepEqual(
    after.members.map(({ vserver, ports }) => ({ vserver, ports })),
    before.members.map(({ vserver, ports }) => ({ vserver, ports }))
  )
  t.true(after.members.every(({ state }) => state === 'running'))
  await one.clock.advance(MINUTE)
  t.is((await vservers(one)).length, 3, 'the first end is past')
  await one.clock.advance(MINUTE)
  t.is((await vservers(one)).length, 0)
})

test('a renewed slice is renewed again, deleted, and leaves nothing', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  await one.services.create(mesh(2))
  for (let term = 0; term < 3; term++) {
    await one.clock.advance(40 * SECOND)
    t.is((await one.services.renew('mesh')).notAfter, one.clock.now() + MINUTE)
  }
  t.deepEqual(await one.services.delete('mesh'), { deleted: 2, unreachable: [] })
  t.deepEqual(one.leases(), [])
  t.deepEqual(await vservers(one), [])
})

test('a member that is not renewed stays as it was, and the others are', async (t) => {
  const one = await overlay({ nodes: 3, agents: 1 })
  const { notAfter: before = 0 } = await one.services.create(mesh(3, { leaseMs: 3 * MINUTE }))
  await one.clock.advance(30 * SECOND)
  one.fault = (method, node) => (method === 'renewLease' && node === 'n1' ? 'unreachable' : undefined)
  const { members, notAfter } = await one.services.renew('mesh')
  t.is(notAfter, before)
  t.deepEqual(
    members.map(({ nodeName, renewed, reason }) => [nodeName, renewed, reason?.code]),
    [
      ['n0', true, undefined],
      ['n1', false, 'PEER_UNREACHABLE'],
      ['n2', true, undefined]
    ]
  )
  t.is(members[1]?.notAfter, before)
  t.is((await one.services.show('mesh')).state, 'active')
  one.fault = () => undefined
  await one.clock.advance(30 * SECOND)
  t.is(new Set(ends(one)).size, 1, 'what was begun is seen through')
})

test('deleting a slice breaks off a renewal that a silent node holds up', async (t) => {
  for (const renew of [false, true]) {
    const one = await overlay({ nodes: 2, agents: 1 })
    await one.services.create(mesh(2, { renew }))
    one.fault = (method, node) => (method === 'renewLease' && node === 'n1' ? 'silent' : undefined)
    let renewal: Promise<unknown> = Promise.resolve()
    if (renew) await one.clock.advance(50 * SECOND)
    else {
      await one.clock.advance(30 * SECOND)
      renewal = t.throwsAsync(one.services.renew('mesh'), { code: 'BUSY', message: /is being deleted/ })
    }
    await settle()
    await t.throwsAsync(one.services.renew('mesh'), { code: 'BUSY' }, 'a renewal is under way')
    t.deepEqual(await one.services.delete('mesh'), { deleted: 2, unreachable: [] })
    await renewal
    t.deepEqual(one.leases(), [])
    t.deepEqual(await one.services.list(), [])
    await t.throwsAsync(one.services.delete('mesh'), { code: 'NOT_FOUND' })
  }
})

test('whoever vouches for the holder is shown with each demand for a lease', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(mesh(1))
  t.deepEqual(one.showing, [])
  one.shown.push(vouch(makeKey(), one.user.principal).bytes)
  await one.clock.advance(30 * SECOND)
  await one.services.renew('mesh')
  await one.services.create(mesh(1, { name: 'other' }))
  t.deepEqual(one.showing, ['renewLease n0', 'newLease n0'])
})

test('a brief list asks no node', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(mesh(1))
  one.fault = () => 'silent'
  const states = async (): Promise<string[]> =>
    (await one.services.list({ brief: true })).flatMap(({ members }) => members.map(({ state }) => state))
  t.deepEqual(await states(), ['unknown'])
  await one.clock.advance(MINUTE)
  t.deepEqual(await states(), ['ended'])
})

test('an agent’s refusal is told, and nothing changes', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  await one.services.create(mesh(2))
  const before = ends(one)
  const { members } = await one.services.renew('mesh', { durationMs: 5 * HOUR })
  t.true(members.every(({ renewed, reason }) => !renewed && reason?.code === 'QUOTA_EXCEEDED'))
  t.deepEqual(ends(one), before)
  t.deepEqual(renewals(one), [])
})

test('a term that ends no later is refused before anybody is asked', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(mesh(1))
  const { members } = await one.services.renew('mesh', { durationMs: 30 * SECOND })
  t.is(members[0]?.reason?.code, 'LEASE_NOT_EXTENDED')
  t.deepEqual(renewals(one), [])
  await t.throwsAsync(one.services.renew('other'), { code: 'NOT_FOUND' })
})

test('a lost reply is asked for again and brings the same lease', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(mesh(1))
  await one.clock.advance(30 * SECOND)
  let lost = 1
  one.fault = (method) => (method === 'renewLease' && lost-- > 0 ? 'lost reply' : undefined)
  const { members } = await one.services.renew('mesh')
  t.is(renewals(one).length, 2)
  t.deepEqual(
    members.map(({ lease }) => lease),
    one.leases()
  )
})

test('what is asked for after a renewal was left open is brought about, and not what was asked for before', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(mesh(1))
  await one.clock.advance(10 * SECOND)
  one.fault = (method) => (method === 'renewLease' ? 'lost reply' : undefined)
  t.false((await one.services.renew('mesh', { durationMs: 2 * MINUTE })).members[0]?.renewed)
  one.fault = () => undefined
  const { notAfter, members } = await one.services.renew('mesh', { durationMs: 10 * MINUTE })
  t.true(members[0]?.renewed)
  t.is(notAfter, one.clock.now() + 10 * MINUTE)
  t.deepEqual(ends(one), [notAfter])
})

for (const fault of ['die-before', 'die-after'] as const) {
  test(`after a crash (${fault}) at any commit a renewal is seen through or never was`, async (t) => {
    for (let commit = 1; commit <= 2; commit++) {
      const one = await overlay({ nodes: 1, agents: 1 })
      const { notAfter: before = 0 } = await one.services.create(mesh(1))
      await one.clock.advance(30 * SECOND)
      const wanted = one.clock.now() + MINUTE
      one.store.plan(commit, fault)
      await one.services.renew('mesh').catch(() => {})
      const asked = renewals(one).length
      const again = await one.restart()
      await one.clock.advance(RETRY_MS)
      const wasWritten = commit > 1 || fault === 'die-after'
      const { notAfter, members } = await again.services.show('mesh')
      t.is(notAfter, wasWritten ? wanted : before, `commit ${commit}`)
      t.is(members[0]?.state, 'running')
      t.deepEqual(ends(one), [notAfter ?? 0])
      // Written before it is sent.
      t.is(asked > 0, commit > 1, `commit ${commit}`)
      await again.services.delete('mesh')
      t.deepEqual(one.leases(), [], `commit ${commit}`)
    }
  })
}

test('a slice deleted while a renewal is open is gone, whatever became of the renewal', async (t) => {
  for (const fault of ['unreachable', 'lost reply'] as const) {
    const one = await overlay({ nodes: 1, agents: 1 })
    await one.services.create(mesh(1))
    await one.clock.advance(30 * SECOND)
    one.fault = (method) => (method === 'renewLease' ? fault : undefined)
    t.false((await one.services.renew('mesh')).members[0]?.renewed)
    t.deepEqual(await one.services.delete('mesh'), { deleted: 1, unreachable: [] })
    t.deepEqual(one.leases(), [], fault)
    t.deepEqual(await vservers(one), [], fault)
  }
})

test('a slice that renews by itself does so when a third of its term is left, over and over', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  await one.services.create(mesh(2, { renew: true }))
  const still = await overlay({ nodes: 2, agents: 1 })
  await still.services.create(mesh(2))
  await one.clock.advance(30 * SECOND)
  t.deepEqual(renewals(one), [])
  await one.clock.advance(3 * MINUTE)
  await still.clock.advance(MINUTE)
  t.is((await vservers(one)).length, 2)
  t.true(renewals(one).length <= 2 * 6, `${renewals(one).length} renewals`)
  t.deepEqual(await vservers(still), [], 'another ends')
})

test('what cannot be renewed is tried again, less often than the loop runs', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(mesh(1, { leaseMs: 3 * MINUTE, renew: true }))
  let tried = 0
  one.fault = (method) => {
    if (method !== 'renewLease') return undefined
    tried += 1
    return 'unreachable'
  }
  await one.clock.advance(119 * SECOND)
  t.is(tried, 0)
  await one.clock.advance(41 * SECOND)
  // Each try asks twice.
  t.true(tried >= 4 && tried <= 18, `${tried} tries`)
  one.fault = () => undefined
  await one.clock.advance(30 * SECOND)
  t.is((await vservers(one)).length, 1)
})

test('the chains and leases that come in are shown to whoever looks for fraud', async (t) => {
  const one = await overlay({ nodes: 1, agents: 1 })
  await one.services.create(mesh(1))
  await one.clock.advance(30 * SECOND)
  await one.services.renew('mesh')
  t.deepEqual(
    one.observed.map((bytes) => openAnyObject(bytes).type),
    ['delegation', 'ticket', 'lease', 'delegation', 'ticket', 'lease']
  )
})

test('agents hear what came of their tickets, of renewals as of leases', async (t) => {
  const one = await overlay({ nodes: 2, agents: 1 })
  const reliability = async (): Promise<number[]> => {
    const told: number[] = []
    await one.offers(({ reliability }) => void told.push(reliability))
    return told
  }
  const unknown = await reliability()
  await one.services.create(mesh(2))
  await settle()
  const leased = await reliability()
  t.true(
    leased.every((permille, index) => permille > (unknown[index] ?? 1000)),
    leased.join()
  )
  await one.clock.advance(30 * SECOND)
  await one.services.renew('mesh')
  await settle()
  const renewed = await reliability()
  t.true(
    renewed.every((permille, index) => permille > (leased[index] ?? 1000)),
    renewed.join()
  )
})
