import test from 'ava'
import { clauseText } from '../../src/query/clauses.ts'
import { compileQuery } from '../../src/query/query.ts'
import { LIMITS } from '../../src/base/limits.ts'
import type { SlicenetError } from '../../src/base/errors.ts'
import { advertBody } from '../broker/adverts.ts'

const node = advertBody({ attributes: { region: 'eu', site: 'eu-1', racks: 3 } })

test('a query matches by measured amounts and by what a node says of itself', (t) => {
  for (const query of [
    'node.cpu.free >= 500',
    'node.memory.capacity > node.memory.free',
    'node.region == "eu" && node.racks == 3',
    'node.site.startsWith("eu") || node.region == "us"',
    'node.images.exists(image, image == "debian")',
    '!(node.region == "us")',
    '(node.racks + 1) * 2 == 8 && (node.region == "eu")',
    'node.racks - (node.racks - 1) == 1 && true',
    'node.region == "a && b" || true'
  ]) {
    t.deepEqual(compileQuery(query).failures(node), [], query)
  }
})

test('the clauses that fail are named with the value that was seen', (t) => {
  const explained: Readonly<Record<string, readonly string[]>> = {
    'node.region == "us"': ['node.region == "us" (it is "eu")'],
    'node.cpu.free >= 5000 && node.region == "eu"': ['node.cpu.free >= 5000 (it is 500)'],
    'node.region == "us" && (node.racks > 5 && node.racks > 6)': [
      'node.region == "us" (it is "eu")',
      'node.racks > 5 (it is 3)',
      'node.racks > 6 (it is 3)'
    ],
    'node.gpu == 1': ['node.gpu == 1 (it has none)'],
    'node.cpu == 5': ['node.cpu == 5 (it is {"capacity":1000,"free":500})'],
    'node.racks - (node.racks - 1) == 2': ['node.racks - (node.racks - 1) == 2 (it is 1)'],
    '(node.racks == 4) && (node.region == "eu")': ['node.racks == 4 (it is 3)'],
    '!(node.region == "eu") && true': ['!(node.region == "eu") (it is "eu")']
  }
  for (const [query, failures] of Object.entries(explained)) {
    t.deepEqual(compileQuery(query).failures(node).map(clauseText), failures, query)
  }
})

test('a missing attribute is no match, never an abort', (t) => {
  for (const query of [
    'node.gpu',
    'node.gpu.cores > 3',
    'node.gpu == node.tpu',
    'node.racks > "3"',
    '!node.gpu'
  ]) {
    t.is(compileQuery(query).failures(node).length, 1, query)
  }
  t.deepEqual(
    compileQuery('node.gpu > 1 || node.region == "eu"').failures(node),
    [],
    'and the rest still counts'
  )
})

test('an attribute cannot take the place of what is measured, nor of what objects have by themselves', (t) => {
  const liar = advertBody({ attributes: { cpu: 9_999_999, memory: 'lots', id: 'somebody', name: 'else' } })
  t.is(compileQuery('node.cpu.free >= 5000').failures(liar).length, 1)
  t.deepEqual(compileQuery('node.cpu.free == 500 && node.memory.free > 0').failures(liar), [])
  t.deepEqual(compileQuery(`node.id == "${liar.issuer}"`).failures(liar), [])
  for (const name of ['constructor', 'toString', 'hasOwnProperty', '__proto__']) {
    t.is(compileQuery(`has(node.${name})`).failures(node).length, 1, name)
  }
})

const wrong: Readonly<Record<string, readonly [query: string, says: RegExp]>> = {
  'that ends too early': ['node.region ==', /1 \| node\.region ==\n +\^/],
  'that is empty': ['', /cannot be read/],
  'over a name that is not there': ['host.region == "eu"', /Unknown variable: host/],
  'that is a number': ['1 + 1', /true or false, not int/],
  'with an unknown function': ['node.name.shout() == "A"', /cannot be read/],
  'of a megabyte': [`node.region == "${'a'.repeat(1_000_000)}"`, /at most 4096 characters/],
  'nested without end': [`${'('.repeat(2000)}true${')'.repeat(2000)}`, /cannot be read/],
  'of very many parts': [Array.from({ length: 800 }, () => '1').join('+'), /cannot be read/],
  'with a regular expression': ['node.name.matches("(a+)+$")', /no matches/],
  'that binds names': ['cel.bind(a, "x", a + a == "xx")', /no bind/],
  'that loops in loops in loops': [
    'node.agents.all(a, node.agents.all(b, node.agents.all(c, true)))',
    /at most 2 deep/
  ]
}
for (const [name, [query, says]] of Object.entries(wrong)) {
  test(`a query ${name} is QUERY_INVALID and says where`, (t) => {
    const error = t.throws<SlicenetError>(() => compileQuery(query), { code: 'QUERY_INVALID' })
    t.regex(error.message, says)
    t.true(JSON.stringify(error).length < 4 * LIMITS.queryCharsMax)
  })
}
