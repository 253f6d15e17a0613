import test from 'ava'
import fc from 'fast-check'
import { peakClaimed, type Claim } from '../../src/ticket/claims.ts'
import { portsOverlap, portsWithin, type PortProtocol, type PortRange } from '../../src/ticket/ports.ts'
import { NO_RESOURCES } from '../../src/ticket/resources.ts'

const range = fc
  .tuple(
    fc.constantFrom<PortProtocol>('tcp', 'udp'),
    fc.integer({ min: 1, max: 30 }),
    fc.integer({ min: 0, max: 8 })
  )
  .map(([protocol, first, length]) => ({ protocol, first, last: first + length }))
const ranges = fc.array(range, { maxLength: 5 })
const members = (list: readonly PortRange[]): Set<string> =>
  new Set(
    list.flatMap(({ protocol, first, last }) =>
      Array.from({ length: last - first + 1 }, (_item, index) => `${protocol}/${first + index}`)
    )
  )

test('portsWithin and portsOverlap agree with sets of ports', (t) => {
  fc.assert(
    fc.property(ranges, ranges, (a, b) => {
      t.is(portsWithin(a, b), members(a).isSubsetOf(members(b)))
      t.is(portsOverlap(a, b), !members(a).isDisjointFrom(members(b)))
    }),
    { numRuns: 2000 }
  )
})

test('the peak of claims is the most that any instant of the window sees', (t) => {
  const claim = fc
    .tuple(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 1, max: 10 }), fc.integer({ min: 0, max: 9 }))
    .map(([begin, length, pids]): Claim => ({
      notBefore: begin,
      notAfter: begin + length,
      resources: { ...NO_RESOURCES, pids }
    }))
  fc.assert(
    fc.property(fc.array(claim, { maxLength: 8 }), fc.integer({ min: 0, max: 20 }), (claims, begin) => {
      const window = { notBefore: begin, notAfter: begin + 8 }
      let most = 0
      for (let instant = window.notBefore; instant < window.notAfter; instant++) {
        const sum = claims
          .filter(({ notBefore, notAfter }) => notBefore <= instant && instant < notAfter)
          .reduce((total, { resources }) => total + resources.pids, 0)
        most = Math.max(most, sum)
      }
      t.is(peakClaimed(claims, window).pids, most)
    }),
    { numRuns: 2000 }
  )
})
