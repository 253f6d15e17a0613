/** `slicenet explain`: of every node whether it matches, and else everything that it fails. */
import type { Command } from 'commander'
import { SlicenetError } from '../base/errors.ts'
import type { ExplanationView } from '../daemon/control-protocol.ts'
import { toldNodes } from './clause-view.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { formatAge } from './table.ts'

export function addExplainCommand(root: Command, run: RunCommand): void {
  root
    .command('explain')
    .description('say of every node whether it matches, and else all that it fails')
    .argument('[query]', 'an expression in CEL over the advertisement of one node')
    .option('--slice <file>', 'what a slice needs of nodes and agents offer of them, instead of a query')
    .addHelpText(
      'after',
      `${examples(
        'slicenet explain \'node.region == "eu" && node.cpu.free >= 200\'',
        'slicenet explain --slice mesh.yaml',
        'slicenet explain --slice mesh.yaml --json'
      )}

It exits with 3 when no node matches.`
    )
    .action((query: string | undefined, { slice }: { slice?: string }) =>
      run((context) => explain(context, query, slice), QUESTION)
    )
}

async function explain(
  context: CommandContext,
  query: string | undefined,
  file: string | undefined
): Promise<Outcome> {
  const { signal } = context
  if ((query === undefined) === (file === undefined)) {
    throw new SlicenetError('USAGE', 'explain takes a query or --slice FILE, one of them', {
      hint: 'write `slicenet explain QUERY` or `slicenet explain --slice FILE`'
    })
  }
  // What reads slice files takes long to load.
  const { loadWant } = await import('../daemon/slice-source.ts')
  const what = file === undefined ? { query: query ?? '' } : { want: await loadWant(file, { signal }) }
  const nodes: ExplanationView[] = []
  await withSession(context, (call) =>
    call('explain', what, { signal, onItem: (node) => void nodes.push(node) })
  )
  const matching = nodes.filter(({ matches }) => matches).length
  const outcome = {
    document: { nodes, matching },
    text: (style: Style) => explanationText(nodes, matching, style)
  }
  return matching > 0 ? outcome : { ...outcome, error: noMatch(nodes.length) }
}

function explanationText(nodes: readonly ExplanationView[], matching: number, style: Style): string {
  if (nodes.length === 0) return ''
  const told = nodes.map(({ node, name, matches, failed, ageMs }) => ({
    node,
    name,
    remark: `${matches ? 'matches' : 'does not match'}, heard ${formatAge(ageMs)} ago`,
    failed
  }))
  return `${toldNodes(told, style)}\n${matching} of ${nodes.length} ${nodes.length === 1 ? 'node' : 'nodes'} match.\n`
}

function noMatch(nodes: number): SlicenetError {
  if (nodes > 0) return new SlicenetError('NO_MATCH', `none of ${nodes} nodes matches`)
  return new SlicenetError('NO_MATCH', 'no node is known', {
    hint: 'see with `slicenet status` whether this peer is connected; adverts may take a moment after a start'
  })
}
