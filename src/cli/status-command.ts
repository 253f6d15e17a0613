/** `slicenet status`: who this peer is, what it does and whom it knows. */
import type { Command } from 'commander'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome } from './output.ts'
import { withSession } from './session.ts'
import { formatFields, formatTime } from './table.ts'

export function addStatusCommand(root: Command, run: RunCommand): void {
  root
    .command('status')
    .description('show who this peer is, what it does and how many it knows')
    .addHelpText('after', examples('slicenet status', 'slicenet status --json'))
    .action(() => run(status, QUESTION))
}

async function status(context: CommandContext): Promise<Outcome> {
  const view = await withSession(context, (call) => call('status', {}, { signal: context.signal }))
  const text = (): string =>
    formatFields([
      ['name', view.name],
      ['principal', view.principal],
      ['roles', view.roles.join(', ') || '-'],
      ['version', view.version],
      ['process', String(view.pid)],
      ['started', formatTime(view.startedAt)],
      ['addresses', view.multiaddrs.join(', ') || '-'],
      ['peers', String(view.peers)],
      ['nodes known', String(view.nodesKnown)],
      ['agents known', String(view.agentsKnown)],
      ['delegations', String(view.delegations)],
      ['leases', String(view.leases)],
      ...view.warnings.map((warning) => ['warning', warning] as const)
    ])
  return { document: { status: view }, text }
}
