import test from 'ava'
import fc from 'fast-check'
import { indexKey, indexKeysOf, QUANTITIES, type IndexTerm } from '../../src/ticket/index-term.ts'
import { NO_RESOURCES, type Resources } from '../../src/ticket/resources.ts'
import { nodeAdvert } from '../broker/adverts.ts'
import { makeKey } from '../ticket/fixtures.ts'

const key = makeKey()
const template = nodeAdvert(key, {}).body

function node(attributes: Record<string, string | number>, capacity: Partial<Resources> = {}) {
  return { ...template, attributes, capacity: { ...NO_RESOURCES, ...capacity } }
}

test('a node is indexed under its values and under every class of capacity that it reaches', (t) => {
  const keys = indexKeysOf(
    [node({ region: 'eu', site: 'a b', cores: 8, colour: 'red' }, { cpuMillis: 5000 })],
    64
  )
  t.deepEqual(keys.toSorted(), ['cpu>=1000', 'cpu>=4000', 'region=eu', 'site=a%20b'])
})

test('what most nodes meet comes first, and there is a maximum', (t) => {
  const nodes = [node({ region: 'us' }), node({ region: 'eu' }), node({ region: 'eu' })]
  t.deepEqual(indexKeysOf(nodes, 64), ['region=eu', 'region=us'])
  t.deepEqual(indexKeysOf(nodes, 1), ['region=eu'])
})

test('a range below the lowest class has no key', (t) => {
  t.is(indexKey({ quantity: 'cpu', atLeast: 999 }), undefined)
  t.is(indexKey({ quantity: 'cpu', atLeast: 1000 }), 'cpu>=1000')
  t.is(indexKey({ quantity: 'cpu', atLeast: 15_999 }), 'cpu>=4000')
})

const amount = fc.integer({ min: 0, max: 2 ** 42 })
const capacity = fc.record({ cpuMillis: amount, memoryBytes: amount, diskBytes: amount, egressBps: amount })
const NAMES = { cpu: 'cpuMillis', memory: 'memoryBytes', disk: 'diskBytes', egress: 'egressBps' } as const

test('whoever meets a term is found by its key', (t) => {
  fc.assert(
    fc.property(capacity, fc.string({ maxLength: 20 }), amount, (had, region, atLeast) => {
      const keys = new Set(indexKeysOf([node({ region }, had)], 64))
      const terms: IndexTerm[] = [
        { attribute: 'region', equals: region },
        ...QUANTITIES.filter((quantity) => had[NAMES[quantity]] >= atLeast).map((quantity) => ({
          quantity,
          atLeast
        }))
      ]
      for (const term of terms) {
        const wanted = indexKey(term)
        if (wanted !== undefined) t.true(keys.has(wanted))
      }
    }),
    { numRuns: 2000 }
  )
})
