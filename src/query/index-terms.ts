/**
 * What a query demands of every node that matches it, as terms of the index: of the clauses that its outermost `&&` join,
 * those that compare an indexed attribute or quantity with a constant. Each is a list of which one must hold. The rest
 * is evaluated where the adverts are. Pure.
 */
import type { ASTNode } from '@marcbachmann/cel-js'
import {
  indexKey,
  isIndexedAttribute,
  isQuantity,
  type IndexedAttribute,
  type IndexTerm,
  type Quantity
} from '../ticket/index-term.ts'

/** Values of an `in` that are looked up each; longer lists are left to the evaluation. */
const ALTERNATIVES_MAX = 4

type Subject = { readonly attribute: IndexedAttribute } | { readonly quantity: Quantity }

/** Keys of the index: whoever matches is found under one key of each list. */
export function demandedKeys(clauses: readonly ASTNode[]): string[][] {
  return clauses.flatMap((clause) => {
    const keys = termsOf(clause)?.map(indexKey)
    // Where an alternative has no key, the list says nothing.
    const known = keys?.filter((key) => key !== undefined)
    return known === undefined || known.length === 0 || known.length !== keys?.length ? [] : [known]
  })
}

/** `undefined` where the clause is none that is indexed. */
function termsOf(clause: ASTNode): IndexTerm[] | undefined {
  const [left, right] = Array.isArray(clause.args) ? (clause.args as readonly ASTNode[]) : []
  if (left === undefined || right === undefined) return undefined
  switch (clause.op) {
    case '==':
      return equality(left, right) ?? equality(right, left)
    case 'in':
      return membership(left, right)
    case '>=':
    case '>':
      return range(left, right)
    case '<=':
    case '<':
      return range(right, left)
    default:
      return undefined
  }
}

function equality(of: ASTNode, constant: ASTNode): IndexTerm[] | undefined {
  const subject = subjectOf(of)
  const value = constantOf(constant)
  if (subject === undefined) return undefined
  if ('attribute' in subject) {
    return typeof value === 'string' ? [{ attribute: subject.attribute, equals: value }] : undefined
  }
  return typeof value === 'bigint' ? [{ quantity: subject.quantity, atLeast: Number(value) }] : undefined
}

function membership(of: ASTNode, list: ASTNode): IndexTerm[] | undefined {
  const subject = subjectOf(of)
  if (subject === undefined || !('attribute' in subject) || list.op !== 'list') return undefined
  const values = (list.args as readonly ASTNode[]).map(constantOf)
  const texts = values.filter((value) => typeof value === 'string')
  if (texts.length !== values.length || texts.length > ALTERNATIVES_MAX) return undefined
  return texts.map((equals) => ({ attribute: subject.attribute, equals }))
}

function range(of: ASTNode, bound: ASTNode): IndexTerm[] | undefined {
  const subject = subjectOf(of)
  const value = constantOf(bound)
  if (subject === undefined || !('quantity' in subject) || typeof value !== 'bigint') return undefined
  return [{ quantity: subject.quantity, atLeast: Number(value) }]
}

/** `node.region`, or `node.cpu.free`, which no node has more of than `node.cpu.capacity`. */
function subjectOf({ op, args }: ASTNode): Subject | undefined {
  if (op !== '.') return undefined
  const [of, name] = args as readonly [ASTNode, string]
  if (of.op === 'id' && of.args === 'node') return isIndexedAttribute(name) ? { attribute: name } : undefined
  if (of.op !== '.' || (name !== 'free' && name !== 'capacity')) return undefined
  const [root, quantity] = of.args as readonly [ASTNode, string]
  return root.op === 'id' && root.args === 'node' && isQuantity(quantity) ? { quantity } : undefined
}

/** A literal, or a product of whole numbers such as `4 * 1024 * 1024`. */
function constantOf({ op, args }: ASTNode): unknown {
  if (op === 'value') return args
  if (op !== '*') return undefined
  const [left, right] = (args as readonly ASTNode[]).map(constantOf)
  return typeof left === 'bigint' && typeof right === 'bigint' ? left * right : undefined
}
