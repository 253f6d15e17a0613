/** Ranks and conditions on pairs. */
import test from 'ava'
import { compilePairwise } from '../../src/query/pairwise.ts'
import { compileRank } from '../../src/query/rank.ts'
import { advertBody } from '../broker/adverts.ts'

const here = advertBody({ attributes: { country: 'de', racks: 3 } })
const there = advertBody({ attributes: { country: 'fr', racks: 5 } })

test('a rank is a number of a node, and none where the node lacks what it looks at', (t) => {
  t.is(compileRank('node.racks').of(here), 3)
  t.is(compileRank('node.cpu.free * 2 - node.racks').of(here), 997)
  t.is(compileRank('double(node.racks) / 2.0').of(here), 1.5)
  t.is(compileRank('uint(node.racks)').of(here), 3)
  t.is(compileRank('node.country == "de" ? 2 : 1').of(there), 1)
  for (const text of ['node.gpu', 'node.country', 'node.agents', 'node.cpu', '1.0 / 0.0', 'node.racks / 0']) {
    t.is(compileRank(text).of(here), undefined, text)
  }
})

test('a rank that is no number, or looks at pairs, is refused with its place', (t) => {
  t.throws(() => compileRank('node.racks > 3'), {
    code: 'QUERY_INVALID',
    message: /a rank is a number, not bool/
  })
  t.throws(() => compileRank('"x"'), { code: 'QUERY_INVALID', message: /not string/ })
  t.throws(() => compileRank('rtt_ms'), { code: 'QUERY_INVALID', message: /Unknown variable: rtt_ms/ })
})

test('a condition on pairs holds whichever of two comes first', (t) => {
  const holds = (text: string, rttMs?: number): boolean => {
    const pairwise = compilePairwise(text)
    const [one, other] = [pairwise.view(here), pairwise.view(there)]
    t.is(pairwise.holds(one, other, rttMs), pairwise.holds(other, one, rttMs), text)
    t.is(pairwise.holds(one, other, rttMs), pairwise.failures(one, other, rttMs).length === 0, text)
    return pairwise.holds(one, other, rttMs)
  }
  t.true(holds('rtt_ms < 80', 79.9))
  t.false(holds('rtt_ms < 80', 80))
  t.true(holds('80.5 > rtt_ms && a.country != b.country', 1))
  t.false(holds('a.racks < b.racks', 1), 'of two that are not alike one is not less')
  t.true(holds('a.racks != b.racks'))
  t.false(holds('rtt_ms < 80'), 'what is not known holds for nobody')
  t.true(holds('rtt_ms < 80 || a.country != b.country'))
  t.false(holds('a.gpu == b.gpu', 1))
})

test('what fails between two is told with what was seen', (t) => {
  const pairwise = compilePairwise('rtt_ms < 80 && a.country == b.country && a.racks > 0')
  const [one, other] = [pairwise.view(here), pairwise.view(there)]
  const [slow, unlike, ...rest] = pairwise.failures(one, other, 93.4)
  t.deepEqual(slow, { clause: 'rtt_ms < 80', value: '93.4' })
  t.is(unlike?.clause, 'a.country == b.country')
  t.deepEqual(rest, [])
  t.deepEqual(pairwise.failures(one, one, undefined), [{ clause: 'rtt_ms < 80' }])
})

test('a condition on pairs that is none, or looks at one node, is refused with its place', (t) => {
  t.throws(() => compilePairwise('rtt_ms'), { code: 'QUERY_INVALID', message: /true or false, not double/ })
  t.throws(() => compilePairwise('node.racks > 3'), { message: /Unknown variable: node/ })
  t.throws(() => compilePairwise('rtt_ms < "80"'), { code: 'QUERY_INVALID' })
  t.true(compilePairwise('rtt_ms < 80').usesRtt)
  t.false(compilePairwise('a.country == b.country').usesRtt)
})
