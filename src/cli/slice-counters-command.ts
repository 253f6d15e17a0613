/** `slicenet slice counters NAME`: what the nodes dropped of what a slice's members sent, and why. */
import type { Command } from 'commander'
import type { ControlResult } from '../daemon/control-client.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { findMembers } from './slice-find.ts'
import { memberError } from './slice-view.ts'
import { formatTable } from './table.ts'

type CountedMember = ControlResult<'sliceCounters'>['members'][number]

interface CountersOptions {
  readonly member?: string
}

export function addSliceCountersCommand(slice: Command, run: RunCommand): void {
  slice
    .command('counters')
    .description('show what the nodes dropped of what a slice sent, and why')
    .argument('<name>', 'the slice, or how its name begins')
    .option('--member <member>', 'node name, node id, lease or vserver, or how one begins; default all')
    .addHelpText(
      'after',
      examples('slicenet slice counters mesh', 'slicenet slice counters mesh --member node2 --json')
    )
    .action((name: string, options: CountersOptions) =>
      run((context) => counters(context, name, options), QUESTION)
    )
}

async function counters(context: CommandContext, given: string, options: CountersOptions): Promise<Outcome> {
  const { signal } = context
  const { name, members } = await withSession(context, async (call) => {
    const of = await findMembers(call, given, options.member, signal)
    return { name: of.slice, ...(await call('sliceCounters', of, { signal })) }
  })
  const outcome = {
    document: { slice: name, members },
    text: (style: Style) => countersText(name, members, style)
  }
  const failed = members.filter(({ reason }) => reason !== undefined)
  const reason = failed[0]?.reason
  if (reason === undefined) return outcome
  const nodes = failed.map(({ nodeName }) => nodeName).join(', ')
  return { ...outcome, error: memberError(reason, `not known of ${nodes}`) }
}

function countersText(name: string, members: readonly CountedMember[], style: Style): string {
  const rows = members.flatMap(({ nodeName, dropped }) =>
    Object.entries(dropped)
      .sort(([, a], [, b]) => b - a)
      .map(([reason, packets]) => [nodeName, reason, `${packets}`])
  )
  const known = members.filter(({ reason }) => reason === undefined)
  if (rows.length === 0) return known.length === 0 ? '' : `${name}: nothing was dropped\n`
  return formatTable(['MEMBER', 'REASON', 'PACKETS'], rows, style)
}
