/** `slicenet lease …`: the leases on this node, or those that this peer holds, and what administrative slices did. */
import type { Command } from 'commander'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { byteUnit, cpuUnit } from '../base/units.ts'
import type { AuditEntry } from '../daemon/audit-protocol.ts'
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
  lease
    .command('audit')
    .description('tell what holders of administrative slices did on this node, the latest last')
    .argument('[lease]', 'of this one alone, by its id, its slice or its holder, or how one begins')
    .option('--last <count>', `so many entries at most, up to ${LIMITS.auditReadMax}`, '100')
    .addHelpText('after', examples('slicenet lease audit', 'slicenet lease audit monitor --last 1000 --json'))
    .action((lease: string | undefined, options: { readonly last: string }) =>
      run((context) => audit(context, lease, options.last), QUESTION)
    )
}

async function audit(context: CommandContext, of: string | undefined, last: string): Promise<Outcome> {
  const { signal } = context
  const wanted = parseLast(last)
  // Of one lease there may be few among many.
  const params = { last: of === undefined ? wanted : LIMITS.auditReadMax }
  const { entries: read } = await withSession(context, (call) => call('leaseAudit', params, { signal }))
  const isOf = (entry: AuditEntry): boolean =>
    of === undefined || [entry.lease, entry.slice, entry.principal].some((name) => name?.startsWith(of))
  const entries = read.filter(isOf).slice(-wanted)
  return { document: { entries }, text: (style) => auditTable(entries, style) }
}

/** Throws `USAGE`. */
function parseLast(text: string): number {
  const count = Number(text)
  if (Number.isInteger(count) && count >= 1 && count <= LIMITS.auditReadMax) return count
  throw new SlicenetError('USAGE', `--last: expected 1 to ${LIMITS.auditReadMax}; got ${text}`)
}

function auditTable(entries: readonly AuditEntry[], style: Style): string {
  if (entries.length === 0) return 'Nothing was done in administrative slices.\n'
  const rows = entries.map((entry) => [
    formatTime(entry.time),
    entry.lease === undefined ? '-' : shortId(entry.lease),
    entry.slice,
    shortId(entry.principal),
    entry.act,
    entry.outcome,
    Object.entries(entry.details)
      .map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join(' ') : value}`)
      .join('; ')
  ])
  return formatTable(['TIME', 'LEASE', 'SLICE', 'HOLDER', 'ACT', 'OUTCOME', 'WHAT'], rows, style)
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
