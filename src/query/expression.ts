/**
 * Expressions in CEL (the Common Expression Language, design §4) over given variables: read, typed and bounded before
 * anything is evaluated, and cut into the clauses that their outermost `&&` join, so that *why no match* has an answer.
 */
import { Environment, type ASTNode } from '@marcbachmann/cel-js'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { checkSteps } from './cost.ts'
import { plainTest, type PlainTest } from './plain-test.ts'

/** What variables an expression has, and what it must come to. */
export interface Dialect {
  readonly environment: Environment
  readonly variables: readonly string[]
  /** Those that are nodes. */
  readonly nodes: readonly string[]
  /** CEL's names of the types that it may have; `dyn` is known only when it is evaluated. */
  readonly types: ReadonlySet<string>
  /** For messages, such as `a query is true or false`. */
  readonly rule: string
  readonly example: string
}

export interface Expression {
  readonly text: string
  readonly ast: ASTNode
  readonly evaluate: (context: object) => unknown
}

/** What a clause looks at, as a path: `node`, `cpu`, `free`. */
export type Path = readonly [variable: string, ...names: string[]]

export interface Clause {
  readonly text: string
  readonly evaluate: (context: object) => unknown
  /** Gives the side of a comparison that is no constant, for the explanation. */
  readonly seen: ((context: object) => unknown) | undefined
  /** All that it looks at. */
  readonly paths: readonly Path[]
  /** What it looks at whatever else holds: without one of these it is not true. */
  readonly needs: readonly Path[]
  readonly plain: PlainTest | undefined
}

const COMPARISONS: ReadonlySet<string> = new Set(['==', '!=', '<', '<=', '>', '>=', 'in'])
/** Parentheses at either end of a clause that its range leaves out. */
const PARENTHESES_MAX = 8

export function dialect(
  variables: Readonly<Record<string, 'map' | 'double'>>,
  rest: Omit<Dialect, 'environment' | 'variables' | 'nodes'>
): Dialect {
  const environment = new Environment({
    limits: { maxAstNodes: 500, maxDepth: 24, maxListElements: 100, maxMapEntries: 20, maxCallArguments: 8 }
  })
  const names = Object.entries(variables)
  for (const [name, type] of names) environment.registerVariable(name, type)
  return {
    ...rest,
    environment,
    variables: names.map(([name]) => name),
    nodes: names.flatMap(([name, type]) => (type === 'map' ? [name] : []))
  }
}

/** Throws `QUERY_INVALID` with the place of the fault. */
export function compileExpression(text: string, { environment, types, rule, example }: Dialect): Expression {
  if (text.length > LIMITS.queryCharsMax) {
    throw new SlicenetError('QUERY_INVALID', `a query has at most ${LIMITS.queryCharsMax} characters`)
  }
  try {
    const parsed = environment.parse(text)
    const checked = parsed.check()
    if (!checked.valid) throw checked.error
    const type = String(checked.type)
    if (!types.has(type)) throw new SlicenetError('QUERY_INVALID', `${rule}, not ${type}: ${text}`)
    checkSteps(parsed.ast)
    return { text, ast: parsed.ast, evaluate: parsed }
  } catch (error) {
    if (error instanceof SlicenetError) throw error
    const message = error instanceof Error ? error.message : String(error)
    throw new SlicenetError('QUERY_INVALID', `this query cannot be read: ${message}`, {
      hint: `queries are CEL, such as: ${example}`,
      details: { text },
      cause: error
    })
  }
}

/** The expression holds where each of these does. */
export function clausesOf({ text, ast }: Expression, { environment, variables }: Dialect): Clause[] {
  return conjuncts(ast).map((part) => {
    const source = sourceOf(text, part, environment)
    const side = COMPARISONS.has(part.op)
      ? (part.args as readonly ASTNode[]).find((one) => one.op !== 'value')
      : undefined
    return {
      text: source,
      evaluate: environment.parse(source),
      seen: side && environment.parse(sourceOf(text, side, environment)),
      paths: distinct(pathsIn(part, variables, () => true)),
      needs: distinct(pathsIn(part, variables, isAlwaysEvaluated)),
      plain: plainTest(part, (of) => pathOf(of, variables))
    }
  })
}

