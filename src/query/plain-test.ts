/**
 * Clauses that compare what a node says with a constant, which most do: they are tested without the library, in a
 * twentieth of the time, and only where value and constant are of kinds for which both give the same answer. Pure.
 */
import type { ASTNode } from '@marcbachmann/cel-js'
import type { Path } from './expression.ts'

export interface PlainTest {
  readonly path: Path
  /** `undefined`: the library is to say. */
  readonly test: (value: unknown) => boolean | undefined
}

type Scalar = string | bigint | number

/** Comparisons, and what they are with their sides exchanged. */
const MIRRORED: Readonly<Record<string, string>> = {
  '==': '==',
  '!=': '!=',
  '<': '>',
  '<=': '>=',
  '>': '<',
  '>=': '<='
}

/** `undefined` for clauses of any other form. */
export function plainTest(
  { op, args }: ASTNode,
  pathOf: (ast: ASTNode) => Path | undefined
): PlainTest | undefined {
  if (op === 'rcall') return method(args[0], args[1], args[2], pathOf)
  if (op === 'in') return membership(args[0], args[1], pathOf)
  if (MIRRORED[op] === undefined) return undefined
  const [left, right] = args as readonly [ASTNode, ASTNode]
  return comparison(op, left, right, pathOf) ?? comparison(MIRRORED[op], right, left, pathOf)
}

function comparison(
  op: string,
  of: ASTNode,
  constant: ASTNode,
  pathOf: (ast: ASTNode) => Path | undefined
): PlainTest | undefined {
  const path = pathOf(of)
  const other = scalar(constant)
  if (path === undefined || other === undefined) return undefined
  const compare = comparer(op, other)
  const isComparable = comparable(op, other)
  return { path, test: (value) => (isComparable(value) ? compare(value) : undefined) }
}

/** Whole numbers and others are put in order, but equality of such a pair is left to the library. */
function comparable(op: string, other: Scalar): (value: unknown) => value is Scalar {
  if (typeof other === 'string') return (value): value is Scalar => typeof value === 'string'
  const isOrder = op !== '==' && op !== '!='
  return (value): value is Scalar =>
    typeof value === typeof other || (isOrder && (typeof value === 'number' || typeof value === 'bigint'))
}

function comparer(op: string, other: Scalar): (value: Scalar) => boolean {
  switch (op) {
    case '==':
      return (value) => value === other
    case '!=':
      return (value) => value !== other
    case '<':
      return (value) => value < other
    case '<=':
      return (value) => value <= other
    case '>':
      return (value) => value > other
    default:
      return (value) => value >= other
  }
}

function membership(
  of: ASTNode,
  list: ASTNode,
  pathOf: (ast: ASTNode) => Path | undefined
): PlainTest | undefined {
  const path = pathOf(of)
  if (path === undefined || list.op !== 'list') return undefined
  const texts = list.args.map(scalar).filter((one) => typeof one === 'string')
  if (texts.length !== list.args.length || texts.length === 0) return undefined
  const among = new Set(texts)
  return { path, test: (value) => (typeof value === 'string' ? among.has(value) : undefined) }
}

function method(
  name: string,
  of: ASTNode,
  [constant]: readonly ASTNode[],
  pathOf: (ast: ASTNode) => Path | undefined
): PlainTest | undefined {
  const path = pathOf(of)
  const part = constant && scalar(constant)
  if (path === undefined || typeof part !== 'string') return undefined
  const has = contained(name, part)
  return has && { path, test: (value) => (typeof value === 'string' ? has(value) : undefined) }
}

function contained(name: string, part: string): ((value: string) => boolean) | undefined {
  switch (name) {
    case 'startsWith':
      return (value) => value.startsWith(part)
    case 'endsWith':
      return (value) => value.endsWith(part)
    case 'contains':
      return (value) => value.includes(part)
    default:
      return undefined
  }
}

function scalar({ op, args }: ASTNode): Scalar | undefined {
  if (op !== 'value') return undefined
  return typeof args === 'string' || typeof args === 'bigint' || typeof args === 'number' ? args : undefined
}
