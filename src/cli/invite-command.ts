/** `slicenet invite create` and `slicenet join`: asking others into the overlay, and coming. */
import type { Command } from 'commander'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { JoinView } from '../daemon/join-protocol.ts'
import { loadKey } from '../daemon/key-file.ts'
import { readInvite } from '../daemon/pasted.ts'
import { invite } from '../daemon/vouching.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import { durationOption, organisationName, writeTextFile } from './organisation.ts'
import type { Outcome } from './output.ts'
import { withDaemonIfAny, withSession } from './session.ts'
import { formatFields, formatTime } from './table.ts'

interface CreateOptions {
  readonly for?: string
  readonly expires?: string
  readonly memberFor?: string
  readonly name?: string
  readonly bootstrap?: readonly string[]
  readonly out?: string
}

const EXPIRES = '7d'
const MEMBER_FOR = '30d'

export function addInviteCommand(root: Command, run: RunCommand): void {
  root
    .command('invite')
    .description('ask others into the overlay')
    .command('create')
    .description('print an invite, signed with the key of this account, for `slicenet join`')
    .option('--for <principal>', 'put a membership of the organisation in, for this principal')
    .option('--expires <duration>', 'how long it can be used', EXPIRES)
    .option('--member-for <duration>', 'how long the membership holds', MEMBER_FOR)
    .option(
      '--name <name>',
      'what the organisation calls itself; default `organisation` of the configuration'
    )
    .option(
      '--bootstrap <multiaddr>',
      "a peer to join by, once for each; default the addresses of this account's daemon",
      (address: string, before: readonly string[] | undefined): readonly string[] => [
        ...(before ?? []),
        address
      ]
    )
    .option('--out <file>', 'write it to a new file as well')
    .addHelpText(
      'after',
      examples(
        'slicenet invite create --name example.org',
        'slicenet invite create --for 12D3Koo… --expires 1d',
        'slicenet invite create --bootstrap /dns4/boot.example.org/tcp/4001/p2p/12D3Koo…'
      )
    )
    .action((options: CreateOptions) => run((context) => create(context, options), QUESTION))
  root
    .command('join')
    .description('join the overlay by an invite; a peer that it names must answer before anything is kept')
    .argument('<invite>', 'what `slicenet invite create` printed, or a file of it')
    .addHelpText('after', examples('slicenet join slicenet-invite-…', 'slicenet join invite.txt --json'))
    .action((given: string) => run((context) => join(context, given), QUESTION))
}

async function create(context: CommandContext, options: CreateOptions): Promise<Outcome> {
  const { environment, services } = context
  const key = await loadKey(environment.keyFile)
  const organisation = await organisationName(context, options.name)
  const { invite: made, text } = invite(
    { key, organisation, now: services.now() },
    {
      ...(options.for === undefined ? {} : { member: options.for }),
      forMs: durationOption('--expires', options.expires ?? EXPIRES),
      memberForMs: durationOption('--member-for', options.memberFor ?? MEMBER_FOR),
      bootstrap: options.bootstrap ?? (await ownAddresses(context))
    }
  )
  if (options.out !== undefined) await writeTextFile(options.out, `${text}\n`)
  const { issuer, bootstrap, notBefore, notAfter } = made.body
  return {
    document: {
      invite: made.id,
      issuer,
      organisation,
      bootstrap,
      notBefore,
      notAfter,
      ...(options.for === undefined ? {} : { member: options.for }),
      text,
      ...(options.out === undefined ? {} : { file: options.out })
    },
    text: () => `${text}\n`
  }
}

/** Where the daemon of this account can be joined by: not by addresses of this machine alone if it has others. */
async function ownAddresses(context: CommandContext): Promise<string[]> {
  const status = await withDaemonIfAny(context, (call) => call('status', {}, { signal: context.signal }))
  const hint = 'say where there is a peer to join by: `--bootstrap /ip4/…/tcp/4001/p2p/12D3Koo…`'
  if (status === undefined) throw new SlicenetError('DAEMON_UNREACHABLE', 'no daemon runs here', { hint })
  const distant = status.multiaddrs.filter((address) => !/^\/ip4\/127\.|^\/ip6\/::1\//.test(address))
  const addresses = distant.length > 0 ? distant : status.multiaddrs
  if (addresses.length > 0) return addresses.slice(0, LIMITS.invitedAddressesMax)
  throw new SlicenetError('USAGE', 'the daemon here has no address', { hint })
}

async function join(context: CommandContext, given: string): Promise<Outcome> {
  const { environment, services, signal } = context
  // Before a peer is started, and with it a key made: what is wrong with the invite is wrong anyway.
  const { bytes, body } = await readInvite(given, {
    invited: async () => (await loadKey(environment.keyFile)).principal,
    now: services.now()
  })
  const { issuer, organisation } = body
  context.progress(`${organisation} (${issuer}) invites you`)
  const joined = await withSession(context, (call) => call('join', { invite: bytes }, { signal }))
  return { document: { ...joined }, text: () => formatFields(joinFields(joined)) }
}

function joinFields({ issuer, organisation, reached, membership, already }: JoinView): [string, string][] {
  return [
    ['invited by', `${organisation} (${issuer})`],
    ['reached', reached.join(', ')],
    ...(membership === undefined
      ? []
      : [['member until', formatTime(membership.notAfter)] satisfies [string, string]]),
    ['joined', already ? 'before; nothing new was in the invite' : 'yes']
  ]
}
