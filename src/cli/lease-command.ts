/** `slicenet lease list`: the leases on this node, or those that this peer holds. */
import type { Command } from 'commander'
import { byteUnit, cpuUnit } from '../base/units.ts'
import type { LeaseView } from '../daemon/control-protocol.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { formatPorts } from './slice-view.ts'
import { formatTable, formatTime, shortId } from './table.ts'

export function addLeaseCommand(root: Command, run: RunCommand): void {
  const lease = root.command('lease').description('look at leases')
  lease
    .command('list')
    .description('list the leases on this node, or those that this peer holds')
    .addHelpText('after', examples('slicenet lease list', 'slicenet lease list --json'))
    .action(() => run(list, QUESTION))
}

async function list(context: CommandContext): Promise<Outcome> {
  const { leases } = await withSession(context, (call) => call('leaseList', {}, { signal: context.signal }))
  return { document: { leases }, text: (style) => leaseTable(leases, style) }
}

function leaseTable(leases: readonly LeaseView[], style: Style): string {
  if (leases.length === 0) return 'No leases.\n'
  const rows = leases.map((lease) => [
    shortId(lease.lease),
    lease.slice,
    shortId(lease.node),
    shortId(lease.holder),
    lease.vserver,
    lease.address,
    cpuUnit.format(lease.resources.cpuMillis),
    byteUnit.format(lease.resources.memoryBytes),
    formatPorts(lease.ports),
    lease.state,
    formatTime(lease.notAfter)
  ])
  const header = [
    'LEASE',
    'SLICE',
    'NODE',
    'HOLDER',
    'VSERVER',
    'ADDRESS',
    'CPU',
    'MEMORY',
    'PORTS',
    'STATE',
    'ENDS'
  ]
  return formatTable(header, rows, style)
}