export function conjuncts(ast: ASTNode): ASTNode[] {
  return ast.op === '&&' ? ast.args.flatMap(conjuncts) : [ast]
}

/**
 * The names that an expression takes of its nodes; `undefined` where it takes one otherwise than by name, and may see all.
 */
export function namesIn(ast: ASTNode, { nodes }: Dialect): ReadonlySet<string> | undefined {
  const paths = pathsIn(ast, nodes, () => true)
  return paths.some(([, name]) => name === undefined)
    ? undefined
    : new Set(paths.map(([, name = '']) => name))
}

/** Whether an expression looks at any of these variables. */
export function mentions(ast: ASTNode, variables: readonly string[]): boolean {
  return pathsIn(ast, variables, () => true).length > 0
}

type Reach = (parent: ASTNode, index: number) => boolean

function pathsIn(ast: ASTNode, variables: readonly string[], reach: Reach): Path[] {
  const path = pathOf(ast, variables)
  if (path !== undefined) return [path]
  return childrenOf(ast).flatMap((child, index) =>
    reach(ast, index) ? pathsIn(child, variables, reach) : []
  )
}

function pathOf({ op, args }: ASTNode, variables: readonly string[]): Path | undefined {
  if (op === 'id') return variables.includes(args) ? [args] : undefined
  if (op !== '.') return undefined
  const [of, name] = args as readonly [ASTNode, string]
  const path = pathOf(of, variables)
  return path && [...path, name]
}

/** The rest may be left out, as the second part of `||` is when the first holds, or borne when it fails. */
function isAlwaysEvaluated({ op, args }: ASTNode, index: number): boolean {
  switch (op) {
    case '||':
    case '&&':
      return false
    case '?:':
      return index === 0
    case 'call':
      return (args as readonly unknown[])[0] !== 'has'
    case 'rcall':
      // What goes over a list is not evaluated for one that is empty.
      return index === 0
    default:
      return true
  }
}

/** Parts of an expression, in order; of a method's call what it is called on comes first. */
function childrenOf({ args }: ASTNode): ASTNode[] {
  return [args as unknown].flat(3).filter(isNode)
}

function isNode(value: unknown): value is ASTNode {
  return typeof value === 'object' && value !== null && 'op' in value && 'args' in value
}

function distinct(paths: readonly Path[]): Path[] {
  return [...new Map(paths.map((path) => [path.join('.'), path])).values()]
}

/**
 * The text of a part. The parser's ranges leave out parentheses at their ends, so the range is grown over those until it
 * can be read by itself; where that takes too many, the whole stands for the part.
 */
function sourceOf(text: string, { range: { start, end } }: ASTNode, environment: Environment): string {
  const before = /[\s(]*$/.exec(text.slice(0, start))?.[0] ?? ''
  const after = /^[\s)]*/.exec(text.slice(end))?.[0] ?? ''
  const lefts = [start, ...places(before, '(').map((at) => start - before.length + at)]
  const rights = [end, ...places(after, ')').map((at) => end + at + 1)]
  // From the inside outwards.
  lefts.sort((a, b) => b - a)
  for (const right of rights) {
    for (const left of lefts) {
      const source = text.slice(left, right)
      if (canBeRead(source, environment)) return source.trim()
    }
  }
  return text
}

function places(run: string, parenthesis: string): number[] {
  const found: number[] = []
  for (let at = 0; at < run.length; at++) if (run[at] === parenthesis) found.push(at)
  // The innermost of those before a part are the last.
  return parenthesis === '(' ? found.slice(-PARENTHESES_MAX) : found.slice(0, PARENTHESES_MAX)
}

function canBeRead(source: string, environment: Environment): boolean {
  try {
    environment.parse(source)
    return true
  } catch {
    return false
  }
}
