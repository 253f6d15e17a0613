import test from 'ava'
import { SteadyClock } from '../../src/node/steady-clock.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import type { Lease } from '../../src/ticket/lease.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import type { Fault } from '../base/faulty-store.ts'
import { ManualClock, settle } from '../base/manual-clock.ts'
import { HOUR, NOW, amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import {
  codeOf,
  deleteLease,
  leaseOf,
  nodeLab,
  redeem,
  settleOne,
  type NodeLab,
  type Presented
} from './node-lab.ts'

const agent = makeKey()
const holder = makeKey()
const stranger = makeKey()

function present(lab: NodeLab, ticket: Partial<Ticket> = {}): Presented {
  const delegation = delegate(lab.key, agent)
  return { delegation, tickets: [issue(delegation, agent, holder, ticket)], holder }
}

async function leased(lab: NodeLab, ticket: Partial<Ticket> = {}): Promise<Signed<Lease>> {
  return leaseOf(await redeem(lab, present(lab, ticket)))
}

const actives = (lab: NodeLab): string[] =>
  lab.manager.table
    .all()
    .filter(({ state }) => state === 'active')
    .map(({ lease }) => lease.body.vserver)

/** What runs is what is leased. */
async function inLine(lab: NodeLab): Promise<boolean> {
  return (await lab.enforcer.running()).join() === actives(lab).sort().join()
}

const COMMITS = { 1: 'the intent', 2: 'the lease' } as const
for (const [commit, what] of Object.entries(COMMITS)) {
  for (const fault of ['fail', 'die-before', 'die-after'] satisfies Fault[]) {
    test(`when the store does “${fault}” at ${what} of a redemption, the same demand gets one lease after a restart`, async (t) => {
      const lab = await nodeLab()
      const presented = present(lab)
      lab.store.plan(Number(commit), fault)
      const before = await redeem(lab, presented).then(codeOf, () => 'no answer')
      t.not(before, 'leased')
      const again = await lab.restart()
      t.true(await inLine(again))
      const lease = leaseOf(await redeem(again, presented))
      t.true(await inLine(again))
      t.deepEqual(actives(again), [lease.body.vserver])
    })
  }
}

test('a lease acknowledged before a crash is there after it, and its virtual machine was left alone', async (t) => {
  const lab = await nodeLab()
  const lease = await leased(lab)
  lab.store.plan(1, 'die-before')
  await t.throwsAsync(deleteLease(lab, lease, holder))
  const again = await lab.restart()
  t.like(await again.as(holder.principal)('status', { lease: lease.id }), { state: 'created' })
  t.is(lab.enforcer.created.length, 1)
  t.deepEqual(lab.enforcer.destroyed, [])
})

test('an end that was decided before a crash is carried out after it', async (t) => {
  for (const [commit, fault] of [
    [1, 'die-after'],
    [2, 'die-before'],
    [2, 'die-after']
  ] as const) {
    const lab = await nodeLab()
    const lease = await leased(lab)
    lab.store.plan(commit, fault)
    await t.throwsAsync(deleteLease(lab, lease, holder))
    const again = await lab.restart()
    t.deepEqual(await lab.enforcer.running(), [])
    t.is(again.manager.table.ofLease(lease.id)?.state, 'ended')
    await deleteLease(again, lease, holder)
  }
})

test('what is leased and does not run is made again with its keys; what runs without a lease is destroyed', async (t) => {
  const lab = await nodeLab()
  const lease = await leased(lab)
  await lab.as(holder.principal)('addKey', { lease: lease.id, key: 'ssh-ed25519 AAAA me' })
  await lab.enforcer.destroy(lease.body.vserver)
  const { created } = lab.enforcer
  const [spec] = created
  if (spec === undefined) return t.fail()
  await lab.enforcer.create({ ...spec, id: 'stray-1234567', ports: [] })
  const again = await lab.restart()
  t.deepEqual(await again.enforcer.running(), [lease.body.vserver])
  return t.deepEqual(again.enforcer.keysOf(lease.body.vserver), ['ssh-ed25519 AAAA me'])
})

test('a node starts although something without a lease cannot be destroyed, and tries again', async (t) => {
  const lab = await nodeLab()
  const lease = await leased(lab)
  const [spec] = lab.enforcer.created
  if (spec === undefined) return t.fail()
  await lab.enforcer.create({ ...spec, id: 'stray-1234567', ports: [] })
  lab.enforcer.destroysToFail = 1
  const again = await lab.restart()
  t.is((await again.enforcer.running()).length, 2)
  await lab.clock.advance(600)
  return t.deepEqual(await again.enforcer.running(), [lease.body.vserver])
})

test('a lease ends with its term, on a node that was down at that time too', async (t) => {
  const lab = await nodeLab()
  const first = await leased(lab, { notAfter: NOW + HOUR / 2 })
  const second = await leased(lab, { seq: 2, ports: [] })
  await lab.clock.advance(HOUR / 2 + 600)
  t.deepEqual(await lab.enforcer.running(), [second.body.vserver])
  await t.throwsAsync(lab.as(holder.principal)('status', { lease: first.id }), { code: 'LEASE_EXPIRED' })
  await lab.manager.stop()
  await lab.clock.advance(HOUR)
  t.deepEqual(await lab.enforcer.running(), [second.body.vserver], 'nobody keeps time')
  await lab.restart()
  t.deepEqual(await lab.enforcer.running(), [])
})

test('a lease whose virtual machine cannot be destroyed holds what it has until it is gone', async (t) => {
  const lab = await nodeLab()
  await leased(lab, { resources: amounts(6), notAfter: NOW + HOUR / 2 })
  lab.enforcer.destroysToFail = Infinity
  await lab.clock.advance(HOUR / 2 + 600)
  t.deepEqual(lab.manager.free().memoryBytes, amounts(4).memoryBytes)
  const delegation = delegate(lab.key, agent, { overbookPercent: 200 })
  const hold = { redeemBefore: NOW + HOUR }
  const big = issue(delegation, agent, holder, { ...hold, seq: 2, resources: amounts(6), ports: [] })
  t.is(codeOf(await redeem(lab, { delegation, tickets: [big], holder })), 'OVERBOOKED')
  const samePort = issue(delegation, agent, holder, { ...hold, seq: 3 })
  t.is(codeOf(await redeem(lab, { delegation, tickets: [samePort], holder })), 'PORT_TAKEN')
  lab.enforcer.destroysToFail = 0
  await lab.clock.advance(600)
  t.deepEqual(lab.manager.free(), amounts(10))
})

test('a lease that is slow to end keeps no other from ending', async (t) => {
  const lab = await nodeLab()
  const ends = { notAfter: NOW + HOUR / 2 }
  const slow = await leased(lab, ends)
  const quick = await leased(lab, { ...ends, seq: 2, ports: [], notAfter: ends.notAfter + 5000 })
  const { promise, resolve } = Promise.withResolvers<void>()
  lab.enforcer.destroyGate = promise
  await lab.clock.advance(HOUR / 2 + 600)
  lab.enforcer.destroyGate = undefined
  await lab.clock.advance(5000)
  t.deepEqual(await lab.enforcer.running(), [slow.body.vserver])
  t.is(lab.manager.table.ofLease(quick.id)?.state, 'ended')
  resolve()
  await settle()
  t.deepEqual(
    lab.enforcer.destroyed.toSorted(),
    [slow.body.vserver, quick.body.vserver].toSorted(),
    'each once'
  )
})

test('a clock set back does not lengthen a lease, neither at once nor over a restart', async (t) => {
  const lab = await nodeLab()
  const lease = await leased(lab)
  await lab.clock.advance(HOUR / 2)
  lab.clock.setWall(NOW - 24 * HOUR)
  await lab.clock.advance(HOUR / 4)
  const again = await lab.restart()
  t.is(again.manager.now(), NOW + (HOUR * 3) / 4)
  await lab.clock.advance(HOUR / 4 + 600)
  t.deepEqual(await lab.enforcer.running(), [])
  t.is(again.manager.table.ofLease(lease.id)?.state, 'ended')
})

test('the node’s time never goes back, follows the wall clock forward and a mark of an earlier run', async (t) => {
  const clock = new ManualClock()
  const steady = new SteadyClock(clock, 0)
  t.is(steady.now(), NOW)
  clock.setWall(NOW - HOUR)
  await clock.advance(1000)
  t.is(steady.now(), NOW + 1000)
  clock.setWall(NOW + HOUR)
  t.is(steady.now(), NOW + HOUR)
  clock.setWall(NOW)
  await clock.advance(1000)
  t.is(steady.now(), NOW + HOUR + 1000)
  t.is(new SteadyClock(clock, NOW + 2 * HOUR).now(), NOW + 2 * HOUR)
})

test('deleting a lease is for its holder, and succeeds again', async (t) => {
  const lab = await nodeLab()
  const lease = await leased(lab)
  await t.throwsAsync(deleteLease(lab, lease, stranger), { code: 'LEASE_NOT_HELD' })
  t.is((await lab.enforcer.running()).length, 1)
  const twice = [1, 2].map(() => deleteLease(lab, lease, holder))
  await Promise.all(twice)
  await deleteLease(lab, lease, holder)
  t.is(lab.enforcer.destroyed.length, 1)
  t.deepEqual(lab.manager.free(), amounts(10))
  t.is(codeOf(await redeem(lab, present(lab))), 'TICKET_REDEEMED', 'its ticket is spent')
})

const program = { argv: ['sleep', '9'], env: {} }
const METHODS = {
  upload: { files: [{ path: '/a', content: new Uint8Array(1), mode: 0o644 }] },
  launch: { program },
  stop: {},
  signal: { signal: 'SIGHUP' },
  freeze: {},
  thaw: {},
  status: {},
  counters: {},
  exec: { program },
  logs: { follow: false },
  addKey: { key: 'ssh-ed25519 AAAA me' },
  delKey: { key: 'ssh-ed25519 AAAA me' },
  getKeys: {}
} as const
for (const [method, params] of Object.entries(METHODS)) {
  test(`${method} is refused as LEASE_NOT_HELD to anybody but the holder, and for leases that are not there`, async (t) => {
    const lab = await nodeLab()
    const { id } = await leased(lab)
    const as = (who: typeof holder, lease: string): Promise<unknown> =>
      lab.as(who.principal)(method as 'stop', { lease, ...params })
    await t.throwsAsync(as(stranger, id), { code: 'LEASE_NOT_HELD' })
    await t.throwsAsync(as(holder, present(lab, { seq: 5 }).tickets[0]?.id ?? ''), { code: 'LEASE_NOT_HELD' })
    if (method === 'exec') return t.pass()
    if (method === 'signal') await lab.as(holder.principal)('launch', { lease: id, program })
    return t.notThrowsAsync(as(holder, id))
  })
}

test('keys are kept with the lease, each once, up to the maximum', async (t) => {
  const lab = await nodeLab()
  const { id, body } = await leased(lab)
  const call = lab.as(holder.principal)
  const key = (index: number): string => `ssh-ed25519 AAAA${index}`
  await Promise.all([0, 1, 1].map((index) => call('addKey', { lease: id, key: key(index) })))
  t.deepEqual((await call('getKeys', { lease: id })).keys, [key(0), key(1)])
  for (let index = 2; index < 32; index++) await call('addKey', { lease: id, key: key(index) })
  await t.throwsAsync(call('addKey', { lease: id, key: key(32) }), { code: 'QUOTA_EXCEEDED' })
  await call('delKey', { lease: id, key: key(0) })
  t.is(lab.enforcer.keysOf(body.vserver).length, 31)
  const again = await lab.restart()
  t.is((await again.as(holder.principal)('getKeys', { lease: id })).keys.length, 31)
})

test('a key that fails to be written does not bring back a lease that is being ended', async (t) => {
  const lab = await nodeLab()
  const lease = await leased(lab)
  const { id } = lease
  const disk = Promise.withResolvers<void>()
  const machine = Promise.withResolvers<void>()
  lab.store.gate = disk.promise
  lab.enforcer.destroyGate = machine.promise
  lab.store.plan(1, 'fail')
  const adding = lab.as(holder.principal)('addKey', { lease: id, key: 'ssh-ed25519 AAAA me' })
  await settle()
  const deleting = deleteLease(lab, lease, holder)
  await settle()
  disk.resolve()
  await t.throwsAsync(adding)
  t.is(lab.manager.table.ofLease(id)?.state, 'ending')
  machine.resolve()
  await deleting
  t.is(lab.manager.table.ofLease(id)?.state, 'ended')
})

test('what became of a ticket: open, redeemed, ended; or lapsed, by time or by being cancelled', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  const [ticket] = presented.tickets as [Signed<Ticket>]
  t.is(await settleOne(lab, agent, ticket), 'open')
  const lease = leaseOf(await redeem(lab, presented))
  t.is(await settleOne(lab, agent, ticket), 'redeemed')
  t.is(await settleOne(lab, agent, ticket, true), 'redeemed', 'too late to cancel')
  await deleteLease(lab, lease, holder)
  t.is(await settleOne(lab, agent, ticket), 'ended')
  const [other] = present(lab, { seq: 2 }).tickets as [Signed<Ticket>]
  await lab.clock.advance(300_000)
  t.is(await settleOne(lab, agent, other), 'lapsed')
})

