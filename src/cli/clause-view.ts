/** What nodes fail, as text for people: a node a line, and below it each condition with what was there instead. */
import type { ExplanationView } from '../daemon/control-protocol.ts'
import type { Style } from './output.ts'
import { shortId, tame } from './table.ts'

export type FailedClause = ExplanationView['failed'][number]

/** What is told of one node. */
export interface ToldNode {
  readonly node: string
  readonly name: string
  /** Behind its name. */
  readonly remark: string
  readonly failed: readonly FailedClause[]
}

const NAME_CHARS_MAX = 24

export function toldNodes(nodes: readonly ToldNode[], style: Style): string {
  const width = Math.min(NAME_CHARS_MAX, Math.max(0, ...nodes.map(({ name }) => tame(name).length)))
  return nodes
    .map(({ node, name, remark, failed }) => {
      const line = `${tame(name).padEnd(width)}  ${shortId(node)}  ${tame(remark)}\n`
      return line + failed.map((clause) => clauseLines(clause, style)).join('')
    })
    .join('')
}

/** On one line where that fits the terminal. */
function clauseLines({ clause, value }: FailedClause, { width, bad }: Style): string {
  const condition = tame(clause)
  const instead = value === undefined ? 'it has none' : `it is ${tame(value)}`
  const isLong = width !== undefined && condition.length + instead.length + 6 > width
  return `  ${bad(condition)}${isLong ? '\n    ' : '  '}(${instead})\n`
}
