/** `slicenet keys …`: the secret key that makes this peer the principal it is. */
import type { Command } from 'commander'
import { createKey, loadKey } from '../daemon/key-file.ts'
import { examples, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome } from './output.ts'

export function addKeysCommand(root: Command, run: RunCommand): void {
  const keys = root.command('keys').description('make and show the key of this peer')
  keys
    .command('new')
    .description('make a key; never replaces one')
    .addHelpText('after', examples('slicenet keys new', 'SLICENET_HOME=/srv/slicenet slicenet keys new'))
    .action(() => run(make))
  keys
    .command('show')
    .description('print the principal of the key, never the key itself')
    .addHelpText('after', examples('slicenet keys show', 'slicenet keys show --json'))
    .action(() => run(show))
}

async function make({ environment, progress }: CommandContext): Promise<Outcome> {
  const { principal } = await createKey(environment.keyFile)
  progress(`wrote ${environment.keyFile}: keep it secret, and keep a copy`)
  return { document: { principal, file: environment.keyFile }, text: () => `${principal}\n` }
}

async function show({ environment }: CommandContext): Promise<Outcome> {
  const { principal } = await loadKey(environment.keyFile)
  return { document: { principal, file: environment.keyFile }, text: () => `${principal}\n` }
}
