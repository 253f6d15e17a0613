/** `slicenet slice plan FILE`: what a slice would be made of now, without anything being held for it. */
import type { Command } from 'commander'
import { SlicenetError } from '../base/errors.ts'
import type { ControlResult } from '../daemon/control-client.ts'
import type { PlannedMemberView, RejectionView } from '../daemon/control-protocol.ts'
import { requirePrincipal } from '../daemon/prefix.ts'
import { toldNodes } from './clause-view.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { withSession } from './session.ts'
import { formatColumns, shortId, type Column } from './table.ts'

export function addSlicePlanCommand(slice: Command, run: RunCommand): void {
  slice
    .command('plan')
    .description('say what a slice would be made of now, and why not of other nodes; nothing is held')
    .argument('<file>', 'a description in YAML (see docs/cli.md)')
    .option('--broker <principal>', "ask another peer's broker: this one, or `any` that is found")
    .addHelpText(
      'after',
      `${examples(
        'slicenet slice plan mesh.yaml',
        'slicenet slice plan mesh.yaml --json',
        'slicenet slice plan mesh.yaml --broker any'
      )}

It exits with 0 when the slice could be made, with 3 when it could not.`
    )
    .action((file: string, { broker }: { broker?: string }) =>
      run((context) => plan(context, file, broker), QUESTION)
    )
}

interface Planned extends ControlResult<'plan'> {
  readonly members: readonly PlannedMemberView[]
  readonly rejections: readonly RejectionView[]
}

async function plan(context: CommandContext, file: string, broker: string | undefined): Promise<Outcome> {
  const { signal } = context
  if (broker !== undefined && broker !== 'any') requirePrincipal(broker)
  // What reads slice files takes long to load.
  const { loadWant } = await import('../daemon/slice-source.ts')
  const want = await loadWant(file, { signal })
  const members: PlannedMemberView[] = []
  const rejections: RejectionView[] = []
  const result = await withSession(context, (call) =>
    call(
      'plan',
      { want, ...(broker === undefined ? {} : { broker }) },
      {
        signal,
        onItem({ member, rejection }) {
          if (member !== undefined) members.push(member)
          if (rejection !== undefined) rejections.push(rejection)
        }
      }
    )
  )
  const planned = { ...result, members, rejections }
  const outcome = {
    document: { plan: planned },
    text: (style: Style) => planText(planned, want.count, style)
  }
  if (result.satisfiable) return outcome
  const reason = result.reason ?? 'there are fewer members than the slice needs'
  const hint = 'ask for less, or see why the other nodes were passed over'
  return { ...outcome, error: new SlicenetError('NO_MATCH', reason, { hint }) }
}

/** The names of thousands of nodes that would do as well help nobody; `--json` has them. */
const SPARE_SHOWN_MAX = 20

function planText({ members, rejections, satisfiable }: Planned, count: number, style: Style): string {
  const had = `${members.length} of ${count} members could be had`
  const verdict = satisfiable
    ? `The slice could be made: ${had}.\n`
    : `The slice could not be made: ${had}.\n`
  const passedOver = rejections.filter(({ failed }) => failed.length > 0)
  const spare = rejections.filter(({ failed }) => failed.length === 0)
  const told = [
    ...spare.slice(0, SPARE_SHOWN_MAX).map((node) => ({ ...node, remark: 'not needed' })),
    ...passedOver.map((node) => ({ ...node, remark: 'passed over' }))
  ]
  const more =
    spare.length > SPARE_SHOWN_MAX ? `${spare.length - SPARE_SHOWN_MAX} more are not needed.\n` : ''
  const table = members.length === 0 ? '' : `${formatColumns(columnsOf(members), members, style)}\n`
  const others =
    told.length === 0 ? '' : `${style.heading('OTHER NODES')}\n${toldNodes(told, style)}${more}\n`
  return `${table}${others}${verdict}`
}

/** Ranks and round-trip times where there are any. */
function columnsOf(members: readonly PlannedMemberView[]): Column<PlannedMemberView>[] {
  const hasRank = members.some(({ rank }) => rank !== undefined)
  const hasRtt = members.some(({ rttMicros }) => rttMicros !== undefined)
  return [
    { name: 'MEMBER', cell: ({ name }) => name },
    { name: 'NODE', cell: ({ node }) => shortId(node) },
    { name: 'SITE', cell: ({ site }) => site ?? '-' },
    { name: 'AGENT', cell: ({ agent, agentName }) => agentName ?? shortId(agent) },
    ...(hasRank ? [{ name: 'RANK', cell: ({ rank }: PlannedMemberView) => rank ?? '-' }] : []),
    ...(hasRtt ? [{ name: 'RTT', cell: ({ rttMicros }: PlannedMemberView) => millis(rttMicros) }] : [])
  ]
}

function millis(micros: number | undefined): string {
  if (micros === undefined) return '-'
  const ms = micros / 1000
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)}ms`
}
