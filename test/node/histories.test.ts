import test from 'ava'
import fc from 'fast-check'
import { resourcesExceeding, type ResourceName } from '../../src/ticket/resources.ts'
import { settle } from '../base/manual-clock.ts'
import { NOW, amounts, delegate, issue, makeKey } from '../ticket/fixtures.ts'
import { CAPACITY, demandOf, nodeLab, redeem, type NodeLab, type Presented } from './node-lab.ts'

const MINUTE = 60_000
const node = makeKey()
const holder = makeKey()
const agents = [makeKey(), makeKey()]

/** Signed once for all runs: 12 tickets of two agents, together far more than the node has, some of them of one port. */
const pool = Array.from({ length: 12 }, (_one, index): { presented: Presented; demand: Uint8Array } => {
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
  return { presented, demand: demandOf(presented) }
})

type Step =
  | { readonly kind: 'redeem'; readonly tickets: number[] }
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

/** Plays one step; gives the process that runs after it, and adds what was acknowledged to `acknowledged`. */
async function play(lab: NodeLab, one: Step, acknowledged: Map<string, string>): Promise<NodeLab> {
  const attempt = async (ticket: number): Promise<void> => {
    const { presented, demand } = pool[ticket] ?? pool[0]!
    const outcome = await redeem(lab, presented, demand).catch(() => undefined)
    if (outcome !== undefined && 'lease' in outcome)
      acknowledged.set(outcome.lease.body.ticket, outcome.lease.id)
  }
  if (one.kind === 'redeem') await Promise.all(one.tickets.map(attempt))
  if (one.kind === 'wait') await lab.clock.advance(one.seconds * 1000)
  if (one.kind === 'set back') lab.clock.setWall(lab.clock.now() - 5 * MINUTE)
  if (one.kind === 'trouble') {
    lab.enforcer.createsToFail = one.creates
    lab.enforcer.destroysToFail = one.destroys
  }
  if (one.kind === 'delete') {
    const record = lab.manager.table.holding()[one.index]
    if (record === undefined) return lab
    acknowledged.delete(record.lease.body.ticket)
    const { id } = record.lease
    await lab
      .as(holder.principal)('deleteLease', { lease: id })
      .catch(() => {})
  }
  if (one.kind !== 'restart') return lab
  if (one.dieAt > 0) lab.store.plan(one.dieAt, one.fault)
  await attempt(0)
  lab.enforcer.destroysToFail = 0
  return lab.restart()
}

function excess(lab: NodeLab): ResourceName[] {
  return resourcesExceeding(lab.leased(), CAPACITY)
}

test('whatever happens: no more is leased than there is, what runs is leased, and what was acknowledged is kept', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 14 }), async (steps) => {
      let lab = await nodeLab({ key: node })
      const acknowledged = new Map<string, string>()
      for (const one of steps) {
        lab = await play(lab, one, acknowledged)
        t.deepEqual(excess(lab), [])
        const holding = new Set(lab.manager.table.holding().map(({ lease }) => lease.body.vserver))
        for (const vserver of await lab.enforcer.running()) t.true(holding.has(vserver))
        for (const [ticket, lease] of acknowledged) {
          const record = lab.manager.table.ofTicket(ticket)
          // Forgotten or ended only when its term is over.
          if (record?.state === 'active') t.is(record.lease.id, lease)
          else t.true((record?.lease.body.notAfter ?? 0) <= lab.manager.now())
        }
      }
      lab.enforcer.destroysToFail = 0
      await lab.clock.advance(1200)
      await settle()
      const active = lab.manager.table.holding().map(({ lease }) => lease.body.vserver)
      t.deepEqual(await lab.enforcer.running(), active.sort())
      await lab.manager.stop()
    }),
    { numRuns: 25 }
  )
})
