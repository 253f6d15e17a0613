/**
 * Queries: CEL over one node's advertisement (design §4), such as `node.cpu.free >= 500 && node.region == "eu"`.
 * A query is cut into the clauses that its outermost `&&` join, so that *why no match* has an answer. A missing
 * attribute is no match, never an abort.
 */
import { Environment, type ASTNode } from '@marcbachmann/cel-js'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import { demandedKeys } from './index-terms.ts'

export interface Query {
  readonly text: string
  /** Keys of the index (src/ticket/index-term.ts): of each list every node that matches has one. */
  readonly demands: readonly (readonly string[])[]
  /** The clauses that do not hold for this node, each with the value it saw; empty when the query matches. */
  failures(advert: NodeAdvertisement): FailedClause[]
}

/** A condition that does not hold, and what was there instead; no value where there is none. */
export interface FailedClause {
  readonly clause: string
  readonly value?: string
}

/** For people. */
export function clauseText({ clause, value }: FailedClause): string {
  return `${clause} (${value === undefined ? 'it has none' : `it is ${value}`})`
}

/** What CEL has and queries have not, with what to do instead: an attribute may be made to be slow to match. */
const UNBOUNDED: ReadonlyMap<string, string> = new Map([
  ['matches', 'use startsWith, endsWith or contains'],
  ['bind', 'write the expression out']
])

/** What goes over a list; within one another so deep at most, for time grows with a power of the depth. */
const LOOPS: ReadonlySet<string> = new Set(['all', 'exists', 'exists_one', 'map', 'filter'])
const LOOP_DEPTH_MAX = 2
/** Of a value in an explanation. */
const SEEN_CHARS_MAX = 200

const COMPARISONS: ReadonlySet<string> = new Set(['==', '!=', '<', '<=', '>', '>=', 'in'])

const environment = new Environment({
  limits: { maxAstNodes: 500, maxDepth: 24, maxListElements: 100, maxMapEntries: 20, maxCallArguments: 8 }
}).registerVariable('node', 'map')

const HINT = 'queries are CEL, such as: node.region == "eu" && node.cpu.free >= 500'

interface Clause {
  readonly text: string
  readonly holds: (context: object) => unknown
  /** Gives the left side of a comparison, for the explanation. */
  readonly seen: ((context: object) => unknown) | undefined
}

/** Throws `QUERY_INVALID` with the place of the fault. */
export function compileQuery(text: string): Query {
  if (text.length > LIMITS.queryCharsMax) {
    throw new SlicenetError('QUERY_INVALID', `a query has at most ${LIMITS.queryCharsMax} characters`)
  }
  const { whole, clauses, demands } = attempt(text, () => {
    const parsed = environment.parse(text)
    const checked = parsed.check()
    if (!checked.valid) throw checked.error
    if (checked.type !== 'bool' && checked.type !== 'dyn') {
      throw new SlicenetError('QUERY_INVALID', `a query is true or false, not ${checked.type}: ${text}`)
    }
    checkSteps(parsed.ast, 0)
    const parts = conjuncts(parsed.ast)
    return { whole: parsed, clauses: parts.map((ast) => clause(text, ast)), demands: demandedKeys(parts) }
  })
  return {
    text,
    demands,
    failures(advert) {
      const context = { node: queryable(advert) }
      if (isTrue(whole, context)) return []
      const failed = clauses.filter(({ holds }) => !isTrue(holds, context))
      return failed.length === 0
        ? [{ clause: text, value: 'false' }]
        : failed.map((one) => explain(one, context))
    }
  }
}

