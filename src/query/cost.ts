/**
 * The most that evaluating an expression once can cost, whatever the node says: found out from its text before it is
 * evaluated, so that nobody's query keeps a peer busy. The library bounds how long and deep an expression is.
 */
import type { ASTNode } from '@marcbachmann/cel-js'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { RIGHTS } from '../ticket/rights.ts'

/** What a value can be at most: its characters or elements, what each element can be, and how much all is together. */
interface Value {
  readonly length: number
  readonly weight: number
  readonly item?: Value | undefined
}

interface Bound {
  readonly steps: number
  readonly value: Value
}

/** Variables that go over lists. */
type Scope = ReadonlyMap<string, Value>

/** Of an attribute's text, of a peer's id or name, and of an image's name. */
const TEXT_MAX = 128
const ID_MAX = 64
/** Lists of an advertisement, as `src/ticket/advertisement.ts` bounds them. */
const LISTS: ReadonlyMap<string, Value> = new Map(
  Object.entries({ agents: LIMITS.agentsPerNodeMax, images: 16, rights: RIGHTS.length }).map(
    ([name, length]) => [name, { length, weight: length * ID_MAX, item: text(ID_MAX) }]
  )
)
/** So many characters or elements are gone over in the time of one step. */
const PER_STEP = 16

/** What goes over a list; within one another so deep at most, for time grows with a power of the depth. */
const LOOPS: ReadonlySet<string> = new Set(['all', 'exists', 'exists_one', 'map', 'filter'])
const LOOP_DEPTH_MAX = 2

/** What queries have of CEL's functions: those whose time is bounded by the length of what they are given. */
const FUNCTIONS: ReadonlySet<string> = new Set([
  ...LOOPS,
  'has',
  'size',
  'startsWith',
  'endsWith',
  'contains',
  'lowerAscii',
  'upperAscii',
  'trim',
  'indexOf',
  'lastIndexOf',
  'substring',
  'split',
  'join',
  'int',
  'uint',
  'double',
  'string',
  'bool',
  'dyn',
  'type'
])

/** What to do instead of what CEL has and queries have not. */
const INSTEAD: ReadonlyMap<string, string> = new Map([
  ['matches', 'use startsWith, endsWith or contains'],
  ['bind', 'write the expression out']
])

/** Throws `QUERY_INVALID` when evaluating the expression could take too long. */
export function checkSteps(ast: ASTNode): void {
  const { steps } = boundOf(ast, new Map(), 0)
  if (steps <= LIMITS.queryStepsMax) return
  throw new SlicenetError('QUERY_INVALID', `this query could take ${steps} steps for one node`, {
    hint: `a query may take ${LIMITS.queryStepsMax}: go over fewer or shorter lists, or not over one within another`
  })
}

function boundOf(ast: ASTNode, scope: Scope, loops: number): Bound {
  const each = (parts: readonly ASTNode[]): Bound[] => parts.map((part) => boundOf(part, scope, loops))
  switch (ast.op) {
    case 'value':
      return { steps: 1, value: text(typeof ast.args === 'string' ? ast.args.length : 1) }
    case 'id':
      return { steps: 1, value: scope.get(ast.args) ?? text(TEXT_MAX) }
    case '.':
      return access(boundOf(ast.args[0], scope, loops), LISTS.get(ast.args[1]))
    case '[]':
      return { ...access(boundOf(ast.args[0], scope, loops), undefined), steps: over(each(ast.args)) }
    case 'list':
      return gathered(each(ast.args))
    case 'map':
      return gathered(each(ast.args.flat()))
    case '?:':
      return { steps: over(each(ast.args)), value: largest(each(ast.args)) }
    case '+':
      return joined(each(ast.args))
    case 'call':
      return call(ast.args[0], ast.args[1], scope, loops)
    case 'rcall':
      return call(ast.args[0], [ast.args[1], ...ast.args[2]], scope, loops)
    case '!_':
    case '-_':
      return { steps: over(each([ast.args])), value: text(1) }
    default:
      return { steps: over(each(ast.args as readonly ASTNode[])), value: text(1) }
  }
}