test('a ticket is settled by its issuer and its holder alone', async (t) => {
  const lab = await nodeLab()
  const [ticket] = present(lab).tickets as [Signed<Ticket>]
  await t.throwsAsync(settleOne(lab, stranger, ticket, true), { code: 'DENIED' })
  t.is(await settleOne(lab, agent, ticket), 'open')
  t.is(await settleOne(lab, holder, ticket, true), 'lapsed')
})

test('a cancelled ticket is refused, after a restart too', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  t.is(await settleOne(lab, agent, presented.tickets[0] as Signed<Ticket>, true), 'lapsed')
  t.is(codeOf(await redeem(lab, presented)), 'TICKET_EXPIRED')
  t.is(codeOf(await redeem(await lab.restart(), presented)), 'TICKET_EXPIRED')
})

test('a ticket that is cancelled and redeemed at the same time is one or the other', async (t) => {
  for (const order of ['cancel first', 'redeem first']) {
    const lab = await nodeLab()
    const presented = present(lab)
    const { promise, resolve } = Promise.withResolvers<void>()
    lab.store.gate = promise
    const cancel = (): Promise<unknown> => settleOne(lab, agent, presented.tickets[0] as Signed<Ticket>, true)
    const take = (): Promise<unknown> => redeem(lab, presented).then(codeOf)
    const [first, second] = order === 'cancel first' ? [cancel, take] : [take, cancel]
    const begun = first()
    await settle()
    const next = second()
    await settle()
    resolve()
    const outcomes = [await begun, await next]
    t.deepEqual(outcomes, order === 'cancel first' ? ['lapsed', 'TICKET_EXPIRED'] : ['leased', 'redeemed'])
  }
})

