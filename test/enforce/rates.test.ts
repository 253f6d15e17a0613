import test from 'ava'
import * as fc from 'fast-check'
import {
  CAP_BPS_MIN,
  DEFAULT_SHAPING,
  quantumOf,
  shapingOf,
  vserverRates
} from '../../src/enforce/network/rates.ts'

const ROOT_BPS = 100_000_000
const anyRate = fc.integer({ min: 0, max: 2 * ROOT_BPS })

test('a turn is in proportion to the share, one of whole frames, and of nothing else', (t) => {
  t.is(quantumOf(3), 3 * quantumOf(1))
  t.is(quantumOf(1) % 1514, 0)
})

test('a vserver is held to its lease where that allows less, and to the policy where not', (t) => {
  t.deepEqual(shapingOf(DEFAULT_SHAPING), {
    icmpBps: 128_000,
    optionsBps: 128_000,
    newDestinationsBps: 128_000,
    destinationsPerMinute: 600,
    egressShare: 1
  })
  const generous = { ...DEFAULT_SHAPING, egressShareMax: 4 }
  const lease = { icmpBps: 8000, optionsBps: 1_000_000, destinationsPerMinute: 9, egressShare: 7 }
  t.deepEqual(shapingOf(generous, lease), {
    icmpBps: 8000,
    optionsBps: 128_000,
    newDestinationsBps: 128_000,
    destinationsPerMinute: 9,
    egressShare: 4
  })
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
