/**
 * Queries: CEL over one node's advertisement (design §4), such as `node.cpu.free >= 500 && node.region == "eu"`.
 * A query is cut into the clauses that its outermost `&&` join, so that *why no match* has an answer. A missing
 * attribute is no match, never an abort.
 */
import { Environment, type ASTNode } from '@marcbachmann/cel-js'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'

export interface Query {
  readonly text: string
  /** The clauses that do not hold for this node, each with the value it saw; empty when the query matches. */
  failures(advert: NodeAdvertisement): string[]
}

const COMPARISONS: ReadonlySet<string> = new Set(['==', '!=', '<', '<=', '>', '>=', 'in'])

const environment = new Environment({
  limits: { maxAstNodes: 500, maxDepth: 24, maxListElements: 100, maxMapEntries: 20, maxCallArguments: 8 }
}).registerVariable('node', 'map')

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
  const clauses = attempt(text, () => {
    const parsed = environment.parse(text)
    const checked = parsed.check()
    if (!checked.valid) throw checked.error
    if (checked.type !== 'bool' && checked.type !== 'dyn') {
      throw new SlicenetError('QUERY_INVALID', `a query is true or false, not ${checked.type}: ${text}`)
    }
    return conjuncts(parsed.ast).map((ast) => clause(text, ast))
  })
  return {
    text,
    failures(advert) {
      const context = { node: queryable(advert) }
      return clauses.filter(({ holds }) => !isTrue(holds, context)).map((failed) => explain(failed, context))
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

function clause(text: string, ast: ASTNode): Clause {
  const source = (node: ASTNode): string => text.slice(node.range.start, node.range.end)
  const left = COMPARISONS.has(ast.op) ? (ast.args as readonly ASTNode[])[0] : undefined
  return {
    text: source(ast),
    holds: environment.parse(source(ast)),
    seen: left === undefined || left.op === 'value' ? undefined : environment.parse(source(left))
  }
}

function isTrue(holds: Clause['holds'], context: object): boolean {
  try {
    return holds(context) === true
  } catch {
    // A missing attribute or a comparison of unlike types.
    return false
  }
}

function explain({ text, seen }: Clause, context: object): string {
  if (seen === undefined) return text
  try {
    const value = seen(context)
    return `${text} (it is ${typeof value === 'bigint' ? value : JSON.stringify(value)})`
  } catch {
    return `${text} (it has none)`
  }
}

function attempt<T>(text: string, compile: () => T): T {
  try {
    return compile()
  } catch (error) {
    if (error instanceof SlicenetError) throw error
    const message = error instanceof Error ? error.message : String(error)
    const hint = 'queries are CEL, such as: node.region == "eu" && node.cpu.free >= 500'
    throw new SlicenetError('QUERY_INVALID', `this query cannot be read: ${message}`, {
      hint,
      details: { text },
      cause: error
    })
  }
}
