/** `slicenet devnet …`: a whole overlay on this machine, in network namespaces. */
import { InvalidArgumentError, type Command } from 'commander'
import type { DevnetHost } from '../daemon/devnet.ts'
import { examples, QUESTION, requireProgram, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { formatTable, shortId } from './table.ts'

const GRACE_MS = 60_000
const HOSTS_MAX = 200

interface NameOption {
  readonly name: string
}

interface UpOptions extends NameOption {
  readonly nodes: number
  readonly agents: number
  readonly brokers: number
  readonly nat: boolean
  readonly administrator: boolean
}

export function addDevnetCommand(root: Command, run: RunCommand): void {
  const devnet = root.command('devnet').description('an overlay on this one machine, for trying and testing')
  const add = (name: string): Command =>
    devnet.command(name).option('--name <name>', 'which devnet, where there are several', parseName, 'devnet')
  add('up')
    .description('make an overlay: each host is a network namespace with a daemon of its own (root)')
    .option('--nodes <count>', 'hosts that are nodes', parseCount(1), 3)
    .option('--agents <count>', 'hosts that are agents', parseCount(1), 2)
    .option('--brokers <count>', 'hosts that broker for others', parseCount(0), 0)
    .option('--administrator', 'a host more, administrator, who may hold administrative slices', false)
    .option('--nat', 'two hosts more, each behind a NAT of its own: nat-node and nat-researcher', false)
    .addHelpText(
      'after',
      examples(
        'slicenet devnet up',
        'slicenet devnet up --nodes 5 --agents 2',
        'slicenet devnet up --nodes 1 --agents 1 --nat'
      )
    )
    .action((options: UpOptions) => run((context) => up(context, options), { graceMs: GRACE_MS }))
  add('down')
    .description('end the overlay and remove everything of it')
    .addHelpText('after', examples('slicenet devnet down'))
    .action((options: NameOption) => run((context) => down(context, options), { graceMs: GRACE_MS }))
  add('status')
    .description('show the hosts of the overlay')
    .addHelpText('after', examples('slicenet devnet status', 'slicenet devnet status --json'))
    .action((options: NameOption) => run((context) => status(context, options), QUESTION))
  add('exec')
    .description('run a program on a host of the overlay, by default that of a researcher')
    .usage('[options] [host] -- <program> [arguments...]')
    .argument('[host]', 'name of the host')
    .addHelpText(
      'after',
      examples('slicenet devnet exec -- slicenet find', 'slicenet devnet exec node1 -- ip address')
    )
    .action((host: string | undefined, options: NameOption) =>
      run((context) => exec(context, host, options), { takesProgram: true })
    )
}

function parseCount(least: number): (text: string) => number {
  return (text) => {
    const count = /^\d{1,4}$/.test(text) ? Number(text) : -1
    if (count >= least && count <= HOSTS_MAX) return count
    throw new InvalidArgumentError(`Expected ${least} to ${HOSTS_MAX}.`)
  }
}

function parseName(text: string): string {
  if (/^[a-z][a-z0-9-]{0,15}$/.test(text)) return text
  throw new InvalidArgumentError('Expected up to 16 of a-z, 0-9 and -, beginning with a letter.')
}

async function up(context: CommandContext, options: UpOptions): Promise<Outcome> {
  const { devnetUp } = await context.services.devnet(context.environment)
  const devnet = await devnetUp({ ...options, signal: context.signal, onProgress: context.progress })
  return { document: { devnet }, text: (style) => hostTable(devnet.hosts, style) }
}

async function down(context: CommandContext, { name }: NameOption): Promise<Outcome> {
  const { devnetDown } = await context.services.devnet(context.environment)
  await devnetDown({ name, onProgress: context.progress })
  return { document: { name }, text: () => `${name} is down\n` }
}

async function status(context: CommandContext, { name }: NameOption): Promise<Outcome> {
  const { devnetStatus } = await context.services.devnet(context.environment)
  const devnet = await devnetStatus(name)
  return { document: { devnet }, text: (style) => hostTable(devnet.hosts, style, devnet.running) }
}

async function exec(
  context: CommandContext,
  host: string | undefined,
  options: NameOption
): Promise<Outcome> {
  const argv = requireProgram(context)
  const { devnetExec } = await context.services.devnet(context.environment)
  const exitCode = await devnetExec({ ...options, argv, ...(host === undefined ? {} : { host }) })
  return { exitCode }
}

/** `running` names the hosts whose daemon answers; absent where all were just seen to. */
function hostTable(hosts: readonly DevnetHost[], style: Style, running?: readonly string[]): string {
  const rows = hosts.map((host) => [
    host.name,
    host.roles.join(',') || '-',
    host.address,
    shortId(host.principal),
    (running ?? [host.name]).includes(host.name) ? 'running' : 'no answer',
    host.state
  ])
  return formatTable(['HOST', 'ROLES', 'ADDRESS', 'PRINCIPAL', 'DAEMON', 'HOME'], rows, style)
}
