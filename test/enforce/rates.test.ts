import test from 'ava'
import * as fc from 'fast-check'
import { CAP_BPS_MIN, quantumOf, vserverRates } from '../../src/enforce/network/rates.ts'

const ROOT_BPS = 100_000_000
const anyRate = fc.integer({ min: 0, max: 2 * ROOT_BPS })

test('a share is in proportion to the guarantee, and within what HTB handles well', (t) => {
  t.is(quantumOf(2_000_000, ROOT_BPS), 2 * quantumOf(1_000_000, ROOT_BPS))
  t.is(quantumOf(1_000_000, ROOT_BPS), quantumOf(10_000_000, 10 * ROOT_BPS))
  t.is(quantumOf(0, ROOT_BPS), 1514)
  fc.assert(
    fc.property(anyRate, anyRate, (a, b) => {
      const [less, more] = [Math.min(a, b), Math.max(a, b)].map((bps) => quantumOf(bps, ROOT_BPS))
      return less !== undefined && more !== undefined && 1514 <= less && less <= more && more <= 60_560
    })
  )
})

test('rates stay below their caps, caps below the root, and both above the least', (t) => {
  fc.assert(
    fc.property(anyRate, anyRate, anyRate, (egressBps, egressBpsMax, narrowedBps) => {
      const { rateBps, capBps } = vserverRates(ROOT_BPS, { egressBps, egressBpsMax }, narrowedBps)
      return CAP_BPS_MIN <= rateBps && rateBps <= capBps && capBps <= ROOT_BPS
    })
  )
  t.is(vserverRates(ROOT_BPS, { egressBps: 0, egressBpsMax: 0 }).capBps, ROOT_BPS)
  t.like(vserverRates(ROOT_BPS, { egressBps: 5_000_000, egressBpsMax: 8_000_000 }, 1_000_000), {
    rateBps: 1_000_000,
    capBps: 1_000_000
  })
})