test('nobody is told that a ticket was cancelled before that is durable', async (t) => {
  const lab = await nodeLab()
  const presented = present(lab)
  const [ticket] = presented.tickets as [Signed<Ticket>]
  lab.store.plan(1, 'die-before')
  await Promise.all([agent, holder].map((by) => t.throwsAsync(settleOne(lab, by, ticket, true))))
  t.is(codeOf(await redeem(await lab.restart(), presented)), 'leased')
})

test('a ticket that was passed on counts as redeemed while a lease runs under it', async (t) => {
  const lab = await nodeLab()
  const delegation = delegate(lab.key, agent)
  const middle = issue(delegation, agent, stranger)
  const child = issue(middle, stranger, holder)
  const lease = leaseOf(await redeem(lab, { delegation, tickets: [middle, child], holder }))
  t.is(await settleOne(lab, agent, middle), 'redeemed')
  await lab.clock.advance(300_000)
  t.is(await settleOne(lab, agent, middle), 'redeemed', 'its own hold is over')
  t.is(await settleOne(lab, stranger, child), 'redeemed')
  await deleteLease(lab, lease, holder)
  t.is(await settleOne(await lab.restart(), agent, middle), 'ended')
})

test('cancelling a ticket that was passed on keeps more from being redeemed under it', async (t) => {
  const lab = await nodeLab()
  const delegation = delegate(lab.key, agent)
  const middle = issue(delegation, agent, stranger, { ports: [], resources: amounts(4) })
  const cut = (seq: number): Presented => {
    const child = issue(middle, stranger, holder, { seq, ports: [], resources: amounts(1) })
    return { delegation, tickets: [middle, child], holder }
  }
  leaseOf(await redeem(lab, cut(1)))
  t.is(await settleOne(lab, agent, middle, true), 'redeemed')
  t.is(codeOf(await redeem(lab, cut(2))), 'TICKET_EXPIRED')
})

test('records of leases and cancelled tickets go when nobody can present their tickets any more', async (t) => {
  const lab = await nodeLab()
  await leased(lab, { notAfter: NOW + 200_000 })
  await settleOne(lab, agent, present(lab, { seq: 2 }).tickets[0] as Signed<Ticket>, true)
  await lab.clock.advance(250_000)
  t.is(lab.manager.table.all().length, 1, 'the ticket may be presented still')
  await lab.clock.advance(120_000)
  t.is(lab.manager.table.all().length, 0)
  const rows = async (table: string): Promise<number> =>
    (await Array.fromAsync(lab.store.disk.iterate(table))).length
  t.is(await rows('node-leases'), 0)
  t.is(await rows('node-cancelled-tickets'), 0)
})

test('starting and stopping are idempotent, and a stopped manager answers BUSY', async (t) => {
  const lab = await nodeLab()
  await lab.manager.start()
  await leased(lab)
  await lab.manager.stop()
  await lab.manager.stop()
  await t.throwsAsync(redeem(lab, present(lab, { seq: 2 })), { code: 'BUSY' })
  t.is((await lab.enforcer.running()).length, 1, 'virtual machines run on')
})
