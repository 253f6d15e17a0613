/** `slicenet daemon`: runs a peer until it is told to end. */
import type { Command } from 'commander'
import { resolve } from 'node:path'
import { examples, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome } from './output.ts'

const GRACE_MS = 60_000

interface DaemonOptions {
  readonly config?: string
  readonly bootstrap: readonly string[]
}

export function addDaemonCommand(root: Command, run: RunCommand): void {
  root
    .command('daemon')
    .description('run a peer: a node, an agent, a boot peer, or one to work with, as its configuration says')
    .option('--config <file>', 'configuration in YAML; default slicenet.yaml in SLICENET_HOME')
    .option(
      '--bootstrap <address>',
      'a peer to join by, beside the configuration’s; may be repeated',
      gather,
      []
    )
    .addHelpText(
      'after',
      `${examples(
        'slicenet daemon',
        'slicenet daemon --config /etc/slicenet/node.yaml',
        'slicenet daemon --bootstrap /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…'
      )}

It logs to stderr, one JSON object a line. SIGINT and SIGTERM end it in order; vservers run on.`
    )
    .action((options: DaemonOptions) => run((context) => daemon(context, options), { graceMs: GRACE_MS }))
}

function gather(address: string, before: readonly string[]): string[] {
  return [...before, address]
}

async function daemon(context: CommandContext, options: DaemonOptions): Promise<Outcome> {
  const { environment, services, signal } = context
  const { config: configFile, bootstrap } = options
  await services.runDaemon({
    environment,
    signal,
    bootstrap,
    ...(configFile === undefined ? {} : { configFile: resolve(configFile) })
  })
  return { document: {} }
}
