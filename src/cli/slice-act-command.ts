/** `slicenet slice stop|signal|freeze|thaw NAME`: what is done to programs that run, in all members of a slice or one. */
import type { Command } from 'commander'
import { SlicenetError } from '../base/errors.ts'
import { PROGRAM_SIGNALS, type ProgramSignal } from '../base/program-signal.ts'
import { MEMBER_ACTS, type MemberAct } from '../daemon/control-protocol.ts'
import { examples, QUESTION, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome } from './output.ts'
import { withSession } from './session.ts'
import { findMembers } from './slice-find.ts'
import { memberError } from './slice-view.ts'

interface ActOptions {
  readonly member?: string
}

const ABOUT: Readonly<
  Record<(typeof MEMBER_ACTS)[number], { readonly does: string; readonly done: string }>
> = {
  stop: {
    does: 'end the launched program (SIGTERM, then SIGKILL); the virtual machine runs on',
    done: 'stopped'
  },
  freeze: { does: 'keep all that runs from the processor; memory and files stay', done: 'frozen' },
  thaw: { does: 'let what is frozen go on', done: 'thawed' }
}

export function addSliceActCommands(slice: Command, run: RunCommand): void {
  for (const act of MEMBER_ACTS) {
    slice
      .command(act)
      .description(ABOUT[act].does)
      .argument('<name>', 'the slice, or how its name begins')
      .option('--member <member>', 'node name, node id, lease or vserver, or how one begins; default all')
      .addHelpText(
        'after',
        examples(`slicenet slice ${act} mesh`, `slicenet slice ${act} mesh --member node2`)
      )
      .action((name: string, options: ActOptions) =>
        run((context) => perform(context, name, options, act, ABOUT[act].done), QUESTION)
      )
  }
  slice
    .command('signal')
    .description('send the launched program a signal')
    .argument('<name>', 'the slice, or how its name begins')
    .argument('<signal>', `one of ${PROGRAM_SIGNALS.join(', ')}; SIG may be left out`)
    .option('--member <member>', 'node name, node id, lease or vserver, or how one begins; default all')
    .addHelpText(
      'after',
      examples('slicenet slice signal mesh HUP', 'slicenet slice signal mesh USR1 --member node2')
    )
    .action((name: string, signal: string, options: ActOptions) =>
      run(async (context) => perform(context, name, options, parseSignal(signal), 'signalled'), QUESTION)
    )
}

/** Throws `USAGE`. */
function parseSignal(text: string): ProgramSignal {
  const wanted = text.toUpperCase()
  const found = PROGRAM_SIGNALS.find((name) => name === wanted || name === `SIG${wanted}`)
  if (found !== undefined) return found
  throw new SlicenetError('USAGE', `expected one of ${PROGRAM_SIGNALS.join(', ')}; got ${text}`)
}

async function perform(
  context: CommandContext,
  given: string,
  options: ActOptions,
  act: MemberAct,
  done: string
): Promise<Outcome> {
  const { signal } = context
  const { name, members } = await withSession(context, async (call) => {
    const of = await findMembers(call, given, options.member, signal)
    return { name: of.slice, ...(await call('sliceAct', { ...of, act }, { signal })) }
  })
  const failed = members.filter(({ reason }) => reason !== undefined)
  const count = members.length - failed.length
  const outcome = {
    document: { slice: name, act, members },
    text: () => `${name}: ${count} ${count === 1 ? 'member' : 'members'} ${done}\n`
  }
  const reason = failed[0]?.reason
  if (reason === undefined) return outcome
  const nodes = failed.map(({ nodeName }) => nodeName).join(', ')
  return { ...outcome, error: memberError(reason, `not on ${nodes}`) }
}
