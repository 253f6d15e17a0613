/** What queries may cost, and that what is fast gives the answers of what is slow. */
import { Environment } from '@marcbachmann/cel-js'
import test from 'ava'
import fc from 'fast-check'
import { compileQuery } from '../../src/query/query.ts'
import { queryable } from '../../src/query/queryable.ts'
import type { NodeAdvertisement } from '../../src/ticket/advertisement.ts'
import { advertBody } from '../broker/adverts.ts'

const fine: readonly string[] = [
  'node.agents.exists(a, node.images.exists(i, a == i))',
  'node.agents.all(a, node.agents.exists(b, a == b))',
  'node.name.split("-").exists(part, part == "eu")',
  'node.agents.filter(a, a.startsWith("12D3")).size() >= 2'
]
for (const query of fine) {
  test(`a query of a sensible size is taken: ${query}`, (t) => {
    t.notThrows(() => compileQuery(query))
  })
}

const hundred = `[${Array.from({ length: 100 }, (_one, index) => index).join(',')}]`
const tooMuch: Readonly<Record<string, string>> = {
  'over long lists within one another': `${hundred}.all(a, ${hundred}.all(b, a != b || a == b))`,
  'over lists that are added up': `(${Array.from({ length: 30 }, () => 'node.agents').join('+')}).all(a, node.agents.all(b, a != b))`,
  'over the letters of a text': 'node.name.split("").all(a, node.name.split("").all(b, a != b + a))',
  'over what other lists were made into': `node.agents.map(a, ${hundred}).all(a, a.all(b, b < 0))`,
  'with a long comparison in a loop': `node.agents.all(a, node.agents.exists(b, (a + ${'b + '.repeat(40)} a) == b))`,
  'that joins what it made': `node.agents.map(a, node.agents.join(node.name)).join(node.name) == "a"`
}
for (const [name, query] of Object.entries(tooMuch)) {
  test(`a query ${name} is refused before it is evaluated`, (t) => {
    t.throws(() => compileQuery(query), { code: 'QUERY_INVALID', message: /steps for one node/ })
  })
}

test('functions whose time depends on more than the length of a text are refused', (t) => {
  for (const query of [
    'timestamp("2026-01-01T00:00:00Z").getHours("Europe/Berlin") == 1',
    'bytes("{}").json() == {}',
    'duration("1s") == duration("1s")'
  ]) {
    t.throws(() => compileQuery(query), { code: 'QUERY_INVALID', message: /queries have no/ }, query)
  }
})

test('a query of depth ten thousand is refused for its length, and the deepest of a length that is taken for its depth', (t) => {
  const nested = (depth: number): string => `${'!('.repeat(depth)}true${')'.repeat(depth)}`
  t.throws(() => compileQuery(nested(10_000)), { message: /at most 4096 characters/ })
  t.throws(() => compileQuery(nested(1000)), { code: 'QUERY_INVALID', message: /cannot be read/ })
  t.throws(() => compileQuery('!'.repeat(4000)), { code: 'QUERY_INVALID' })
  t.throws(() => compileQuery('node' + '.a'.repeat(2000)), { code: 'QUERY_INVALID' })
})

test('blanks and parentheses around clauses are no part of them, however many', (t) => {
  const blanks = ' '.repeat(480)
  const query = `${blanks}(${blanks}(node.racks + 1) * 2 ==${blanks} 8${blanks}) && ((1 + ${blanks}(node.racks)${blanks})) == 4`
  const compiled = compileQuery(query)
  t.true(compiled.matches(advertBody({ attributes: { racks: 3 } })))
  t.is(compiled.failures(advertBody({ attributes: { racks: 4 } })).length, 2)
})

const part = fc.constantFrom(
  'node.region == "eu"',
  'node.region != "eu"',
  '"eu" == node.region',
  'node.racks >= 2',
  '2 < node.racks',
  'node.racks != "3"',
  'node.racks == 2.0',
  'node.racks < 2.5',
  'node.region in ["eu", "us"]',
  'node.racks in [1, 2]',
  '"x" in node.agents',
  'node.region.startsWith("e")',
  'node.region.endsWith("s")',
  'node.region.contains("u")',
  'node.cpu.free >= 500',
  'node.cpu.nothing >= 500',
  'node.cpu.free <= node.cpu.capacity',
  'has(node.racks)',
  '!has(node.region)',
  'node.gpu > 1',
  'node.gpu == node.tpu',
  'node.agents.exists(a, a == node.region)',
  '(node.racks > 2 ? node.region == "eu" : true)',
  'node["region"] == "eu"',
  'size(node.images) == 1',
  'node.constructor == "x"',
  'true',
  'false'
)
const whole = fc
  .array(fc.tuple(part, fc.constantFrom(' && ', ' || ', ' && !(', ' && (')), { minLength: 1, maxLength: 4 })
  .map((parts) => {
    const joins = parts.slice(0, -1).map(([, join]) => join)
    const open = joins.filter((join) => join.endsWith('('))
    return parts.map(([one], index) => one + (joins[index] ?? '')).join('') + ')'.repeat(open.length)
  })
const body = fc
  .record({
    region: fc.option(fc.constantFrom('eu', 'us', 'e')),
    racks: fc.option(fc.oneof(fc.nat({ max: 4 }), fc.constant('3'))),
    agents: fc.constantFrom<string[]>([], ['x'], ['x', 'eu'])
  })
  .map(({ region, racks, agents: of }) =>
    advertBody({
      attributes: { ...(region === null ? {} : { region }), ...(racks === null ? {} : { racks }) },
      agents: of
    })
  )

const environment = new Environment().registerVariable('node', 'map')
function bare(query: string, advert: NodeAdvertisement): boolean {
  try {
    return environment.evaluate(query, { node: queryable(advert) }) === true
  } catch {
    return false
  }
}

test('a query says what the library says of the whole, and fails clauses where it does not match', (t) => {
  fc.assert(
    fc.property(whole, body, (query, advert) => {
      const compiled = compileQuery(query)
      t.is(compiled.matches(advert), bare(query, advert), query)
      t.is(compiled.failures(advert).length === 0, compiled.matches(advert), query)
    }),
    { numRuns: 1000 }
  )
})
