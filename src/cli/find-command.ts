/** `slicenet find [QUERY]`: which nodes there are, which match, and with `--watch` which begin to and no longer do. */
import type { Command } from 'commander'
import { byteUnit, cpuUnit, rateUnit } from '../base/units.ts'
import { findNodes } from '../daemon/control-client.ts'
import type { NodeView } from '../daemon/control-protocol.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import { formatDocument, writeAll, type Outcome, type Style } from './output.ts'
import { withSession } from './session.ts'
import { formatAge, formatColumns, formatTime, shortId, tame, type Column } from './table.ts'

export function addFindCommand(root: Command, run: RunCommand): void {
  root
    .command('find')
    .description('show the nodes that match a query, or all that are known')
    .argument('[query]', 'an expression in CEL over the advertisement of one node')
    .option('--watch', 'go on, a line for each node that begins to match, changes, or no longer matches')
    .addHelpText(
      'after',
      `${examples(
        'slicenet find',
        'slicenet find \'node.region == "eu" && node.cpu.free >= 200\'',
        "slicenet find 'node.memory.free >= 256 * 1024 * 1024' --json",
        'slicenet find \'node.region == "eu"\' --watch --timeout 10m'
      )}

AGE is how old the news of a node is at least; RELIABILITY what this peer's own tickets there came to. A watch ends
with Ctrl-C or --timeout, and exits with 0 then.`
    )
    .action((query: string | undefined, { watch: isWatch }: { watch?: boolean }) =>
      isWatch === true
        ? run((context) => watch(context, query))
        : run((context) => find(context, query), QUESTION)
    )
}

async function find(context: CommandContext, query: string | undefined): Promise<Outcome> {
  const nodes = await withSession(context, (call) => findNodes(call, query, { signal: context.signal }))
  return { document: { nodes }, text: (style) => nodeTable(nodes, style) }
}

async function watch(context: CommandContext, query: string | undefined): Promise<Outcome> {
  const { json, services, signal, terminal } = context
  const params = query === undefined ? {} : { query }
  let isFirst = true
  const onItem = async ({ event, node }: { event: string; node: NodeView }): Promise<void> => {
    const time = services.now()
    const heading = isFirst ? watchLine(WATCH_HEADER) : ''
    isFirst = false
    await writeAll(
      terminal.stdout,
      json ? formatDocument({ event, time, node }) : heading + watchLine(watchCells(event, time, node))
    )
  }
  try {
    await withSession(context, (call) => call('discover', params, { signal, onItem }))
  } catch (error) {
    // It has no other end than that somebody has seen enough.
    if (!signal.aborted) throw error
  }
  return {}
}

const COLUMNS: readonly Column<NodeView>[] = [
  { name: 'NAME', cell: ({ name }) => name },
  { name: 'NODE', cell: ({ id }) => shortId(id) },
  { name: 'REGION', cell: regionOf },
  { name: 'CPU FREE', cell: cpuOf },
  { name: 'MEMORY', cell: ({ free }) => byteUnit.format(free.memoryBytes) },
  { name: 'DISK', cell: ({ free }) => byteUnit.format(free.diskBytes), spare: 3 },
  { name: 'EGRESS', cell: ({ free }) => rateUnit.format(free.egressBps), spare: 4 },
  { name: 'IMAGES', cell: ({ images }) => Object.keys(images).join(',') || '-', spare: 1 },
  { name: 'AGENTS', cell: ({ agents }) => String(agents.length), spare: 5 },
  { name: 'VIA', cell: ({ via }) => via, spare: 6 },
  { name: 'AGE', cell: ({ ageMs }) => formatAge(ageMs) },
  { name: 'RELIABILITY', cell: ({ reliability }) => percentOf(reliability) }
]

function nodeTable(nodes: readonly NodeView[], style: Style): string {
  return nodes.length === 0 ? 'No node is known.\n' : formatColumns(COLUMNS, nodes, style)
}

const WATCH_HEADER = ['TIME', 'EVENT', 'NAME', 'NODE', 'REGION', 'CPU FREE']
/** Lines come one by one, so their columns cannot wait for the widest cell. */
const WATCH_WIDTHS = [20, 6, 10, 16, 8]

function watchCells(event: string, time: number, node: NodeView): string[] {
  return [formatTime(time), event, node.name, shortId(node.id), regionOf(node), cpuOf(node)]
}

function watchLine(cells: readonly string[]): string {
  return `${cells
    .map((cell, column) => tame(cell).padEnd(WATCH_WIDTHS[column] ?? 0))
    .join(' ')
    .trimEnd()}\n`
}

function regionOf({ attributes }: NodeView): string {
  return String(attributes['region'] ?? '-')
}

function cpuOf({ free, capacity }: NodeView): string {
  return `${cpuUnit.format(free.cpuMillis)}/${cpuUnit.format(capacity.cpuMillis)}`
}

function percentOf(permille: number | undefined): string {
  return permille === undefined ? '-' : `${Math.floor(permille / 10)}%`
}
