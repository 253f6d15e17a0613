/** `slicenet find [QUERY]`: which nodes there are, and which match. */
import type { Command } from 'commander'
import { byteUnit, cpuUnit, rateUnit } from '../base/units.ts'
import type { NodeView } from '../daemon/control-protocol.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { formatTable, formatTime, shortId } from './table.ts'

export function addFindCommand(root: Command, run: RunCommand): void {
  root
    .command('find')
    .description('show the nodes that match a query, or all that are known')
    .argument('[query]', 'an expression in CEL over the advertisement of one node')
    .addHelpText(
      'after',
      examples(
        'slicenet find',
        'slicenet find \'node.region == "eu" && node.cpu.free >= 200\'',
        "slicenet find 'node.memory.free >= 256 * 1024 * 1024' --json"
      )
    )
    .action((query: string | undefined) => run((context) => find(context, query), QUESTION))
}

async function find(context: CommandContext, query: string | undefined): Promise<Outcome> {
  const params = query === undefined ? {} : { query }
  const { nodes } = await withSession(context, (call) => call('find', params, { signal: context.signal }))
  return { document: { nodes }, text: (style) => nodeTable(nodes, style) }
}

function nodeTable(nodes: readonly NodeView[], style: Style): string {
  if (nodes.length === 0) return 'No node is known.\n'
  const rows = nodes.map((node) => [
    node.name,
    shortId(node.id),
    String(node.attributes['region'] ?? '-'),
    `${cpuUnit.format(node.free.cpuMillis)}/${cpuUnit.format(node.capacity.cpuMillis)}`,
    byteUnit.format(node.free.memoryBytes),
    byteUnit.format(node.free.diskBytes),
    rateUnit.format(node.free.egressBps),
    Object.keys(node.images).join(',') || '-',
    String(node.agents.length),
    node.via,
    formatTime(node.expiresAt)
  ])
  const header = [
    'NAME',
    'NODE',
    'REGION',
    'CPU FREE',
    'MEMORY',
    'DISK',
    'EGRESS',
    'IMAGES',
    'AGENTS',
    'VIA',
    'EXPIRES'
  ]
  return formatTable(header, rows, style)
}
