/** `slicenet slice …`: makes slices, shows them, and ends them. */
import type { Command } from 'commander'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { durationUnit } from '../base/units.ts'
import { makeSlice } from '../sdk/creation.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { addSliceActCommands } from './slice-act-command.ts'
import { addSliceCountersCommand } from './slice-counters-command.ts'
import { addSliceExecCommand } from './slice-exec-command.ts'
import { addSlicePlanCommand } from './slice-plan-command.ts'
import { addSliceLogsCommand } from './slice-logs-command.ts'
import { findSlice } from './slice-find.ts'
import { memberError, progressLine, renewalText, sliceTable, sliceText } from './slice-view.ts'
import { shortId } from './table.ts'

/** Leases that are being made or ended are seen through. */
const GRACE_MS = 30_000

export function addSliceCommand(root: Command, run: RunCommand): void {
  const slice = root.command('slice').description('make slices, run programs on them, end them')
  slice
    .command('create')
    .description('make the slice that a file describes')
    .argument('<file>', 'a description in YAML (see docs/cli.md)')
    .addHelpText(
      'after',
      examples('slicenet slice create mesh.yaml', 'slicenet slice create mesh.yaml --timeout 2m')
    )
    .action((file: string) => run((context) => create(context, file), { graceMs: GRACE_MS }))
  slice
    .command('list')
    .description('list your slices')
    .addHelpText('after', examples('slicenet slice list', 'slicenet slice list --json'))
    .action(() => run(list, QUESTION))
  slice
    .command('show')
    .description('show a slice and its members')
    .argument('<name>', 'the slice, or how its name begins')
    .addHelpText('after', examples('slicenet slice show mesh'))
    .action((name: string) => run((context) => show(context, name), QUESTION))
  addSlicePlanCommand(slice, run)
  addSliceExecCommand(slice, run)
  addSliceLogsCommand(slice, run)
  addSliceActCommands(slice, run)
  addSliceCountersCommand(slice, run)
  slice
    .command('renew')
    .description('give the leases of a slice another term, from now')
    .argument('<name>', 'the slice, or how its name begins')
    .option('--for <duration>', 'how long, such as 2h; default as in its description')
    .addHelpText('after', examples('slicenet slice renew mesh', 'slicenet slice renew mesh --for 2h'))
    .action((name: string, options: { for?: string }) =>
      run((context) => renew(context, name, options.for), { graceMs: GRACE_MS })
    )
  slice
    .command('delete')
    .description('end every lease of a slice')
    .argument('<name>', 'the slice, or how its name begins')
    .addHelpText('after', examples('slicenet slice delete mesh'))
    .action((name: string) => run((context) => remove(context, name), { graceMs: GRACE_MS }))
}

async function create(context: CommandContext, file: string): Promise<Outcome> {
  const { signal } = context
  // What reads slice files takes long to load, and most commands do without.
  const { loadSliceDescription } = await import('../daemon/slice-source.ts')
  const description = await loadSliceDescription(file, { signal })
  const slice = await withSession(context, (call) =>
    makeSlice({ call }, description, { signal, onProgress: (step) => context.progress(progressLine(step)) })
  )
  const outcome = { document: { slice }, text: (style: Style) => sliceText(slice, style) }
  if (slice.state !== 'partial') return outcome
  const message = `${slice.name} has ${slice.members.length} of the ${slice.count} members asked for`
  return { ...outcome, error: new SlicenetError('PARTIAL_SLICE', message) }
}

async function list(context: CommandContext): Promise<Outcome> {
  const { slices } = await withSession(context, (call) => call('sliceList', {}, { signal: context.signal }))
  return { document: { slices }, text: (style) => sliceTable(slices, style) }
}

async function show(context: CommandContext, given: string): Promise<Outcome> {
  const { signal } = context
  const slice = await withSession(context, async (call) => {
    const { name } = await findSlice(call, given, signal)
    return call('sliceShow', { slice: name }, { signal })
  })
  return { document: { slice }, text: (style) => sliceText(slice, style) }
}

async function renew(context: CommandContext, given: string, term: string | undefined): Promise<Outcome> {
  const { signal } = context
  const wanted = term === undefined ? {} : { durationMs: parseTerm(term) }
  const { slice, notAfter, members } = await withSession(context, async (call) => {
    const { name } = await findSlice(call, given, signal)
    const onItem = (step: Parameters<typeof progressLine>[0]): void => context.progress(progressLine(step))
    return call('sliceRenew', { slice: name, ...wanted }, { signal, onItem })
  })
  const outcome = {
    document: { slice, notAfter, members },
    text: (style: Style) => renewalText({ slice, notAfter, members }, style)
  }
  const failed = members.filter(({ renewed }) => !renewed)
  const reason = failed[0]?.reason
  if (reason === undefined) return outcome
  const what = `${failed.length} of ${members.length} leases of ${slice} were not renewed`
  return { ...outcome, error: memberError(reason, what) }
}

function parseTerm(text: string): number {
  const durationMs = durationUnit.parse(text)
  if (durationMs !== undefined && durationMs >= 1000 && durationMs <= LIMITS.leaseMsMax) return durationMs
  const range = `1s to ${durationUnit.format(LIMITS.leaseMsMax)}`
  throw new SlicenetError('USAGE', `--for: expected ${durationUnit.expected}, ${range}; got ${text}`)
}

async function remove(context: CommandContext, given: string): Promise<Outcome> {
  const { signal } = context
  const { name, deleted, unreachable } = await withSession(context, async (call) => {
    const { name } = await findSlice(call, given, signal)
    const onItem = (step: Parameters<typeof progressLine>[0]): void => context.progress(progressLine(step))
    return { name, ...(await call('sliceDelete', { slice: name }, { signal, onItem })) }
  })
  const outcome = {
    document: { slice: name, deleted, unreachable },
    text: () => `${name}: ${deleted} ${deleted === 1 ? 'member' : 'members'} ended\n`
  }
  if (unreachable.length === 0) return outcome
  const nodes = unreachable.map(shortId).join(', ')
  const error = new SlicenetError('PEER_UNREACHABLE', `members of ${name} remain on ${nodes}`, {
    hint: 'delete it again when these can be reached; their leases end by themselves at their time',
    details: { unreachable }
  })
  return { ...outcome, error }
}
