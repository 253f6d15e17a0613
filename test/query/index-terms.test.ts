import test from 'ava'
import fc from 'fast-check'
import { compileQuery } from '../../src/query/query.ts'
import { indexKeysOf } from '../../src/ticket/index-term.ts'
import { NO_RESOURCES } from '../../src/ticket/resources.ts'
import { advertBody } from '../broker/adverts.ts'

const demands = (query: string): readonly (readonly string[])[] => compileQuery(query).demands

test('equality with an indexed attribute is looked up, whichever side it is on', (t) => {
  t.deepEqual(demands('node.region == "eu"'), [['region=eu']])
  t.deepEqual(demands('"eu" == node.region && node.arch == "x64"'), [['region=eu'], ['arch=x64']])
})

test('a range of capacity or of what is free is one key', (t) => {
  t.deepEqual(demands('node.cpu.free >= 5000'), [['cpu>=4000']])
  t.deepEqual(demands('16 * 1024 * 1024 * 1024 < node.memory.capacity'), [['memory>=17179869184']])
})

test('a list of a few values is looked up value by value', (t) => {
  t.deepEqual(demands('node.site in ["a", "b"]'), [['site=a', 'site=b']])
  t.deepEqual(demands('node.site in ["a", "b", "c", "d", "e"]'), [])
})

test('what not every match must meet is not demanded', (t) => {
  for (const query of [
    'node.region == "eu" || node.cpu.free >= 5000',
    '!(node.region == "eu")',
    'node.region != "eu"',
    'node.cpu.free <= 5000',
    'node.cpu.free >= 10',
    'node.colour == "red"',
    'node.region == node.site',
    'node.region == 5',
    'node.cpu.free >= node.cpu.capacity'
  ]) {
    t.deepEqual(demands(query), [], query)
  }
})

const regions = ['eu', 'us'] as const
const clause = fc.oneof(
  fc.constantFrom(...regions).map((region) => `node.region == "${region}"`),
  fc.constantFrom(...regions).map((site) => `node.site in ["${site}", "x"]`),
  fc.integer({ min: 0, max: 70_000 }).map((cpu) => `node.cpu.capacity >= ${cpu}`),
  fc.integer({ min: 0, max: 70_000 }).map((cpu) => `${cpu} < node.cpu.free`)
)
const node = fc.record({
  region: fc.constantFrom(...regions),
  site: fc.constantFrom(...regions),
  cpu: fc.integer({ min: 0, max: 70_000 }),
  free: fc.integer({ min: 0, max: 100 })
})

test('whoever matches a query is found under one key of every demand', (t) => {
  let matches = 0
  fc.assert(
    fc.property(
      fc.array(clause, { minLength: 1, maxLength: 3 }),
      node,
      (clauses, { region, site, cpu, free }) => {
        const query = compileQuery(clauses.join(' && '))
        const advert = advertBody({
          attributes: { region, site },
          capacity: { ...NO_RESOURCES, cpuMillis: cpu },
          free: { ...NO_RESOURCES, cpuMillis: Math.floor((cpu * free) / 100) }
        })
        if (query.failures(advert).length > 0) return
        matches += 1
        const keys = new Set(indexKeysOf([advert], 64))
        for (const alternatives of query.demands) t.true(alternatives.some((key) => keys.has(key)))
      }
    ),
    { numRuns: 3000 }
  )
  t.true(matches > 100)
})
