import test from 'ava'
import { PortProfile, type PortClaim } from '../../src/ticket/port-profile.ts'
import { portsOverlap, type PortRange } from '../../src/ticket/ports.ts'
import { overlaps } from '../../src/ticket/interval.ts'
import { numbersOf, type Numbers } from '../base/seeded-numbers.ts'

function portsOf(below: Numbers): PortRange[] {
  return Array.from({ length: below(4) }, () => {
    const first = 1 + below(2000)
    const length = below(8) === 0 ? below(1000) : below(3)
    return { protocol: below(2) === 0 ? 'tcp' : 'udp', first, last: first + length }
  })
}

function claimOf(below: Numbers): PortClaim {
  const notBefore = below(100)
  return { notBefore, notAfter: notBefore + 1 + below(20), ports: portsOf(below) }
}

test('a profile finds the conflicts that a walk over all claims finds', (t) => {
  const found = { conflicts: 0, none: 0 }
  for (let seed = 1; seed <= 1000; seed++) {
    const below = numbersOf(seed)
    const profile = new PortProfile()
    const claims: PortClaim[] = []
    for (let step = 0; step < 60; step++) {
      const claim = claimOf(below)
      const kind = below(4)
      if (kind < 2) {
        profile.add(claim)
        claims.push(claim)
      } else if (kind === 2) {
        for (const gone of claims.splice(below(claims.length + 1), 1)) profile.remove(gone)
      }
      const wanted = claimOf(below)
      const expected = wanted.ports.find((range) =>
        claims.some((one) => overlaps(one, wanted) && portsOverlap([range], one.ports))
      )
      const actual = profile.conflict(wanted.ports, wanted)?.port
      if (actual !== expected) t.deepEqual(actual, expected, `seed ${seed}, step ${step}`)
      found[expected === undefined ? 'none' : 'conflicts']++
    }
  }
  t.true(Math.min(found.conflicts, found.none) > 1000)
})

test('a claim taken out leaves its ports free', (t) => {
  const profile = new PortProfile()
  const window = { notBefore: 0, notAfter: 10 }
  const ports: PortRange[] = [{ protocol: 'tcp', first: 200, last: 900 }]
  const claim = { ...window, ports }
  profile.add(claim)
  t.is(profile.conflict(ports, window)?.port, ports[0])
  t.is(profile.conflict([{ protocol: 'icmp', first: 300, last: 300 }], window), undefined)
  profile.remove(claim)
  t.is(profile.conflict(ports, window), undefined)
})
