/** `slicenet peers`: whom this peer is connected to, and how. */
import type { Command } from 'commander'
import type { ContactView } from '../daemon/contact-protocol.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { formatTable, formatTime, shortId } from './table.ts'

export function addPeersCommand(root: Command, run: RunCommand): void {
  root
    .command('peers')
    .description('show the peers that this one is connected to, and how')
    .addHelpText('after', examples('slicenet peers', 'slicenet peers --json'))
    .action(() => run(peers, QUESTION))
}

async function peers(context: CommandContext): Promise<Outcome> {
  const view = await withSession(context, (call) => call('peers', {}, { signal: context.signal }))
  return { document: { peers: view.peers }, text: (style) => peerTable(view.peers, style) }
}

function peerTable(list: readonly ContactView[], style: Style): string {
  if (list.length === 0) return 'No peer is connected.\n'
  const rows = list.map(({ principal, name, roles, direction, relayed, address, connectedAt }) => [
    shortId(principal),
    name ?? '-',
    roles.join(',') || '-',
    direction === 'inbound' ? 'in' : 'out',
    relayed ? 'relayed' : 'direct',
    formatTime(connectedAt),
    address
  ])
  return formatTable(['PEER', 'NAME', 'ROLES', 'DIALED', 'PATH', 'SINCE', 'ADDRESS'], rows, style)
}