/** What a query sees of a node; amounts as integers in the units of `Resources`, CPU in thousandths of a core. */
export function queryable(advert: NodeAdvertisement): Record<string, unknown> {
  const { capacity, free } = advert
  const pair = (name: keyof typeof capacity): object => ({
    capacity: BigInt(capacity[name]),
    free: BigInt(free[name])
  })
  const attributes = Object.entries(advert.attributes).map(([name, value]) => [
    name,
    typeof value === 'number' ? BigInt(value) : value
  ])
  return {
    // What a node says of itself must not hide what is measured.
    ...Object.fromEntries(attributes),
    id: advert.issuer,
    name: advert.name,
    cpu: pair('cpuMillis'),
    memory: pair('memoryBytes'),
    disk: pair('diskBytes'),
    egress: pair('egressBps'),
    pids: pair('pids'),
    agents: [...advert.agents],
    images: Object.keys(advert.images)
  }
}

function conjuncts(ast: ASTNode): ASTNode[] {
  return ast.op === '&&' ? ast.args.flatMap(conjuncts) : [ast]
}

/** Bounds the steps that a query takes, as the environment bounds its length and depth. */
function checkSteps(ast: ASTNode, loops: number): void {
  const call = ast.op === 'rcall' || ast.op === 'call' ? String((ast.args as readonly unknown[])[0]) : ''
  const instead = UNBOUNDED.get(call)
  if (instead !== undefined) {
    throw new SlicenetError('QUERY_INVALID', `queries have no ${call}: its time has no bound`, {
      hint: instead
    })
  }
  const depth = LOOPS.has(call) ? loops + 1 : loops
  if (depth > LOOP_DEPTH_MAX) {
    throw new SlicenetError('QUERY_INVALID', `${call}: lists are gone over at most ${LOOP_DEPTH_MAX} deep`)
  }
  for (const child of [ast.args].flat(3)) if (isNode(child)) checkSteps(child, depth)
}

function isNode(value: unknown): value is ASTNode {
  return typeof value === 'object' && value !== null && 'op' in value && 'args' in value
}

function clause(text: string, ast: ASTNode): Clause {
  const left = COMPARISONS.has(ast.op) ? (ast.args as readonly ASTNode[])[0] : undefined
  const source = sourceOf(text, ast)
  return {
    text: source,
    holds: environment.parse(source),
    seen: left === undefined || left.op === 'value' ? undefined : environment.parse(sourceOf(text, left))
  }
}

/**
 * The text of a part of a query. The parser's ranges leave out parentheses at their ends, so the range is grown until
 * it can be read by itself.
 */
function sourceOf(text: string, { range: { start, end } }: ASTNode): string {
  const before = /[\s(]*$/.exec(text.slice(0, start))?.[0].length ?? 0
  const after = /^[\s)]*/.exec(text.slice(end))?.[0].length ?? 0
  for (let more = 0; more <= before + after; more++) {
    for (let left = Math.max(0, more - after); left <= Math.min(before, more); left++) {
      const source = text.slice(start - left, end + more - left)
      try {
        environment.parse(source)
        return source.trim()
      } catch {
        // Some parenthesis is still outside.
      }
    }
  }
  return text
}

function isTrue(holds: Clause['holds'], context: object): boolean {
  try {
    return holds(context) === true
  } catch {
    // A missing attribute or a comparison of unlike types.
    return false
  }
}

function explain({ text, seen }: Clause, context: object): FailedClause {
  if (seen === undefined) return { clause: text, value: 'false' }
  try {
    return { clause: text, value: printed(seen(context)) }
  } catch {
    return { clause: text }
  }
}

function printed(value: unknown): string {
  const text = JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === 'bigint' ? Number(inner) : inner
  )
  return text.length > SEEN_CHARS_MAX ? `${text.slice(0, SEEN_CHARS_MAX)}…` : text
}

function attempt<T>(text: string, compile: () => T): T {
  try {
    return compile()
  } catch (error) {
    if (error instanceof SlicenetError) throw error
    const message = error instanceof Error ? error.message : String(error)
    throw new SlicenetError('QUERY_INVALID', `this query cannot be read: ${message}`, {
      hint: HINT,
      details: { text },
      cause: error
    })
  }
}
