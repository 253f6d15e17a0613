import test from 'ava'
import fc from 'fast-check'
import { FraudWatch } from '../../src/ticket/fraud-watch.ts'
import type { Lease } from '../../src/ticket/lease.ts'
import { resourcesExceeding, type ResourceName } from '../../src/ticket/resources.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { settle } from '../base/manual-clock.ts'
import { NOW, amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import {
  CAPACITY,
  deleteLease,
  demandOf,
  nodeLab,
  redeem,
  renew,
  type NodeLab,
  type Presented
} from './node-lab.ts'

const MINUTE = 60_000
const node = makeKey()
const holder = makeKey()
const agents = [makeKey(), makeKey()]

/** Signed once for all runs: 12 tickets of two agents, together far more than the node has, some of them of one port. */
interface Pooled {
  readonly presented: Presented
  readonly demand: Uint8Array
  /** What renews its lease, once it has one. */
  readonly renewing: (lease: string) => { readonly presented: Presented; readonly demand: Uint8Array }
}

const pool = Array.from({ length: 12 }, (_one, index): Pooled => {
  const agent = agents[index % 2] ?? holder
  const delegation = delegate(node, agent, { overbookPercent: 1000 })
  const ticket = issue(delegation, agent, holder, {
    seq: index,
    resources: amounts(1 + (index % 5)),
    ports: index % 3 === 0 ? [{ protocol: 'tcp', first: 20_000, last: 20_000 }] : [],
    notAfter: NOW + (index + 2) * MINUTE,
    redeemBefore: NOW + 10 * MINUTE
  })
  const presented = { delegation, tickets: [ticket], holder }
  const body = {
    ...ticket.body,
    seq: 100 + index,
    supersedes: ticket.id,
    notAfter: NOW + (index + 9) * MINUTE
  }
  const next = issue(delegation, agent, holder, body)
  const renewing = (lease: string): ReturnType<Pooled['renewing']> => {
    const nonce = new Uint8Array(16).fill(1)
    const renewal = { ...presented, tickets: [next], changes: { renews: lease, nonce } }
    return { presented: renewal, demand: demandOf(renewal) }
  }
  return { presented, demand: demandOf(presented), renewing }
})

type Step =
  | { readonly kind: 'redeem'; readonly tickets: number[] }
  | { readonly kind: 'renew'; readonly tickets: number[] }
  | { readonly kind: 'delete'; readonly index: number }
  | { readonly kind: 'wait'; readonly seconds: number }
  | { readonly kind: 'set back' }
  | { readonly kind: 'trouble'; readonly creates: number; readonly destroys: number }
  | { readonly kind: 'restart'; readonly dieAt: number; readonly fault: 'die-before' | 'die-after' }

const index = fc.nat({ max: pool.length - 1 })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('redeem' as const),
      tickets: fc.array(index, { minLength: 1, maxLength: 4 })
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('renew' as const),
      tickets: fc.array(index, { minLength: 1, maxLength: 3 })
    })
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('delete' as const), index }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), seconds: fc.integer({ min: 1, max: 180 }) })
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'set back' } as const) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('trouble' as const),
      creates: fc.nat({ max: 2 }),
      destroys: fc.nat({ max: 2 })
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('restart' as const),
      dieAt: fc.integer({ min: 0, max: 3 }),
      fault: fc.constantFrom('die-before' as const, 'die-after' as const)
    })
  }
)

/** What has happened, as far as the world outside the node was told. */
interface Told {
  /** Leases in force by line, the newest of each. */
  readonly leases: Map<string, Signed<Lease>>
  /** Every lease that was ever given out. */
  readonly all: Map<string, Signed<Lease>>
}

