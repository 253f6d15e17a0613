/** `slicenet org …`: organisations vouch for principals, and principals keep what vouches for them. */
import type { Command } from 'commander'
import { systemClock } from '../base/clock.ts'
import { silentLogger } from '../base/log.ts'
import { membershipView, type MembershipView } from '../daemon/join-protocol.ts'
import { loadKey } from '../daemon/key-file.ts'
import { Memberships } from '../daemon/memberships.ts'
import { readMembership } from '../daemon/pasted.ts'
import { vouchFor } from '../daemon/vouching.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import { durationOption, organisationName, writeTextFile } from './organisation.ts'
import type { Outcome, Style } from './output.ts'
import { withDaemonIfAny } from './session.ts'
import { formatFields, formatTable, formatTime, shortId } from './table.ts'

interface VouchOptions {
  readonly for?: string
  readonly name?: string
  readonly out?: string
}

const MEMBER_FOR = '30d'

export function addOrgCommand(root: Command, run: RunCommand): void {
  const org = root.command('org').description('vouch for principals, and keep who vouches for this one')
  org
    .command('vouch')
    .description('sign a membership for a principal, with the key of this account as the organisation')
    .argument('<principal>', 'whom to vouch for: what `slicenet keys show` prints there')
    .option('--for <duration>', 'how long it holds', MEMBER_FOR)
    .option(
      '--name <name>',
      'what the organisation calls itself; default `organisation` of the configuration'
    )
    .option('--out <file>', 'write it to a new file as well')
    .addHelpText(
      'after',
      examples(
        'slicenet org vouch 12D3Koo… --name example.org',
        'slicenet org vouch 12D3Koo… --for 7d --out alice.membership'
      )
    )
    .action((principal: string, options: VouchOptions) =>
      run((context) => vouch(context, principal, options))
    )
  org
    .command('join')
    .description('take in a membership of this peer, to be shown from now on')
    .argument('<membership>', 'what `slicenet org vouch` printed, or a file of it')
    .addHelpText(
      'after',
      examples('slicenet org join slicenet-membership-…', 'slicenet org join alice.membership')
    )
    .action((given: string) => run((context) => join(context, given), QUESTION))
  org
    .command('list')
    .description('list the organisations that vouch for this peer')
    .addHelpText('after', examples('slicenet org list', 'slicenet org list --json'))
    .action(() => run(list))
}

async function vouch(context: CommandContext, member: string, options: VouchOptions): Promise<Outcome> {
  const { environment, services } = context
  const key = await loadKey(environment.keyFile)
  const organisation = await organisationName(context, options.name)
  const forMs = durationOption('--for', options.for ?? MEMBER_FOR)
  const { membership, text } = vouchFor({ key, organisation, now: services.now() }, { member, forMs })
  if (options.out !== undefined) await writeTextFile(options.out, `${text}\n`)
  return {
    document: {
      ...membershipView(membership),
      text,
      ...(options.out === undefined ? {} : { file: options.out })
    },
    text: () => `${text}\n`
  }
}

async function join(context: CommandContext, given: string): Promise<Outcome> {
  const { environment, services, signal } = context
  const { principal } = await loadKey(environment.keyFile)
  // Before anybody is asked: what is wrong with it is wrong whether a daemon runs or not.
  const membership = await readMembership(given, { member: principal, now: services.now() })
  const kept =
    (await withDaemonIfAny(context, (call) => call('membershipKeep', { membership }, { signal }))) ??
    membershipView(await (await openMemberships(context, principal)).keep(membership))
  return { document: { ...kept }, text: () => formatFields(membershipFields(kept)) }
}

async function list(context: CommandContext): Promise<Outcome> {
  const { principal } = await loadKey(context.environment.keyFile)
  const memberships = (await openMemberships(context, principal)).list().map(membershipView)
  return { document: { memberships }, text: (style) => membershipTable(memberships, style) }
}

async function openMemberships(
  { environment, services }: CommandContext,
  member: string
): Promise<Memberships> {
  const { stateDirectory } = environment
  const clock = { ...systemClock, now: services.now }
  const memberships = new Memberships({ clock, logger: silentLogger }, { stateDirectory, member })
  await memberships.load()
  return memberships
}

function membershipFields({ issuer, organisation, member, notAfter }: MembershipView): [string, string][] {
  return [
    ['organisation', `${organisation} (${issuer})`],
    ['vouches for', member],
    ['until', formatTime(notAfter)]
  ]
}

function membershipTable(memberships: readonly MembershipView[], style: Style): string {
  if (memberships.length === 0) return 'Nobody vouches for this peer.\n'
  const rows = memberships.map(({ organisation, issuer, notBefore, notAfter, membership }) => [
    organisation,
    issuer,
    formatTime(notBefore),
    formatTime(notAfter),
    shortId(membership)
  ])
  return formatTable(['NAME', 'ORGANISATION', 'FROM', 'UNTIL', 'ID'], rows, style)
}
