import test from 'ava'
import { Leased, type LeasedDemand } from '../../src/node/leased.ts'
import { ClaimProfile } from '../../src/ticket/claim-profile.ts'
import { peakClaimed } from '../../src/ticket/claims.ts'
import type { Resources } from '../../src/ticket/resources.ts'
import { numbersOf } from '../base/seeded-numbers.ts'
import { amounts } from '../ticket/fixtures.ts'

/** What a walk over all leases gives. */
function walked(
  leases: Iterable<LeasedDemand>,
  window: { notBefore: number; notAfter: number },
  counts: (lease: LeasedDemand) => boolean
): Resources {
  const claims = [...leases].filter(counts).map((lease) => ({ ...lease, notAfter: Infinity }))
  return peakClaimed(claims, window)
}

test('sums by agent, by ticket and in all are those of a walk over the leases', (t) => {
  for (let seed = 1; seed <= 300; seed++) {
    const below = numbersOf(seed)
    const leased = new Leased()
    const leases = new Map<string, LeasedDemand>()
    for (let step = 0; step < 40; step++) {
      const ticket = `ticket ${below(12)}`
      if (below(3) > 0) {
        const demand = {
          notBefore: below(50),
          resources: amounts(1 + below(5)),
          ports: [{ protocol: 'tcp' as const, first: 1 + below(20), last: 20 }],
          vserver: `mesh-${below(6)}`,
          agent: `agent ${below(3)}`,
          lines: [`parent ${below(3)}`, ticket]
        }
        leased.set(ticket, demand)
        // In the order in which they were set last.
        leases.delete(ticket)
        leases.set(ticket, demand)
      } else {
        leased.delete(ticket)
        leases.delete(ticket)
      }
      const notBefore = below(60)
      const window = { notBefore, notAfter: notBefore + 1 + below(10) }
      const name = below(3)
      const all = leases.values()
      const peak = (profile = new ClaimProfile()): Resources => profile.peak(window)
      t.deepEqual(
        leased.all.peak(window),
        walked(all, window, () => true)
      )
      const ofAgent = ({ agent }: LeasedDemand): boolean => agent === `agent ${name}`
      t.deepEqual(peak(leased.ofAgent(`agent ${name}`)), walked(leases.values(), window, ofAgent))
      const under = ({ lines }: LeasedDemand): boolean => lines.includes(`parent ${name}`)
      t.deepEqual(peak(leased.under(`parent ${name}`)), walked(leases.values(), window, under))
      const redeemed = [...leases].filter(([, lease]) => under(lease)).map(([id]) => id)
      t.deepEqual(leased.redeemedUnder(`parent ${name}`, 4), redeemed.slice(0, 4))
      const vserver = `mesh-${below(6)}`
      t.is(
        leased.isNamed(vserver),
        [...leases.values()].some((lease) => lease.vserver === vserver)
      )
    }
  }
})

test('a lease takes its ports and amounts from its beginning until it is deleted, and no longer', (t) => {
  const leased = new Leased()
  const ports = [{ protocol: 'tcp' as const, first: 80, last: 80 }]
  const demand = { notBefore: 10, resources: amounts(2), ports, vserver: 'v', agent: 'a', lines: ['t'] }
  leased.set('t', demand)
  const [before, late] = [
    { notBefore: 0, notAfter: 10 },
    { notBefore: 1e15, notAfter: 1e15 + 1 }
  ]
  t.deepEqual([leased.all.peak(before).pids, leased.conflict(ports, before)], [0, undefined])
  t.deepEqual(
    [leased.all.peak(late), leased.conflict(ports, late)],
    [amounts(2), { port: ports[0], by: 'by vserver v' }]
  )
  leased.delete('t')
  t.deepEqual([leased.all.peak(late).pids, leased.conflict(ports, late)], [0, undefined])
  t.deepEqual([leased.isNamed('v'), leased.redeemedOfAgent('a', 9)], [false, []])
})
