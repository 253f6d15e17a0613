import test from 'ava'
import { findNodes } from '../../src/broker/finding.ts'
import type { DirectoryEntry } from '../../src/peer/advert-table.ts'
import { compileQuery, type Query } from '../../src/query/query.ts'
import { NOW, makeKey } from '../ticket/fixtures.ts'
import { nodeAdvert } from './adverts.ts'

const key = makeKey()
const advert = nodeAdvert(key, { name: 'n1' })
const entries = (count: number): DirectoryEntry[] =>
  Array.from({ length: count }, (_one, index) => ({
    advert: { ...advert, body: { ...advert.body, name: `n${index}` } },
    via: 'gossip',
    receivedAt: NOW
  }))

/** A clock that is a millisecond on whenever it is read. */
function busyClock(): { monotonic(): number } {
  let now = 0
  return { monotonic: () => (now += 1) }
}

test('others have their turn while a query goes over many adverts', async (t) => {
  let turns = 0
  const ticking = setInterval(() => (turns += 1), 0)
  const { found } = await findNodes(compileQuery('node.name != "n7"'), entries(2000), { clock: busyClock() })
  clearInterval(ticking)
  t.is(found.length, 1999)
  t.true(turns > 0)
})

test('a query that takes too long is given up, and one that nobody waits for as well', async (t) => {
  let now = 0
  const slow: Query = {
    text: '',
    demands: [],
    failures: () => [],
    matches: () => {
      now += 10
      return true
    }
  }
  const clock = { monotonic: () => now }
  await t.throwsAsync(findNodes(slow, entries(1000), { clock }), {
    code: 'QUERY_INVALID',
    message: /too long/
  })
  const controller = new AbortController()
  const finding = findNodes(slow, entries(400), { clock, signal: controller.signal })
  controller.abort(new Error('enough'))
  await t.throwsAsync(finding, { message: 'enough' })
})

test('why a node does not match is found out when it is asked for, once', async (t) => {
  let asked = 0
  const query = compileQuery('node.name == "n0"')
  const counting: Query = {
    ...query,
    failures(body) {
      asked += 1
      return query.failures(body)
    }
  }
  const { mismatches } = await findNodes(counting, entries(3), { clock: busyClock() })
  t.is(asked, 0)
  t.deepEqual(mismatches[0]?.failed, [{ clause: 'node.name == "n0"', value: '"n1"' }])
  t.is(mismatches[0]?.failed.length, 1)
  t.is(asked, 1)
})
