/** The parts of a slice description that say which nodes are wanted, and how they are to lie to one another. */
import { asSlicenetError } from '../base/errors.ts'
import { querySchema } from '../protocol/agent-protocol.ts'
import { attributeNameSchema, DISTINCT_MAX } from '../protocol/broker-protocol.ts'
import { compilePairwise } from '../query/pairwise.ts'
import { compileQuery } from '../query/query.ts'
import { compileRank } from '../query/rank.ts'
import type { SliceDescription } from './slice.ts'
import type { YamlMap, YamlValue } from './yaml-reader.ts'

export const PLACEMENT_FIELDS = ['query', 'distinct', 'spread', 'rank', 'pairwise'] as const
type Field = (typeof PLACEMENT_FIELDS)[number]

export function readPlacement(top: YamlMap<Field>): Pick<SliceDescription, Field> {
  const query = readExpression(top.get('query'), compileQuery)
  const distinct = readDistinct(top.get('distinct'))
  const spread = top.get('spread')?.text(attributeNameSchema)
  const rank = readExpression(top.get('rank'), compileRank)
  const pairwise = readExpression(top.get('pairwise'), compilePairwise)
  return {
    ...(query === undefined ? {} : { query }),
    ...(distinct.length === 0 ? {} : { distinct }),
    ...(spread === undefined ? {} : { spread }),
    ...(rank === undefined ? {} : { rank }),
    ...(pairwise === undefined ? {} : { pairwise })
  }
}

/** It is compiled here, so that a mistake is told with its line before anybody is asked anything. */
function readExpression(
  value: YamlValue | undefined,
  compile: (text: string) => unknown
): string | undefined {
  const text = value?.text(querySchema)
  if (value === undefined || text === undefined) return undefined
  try {
    compile(text)
    return text
  } catch (error) {
    // What follows the first line points at a place in the expression, under a copy of it.
    const [first = '', ...rest] = asSlicenetError(error).message.split('\n')
    const pointed = rest.find((line) => line.startsWith('>'))?.replace(/^>\s*\d+ \| /, '')
    value.problem(pointed === undefined || first.endsWith(pointed) ? first : `${first}: ${pointed}`)
    return undefined
  }
}

/** The name of one attribute, or a list. */
function readDistinct(value: YamlValue | undefined): string[] {
  if (value === undefined) return []
  const items = value.length === undefined ? [value] : value.list(DISTINCT_MAX)
  const names: string[] = []
  for (const item of items) {
    const name = item.text(attributeNameSchema)
    if (name === undefined) continue
    if (names.includes(name)) item.problem(`${name} is listed twice`)
    else names.push(name)
  }
  if (value.length === 0) value.problem('expected at least one attribute')
  return names
}
