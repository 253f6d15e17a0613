/** Slices whose members are to lie to one another as wanted, also when nodes refuse. */
import test from 'ava'
import type { SlicenetError } from '../../src/base/errors.ts'
import { at } from '../broker/candidates.ts'
import { RETRY_MS, overlay, slice, type Overlay } from './overlay.ts'

function refuse({ nodes }: Overlay, index: number): void {
  const node = nodes[index]
  if (node !== undefined) node.enforcer.createsToFail = Infinity
}

const names = (view: { readonly members: readonly { readonly nodeName: string }[] }): string[] =>
  view.members.map(({ nodeName }) => nodeName).toSorted()

test('the member that takes the place of one that was refused goes with the others', async (t) => {
  const one = await overlay({
    nodes: 6,
    agents: 2,
    says: (index) => ({ attributes: { site: `s${index % 3}`, racks: 9 - index } })
  })
  refuse(one, 1)
  const view = await one.services.create(slice({ distinct: ['site'], rank: 'node.racks' }))
  t.deepEqual(names(view), ['n0', 'n2', 'n4'])
  t.is(one.leases().length, 3)
})

test('when no node goes with the members any more and others make the slice, those are given up for them', async (t) => {
  const one = await overlay({
    nodes: 6,
    agents: 1,
    says: (index) => ({ coordinate: at(index < 3 ? index : 500 + index) })
  })
  refuse(one, 2)
  const view = await one.services.create(slice({ pairwise: 'rtt_ms < 80' }))
  t.deepEqual(names(view), ['n3', 'n4', 'n5'])
  await one.clock.advance(2 * RETRY_MS)
  t.is(one.leases().length, 3, 'nothing of the first members is held')
  t.deepEqual(await one.services.delete('mesh'), { deleted: 3, unreachable: [] })
  t.is(one.leases().length, 0)
})

test('a slice whose members cannot lie as wanted is refused with the reason, of every node, and holds nothing', async (t) => {
  const one = await overlay({
    nodes: 4,
    agents: 1,
    says: (index) => ({ attributes: { site: `s${index % 2}` } })
  })
  const error = await t.throwsAsync<SlicenetError>(one.services.create(slice({ distinct: ['site'] })), {
    code: 'NO_MATCH',
    message: /2 values of site where 3 of 3 members are needed/
  })
  const nodes = (error.details?.['nodes'] ?? []) as { failed: string[] }[]
  t.is(nodes.length, 2)
  t.regex(nodes[0]?.failed[0] ?? '', /^distinct: site \(it is "s\d", which member n\d has\)$/)
  t.deepEqual(one.calls, [])
  t.deepEqual(await one.services.list(), [])
  await t.throwsAsync(one.services.create(slice({ rank: 'node.' })), { code: 'QUERY_INVALID' })
  await t.throwsAsync(one.services.create(slice({ pairwise: 'rtt_ms' })), { code: 'QUERY_INVALID' })
})