/** Plays one step; gives the process that runs after it, and adds what was acknowledged to `told`. */
async function play(lab: NodeLab, one: Step, told: Told): Promise<NodeLab> {
  const attempt = async (ticket: number, renews: boolean): Promise<void> => {
    const pooled = pool[ticket] ?? pool[0]!
    const line = pooled.presented.tickets[0]?.id ?? ''
    const before = told.leases.get(line)
    if (renews && before === undefined) return
    const { presented, demand } = renews ? pooled.renewing(before?.id ?? '') : pooled
    const outcome = await (renews ? renew : redeem)(lab, presented, demand).catch(() => undefined)
    if (outcome === undefined || !('lease' in outcome)) return
    told.all.set(outcome.lease.id, outcome.lease)
    // Answers may overtake each other: a lease is no longer in force when it is known to be renewed.
    const known = told.leases.get(line)
    if (known === undefined || known.body.seq < outcome.lease.body.seq) told.leases.set(line, outcome.lease)
  }
  if (one.kind === 'redeem') await Promise.all(one.tickets.map((ticket) => attempt(ticket, false)))
  if (one.kind === 'renew') await Promise.all(one.tickets.map((ticket) => attempt(ticket, true)))
  if (one.kind === 'wait') await lab.clock.advance(one.seconds * 1000)
  if (one.kind === 'set back') lab.clock.setWall(lab.clock.now() - 5 * MINUTE)
  if (one.kind === 'trouble') {
    lab.enforcer.createsToFail = one.creates
    lab.enforcer.destroysToFail = one.destroys
  }
  if (one.kind === 'delete') {
    const record = lab.manager.table.holding()[one.index]
    if (record === undefined) return lab
    told.leases.delete(lineId(record.lease, told))
    await deleteLease(lab, record.lease, holder).catch(() => {})
  }
  if (one.kind !== 'restart') return lab
  if (one.dieAt > 0) lab.store.plan(one.dieAt, one.fault)
  await attempt(0, false)
  await attempt(0, true)
  lab.enforcer.destroysToFail = 0
  return lab.restart()
}

/** The first ticket of the line that a lease is of. */
function lineId(lease: Signed<Lease>, told: Told): string {
  const found = [...told.leases].find(([, known]) => known.body.vserver === lease.body.vserver)
  return found?.[0] ?? lease.body.ticket
}

function excess(lab: NodeLab): ResourceName[] {
  return resourcesExceeding(lab.leased(), CAPACITY)
}

/** What a third party who saw every lease that was given out could hold against the node. */
function provable(told: Told): unknown[] {
  const watch = new FraudWatch()
  return [...told.all.values()].flatMap((object) => watch.observe({ type: 'lease', object }))
}

/** Set for a nightly run: as many histories as one has time for. */
const NUM_RUNS = process.env['SLICENET_NIGHTLY'] === undefined ? 200 : 10_000

test('whatever happens: no more is leased than there is, what runs is leased, what was acknowledged is kept, and the node cannot be shown to cheat', async (t) => {
  t.timeout(NUM_RUNS * 360)
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 14 }), async (steps) => {
      let lab = await nodeLab({ key: node })
      const told: Told = { leases: new Map(), all: new Map() }
      for (const one of steps) {
        lab = await play(lab, one, told)
        t.deepEqual(excess(lab), [])
        const holding = new Set(lab.manager.table.holding().map(({ lease }) => lease.body.vserver))
        for (const vserver of await lab.enforcer.running()) t.true(holding.has(vserver))
        for (const lease of told.leases.values()) {
          const record = lab.manager.table.current(lease.id)
          // Gone or ended only when its term is over.
          if (record?.state === 'active') t.is(record.lease.body.vserver, lease.body.vserver)
          else t.true(lease.body.notAfter <= lab.manager.now())
        }
      }
      t.deepEqual(provable(told), [])
      lab.enforcer.destroysToFail = 0
      await lab.clock.advance(1200)
      await settle()
      const active = lab.manager.table.holding().map(({ lease }) => lease.body.vserver)
      t.deepEqual(await lab.enforcer.running(), active.sort())
      await lab.manager.stop()
    }),
    { numRuns: NUM_RUNS }
  )
})
