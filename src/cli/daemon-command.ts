/** `slicenet daemon`: runs a peer until it is told to end. */
import type { Command } from 'commander'
import { resolve } from 'node:path'
import { examples, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome } from './output.ts'

const GRACE_MS = 60_000

export function addDaemonCommand(root: Command, run: RunCommand): void {
  root
    .command('daemon')
    .description('run a peer: a node, an agent, a boot peer, or one to work with, as its configuration says')
    .option('--config <file>', 'configuration in YAML; default slicenet.yaml in SLICENET_HOME')
    .addHelpText(
      'after',
      `${examples('slicenet daemon', 'slicenet daemon --config /etc/slicenet/node.yaml')}

It logs to stderr, one JSON object a line. SIGINT and SIGTERM end it in order; vservers run on.`
    )
    .action((options: { config?: string }) =>
      run((context) => daemon(context, options.config), { graceMs: GRACE_MS })
    )
}

async function daemon(context: CommandContext, configFile: string | undefined): Promise<Outcome> {
  const { environment, services, signal } = context
  await services.runDaemon({
    environment,
    signal,
    ...(configFile === undefined ? {} : { configFile: resolve(configFile) })
  })
  return { document: {} }
}