function call(name: string, parts: readonly ASTNode[], scope: Scope, loops: number): Bound {
  if (!FUNCTIONS.has(name)) {
    throw new SlicenetError('QUERY_INVALID', `queries have no ${name}: its time has no bound`, {
      hint: INSTEAD.get(name) ?? 'compare what the node says with text and numbers'
    })
  }
  if (LOOPS.has(name)) return loop(name, parts, scope, loops + 1)
  const bounds = parts.map((part) => boundOf(part, scope, loops))
  const [of = text(1), by = text(0)] = bounds.map(({ value }) => value)
  const steps = over(bounds)
  switch (name) {
    case 'split': {
      const weight = 2 * of.length + 1
      return { steps: steps + weight, value: { length: of.length + 1, weight, item: text(of.length) } }
    }
    case 'join': {
      const length = of.weight + of.length * by.length
      return { steps: steps + length, value: text(length) }
    }
    case 'dyn':
    case 'trim':
    case 'substring':
    case 'lowerAscii':
    case 'upperAscii':
      return { steps, value: of }
    case 'string':
      return { steps, value: text(Math.max(32, of.length)) }
    default:
      return { steps, value: text(1) }
  }
}

function loop(name: string, parts: readonly ASTNode[], scope: Scope, loops: number): Bound {
  if (loops > LOOP_DEPTH_MAX) {
    throw new SlicenetError('QUERY_INVALID', `${name}: lists are gone over at most ${LOOP_DEPTH_MAX} deep`)
  }
  const [list, variable, ...bodies] = parts
  if (list === undefined || variable?.op !== 'id') return { steps: 1, value: text(1) }
  const of = boundOf(list, scope, loops - 1)
  const inner = new Map([...scope, [variable.args, of.value.item ?? text(TEXT_MAX)]])
  const each = bodies.map((body) => boundOf(body, inner, loops))
  const steps = of.steps + of.value.length * each.reduce((total, one) => total + one.steps, 1)
  if (name === 'filter') return { steps, value: of.value }
  const item = each.at(-1)?.value
  if (name !== 'map' || item === undefined) return { steps, value: text(1) }
  const { length } = of.value
  return { steps, value: { length, weight: length * (1 + item.weight), item } }
}

function text(length: number): Value {
  return { length, weight: Math.max(1, length) }
}

/** A field of a node is text, a number or one of the lists; of something else it is an element. */
function access({ steps, value }: Bound, list: Value | undefined): Bound {
  const one = [list, value.item, text(TEXT_MAX)].filter((each) => each !== undefined)
  return { steps: steps + 1, value: list === undefined ? larger(one) : larger(one.slice(0, -1)) }
}

function gathered(bounds: readonly Bound[]): Bound {
  const weight = bounds.reduce((total, { value }) => total + 1 + value.weight, 0)
  const steps = bounds.reduce((total, one) => total + one.steps, 1)
  return { steps, value: { length: bounds.length, weight, item: largest(bounds) } }
}

/** Lists and texts grow when they are added up. */
function joined(bounds: readonly Bound[]): Bound {
  const total = (key: 'length' | 'weight'): number => bounds.reduce((sum, { value }) => sum + value[key], 0)
  return {
    steps: over(bounds),
    value: { length: total('length'), weight: total('weight'), item: largest(bounds).item }
  }
}

/** Steps of what goes over all that it is given once. */
function over(bounds: readonly Bound[]): number {
  return bounds.reduce((sum, { steps, value }) => sum + steps + Math.ceil(value.weight / PER_STEP), 1)
}

function largest(bounds: readonly Bound[]): Value {
  return larger(bounds.map(({ value }) => value))
}

/** In each respect. */
function larger(values: readonly Value[]): Value {
  const items = values.flatMap(({ item }) => (item === undefined ? [] : [item]))
  return {
    length: Math.max(0, ...values.map(({ length }) => length)),
    weight: Math.max(1, ...values.map(({ weight }) => weight)),
    item: items.length === 0 ? undefined : larger(items)
  }
}
