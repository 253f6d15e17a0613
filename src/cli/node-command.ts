/** `slicenet node …`: what the administrator of a node asks it. */
import type { Command } from 'commander'
import type { NodePortView } from '../daemon/node-port-protocol.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import { addNodeFlowCommands } from './node-flow-command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { formatPorts } from './slice-view.ts'
import { formatTable, formatTime, shortId } from './table.ts'

export function addNodeCommand(root: Command, run: RunCommand): void {
  const node = root.command('node').description('ask a node about itself, as its administrator')
  node
    .command('ports')
    .description('tell who has which port, ICMP identifier and GRE key of this node')
    .addHelpText('after', examples('slicenet node ports', 'slicenet node ports --json'))
    .action(() => run(ports, QUESTION))
  addNodeFlowCommands(node, run)
}

async function ports(context: CommandContext): Promise<Outcome> {
  const { ports: views } = await withSession(context, (call) =>
    call('nodePorts', {}, { signal: context.signal })
  )
  return { document: { ports: views }, text: (style) => portTable(views, style) }
}

const OWNERS = {
  node: 'the node',
  program: 'a program of this machine',
  shared: 'all vservers, for ports that none owns'
} as const

function portTable(views: readonly NodePortView[], style: Style): string {
  if (views.length === 0) return 'Nobody has a port of this node.\n'
  const rows = views.map((view) => {
    const { owner, slice, lease, holder, vserver, state, notAfter } = view
    return [
      formatPorts([view]),
      owner === 'lease' ? (slice ?? '-') : OWNERS[owner],
      lease === undefined ? '-' : shortId(lease),
      holder === undefined ? '-' : shortId(holder),
      vserver ?? '-',
      state ?? '-',
      notAfter === undefined ? '-' : formatTime(notAfter)
    ]
  })
  return formatTable(['PORT', 'OWNER', 'LEASE', 'HOLDER', 'VSERVER', 'STATE', 'ENDS'], rows, style)
}
