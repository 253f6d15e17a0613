import test from 'ava'
import { nodePorts } from '../../src/daemon/node-ports.ts'
import type { PortRange } from '../../src/ticket/ports.ts'
import { HOUR, lease, makeKey, NOW } from '../ticket/fixtures.ts'

const [node, holder] = [makeKey(), makeKey()]
const tcp = (first: number, last = first): PortRange => ({ protocol: 'tcp', first, last })
const own = [tcp(4001)]
const shared = [tcp(40_000, 60_999)]

function record(
  seq: number,
  ports: PortRange[],
  state: 'active' | 'renewed' | 'ended',
  surrender?: Uint8Array
) {
  return {
    lease: lease(node, holder, seq, { ports }),
    state,
    ...(surrender === undefined ? {} : { surrender })
  }
}

test('every port has one owner: leases, the node, programs of its machine, and all vservers together', (t) => {
  const one = record(1, [tcp(9090), { protocol: 'gre', first: 7, last: 8 }, tcp(9091)], 'active')
  const heard = [tcp(4001), tcp(22), { protocol: 'udp' as const, first: 53, last: 53 }, tcp(22)]
  const views = nodePorts({ records: [one], own, heard, shared, now: NOW })
  t.deepEqual(
    views.map(({ protocol, first, last, owner }) => `${protocol} ${first} ${last} ${owner}`),
    [
      'tcp 22 22 program',
      'tcp 4001 4001 node',
      'tcp 9090 9091 lease',
      'tcp 40000 60999 shared',
      'udp 53 53 program',
      'gre 7 8 lease'
    ]
  )
  const { slice, vserver, notAfter } = one.lease.body
  const about = { slice, lease: one.lease.id, holder: holder.principal, vserver, state: 'active', notAfter }
  t.like(views[2], about)
})

test('a lease that ended keeps ports only if its node ended it early, and a renewed one has none', (t) => {
  const records = [
    record(1, [tcp(9001)], 'ended'),
    record(2, [tcp(9002)], 'ended', new Uint8Array(1)),
    record(3, [tcp(9003)], 'renewed'),
    record(4, [tcp(9003)], 'active')
  ]
  const at = (now: number): (string | undefined)[] =>
    nodePorts({ records, own: [], heard: [], shared: [], now }).map(({ first, state }) => `${first} ${state}`)
  t.deepEqual(at(NOW), ['9001 ended', '9003 active'])
  t.deepEqual(at(NOW + HOUR), ['9003 active'])
})
