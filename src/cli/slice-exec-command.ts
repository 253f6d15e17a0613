/** `slicenet slice exec NAME -- CMD…`: runs a program on a member, with this terminal's streams. */
import type { Command } from 'commander'
import type { Readable } from 'node:stream'
import type { SliceExecInput } from '../daemon/control-protocol.ts'
import { LIMITS } from '../base/limits.ts'
import { examples, requireProgram, type CommandContext, type RunCommand } from './command.ts'
import { GatheredOutput, type OutputStream } from './gathered-output.ts'
import { writeAll, type Outcome } from './output.ts'
import { withSession } from './session.ts'
import { findMember, findSlice } from './slice-find.ts'
import { terminalToLend } from './user-terminal.ts'

/** What the control protocol takes in one message. */
const CHUNK_BYTES_MAX = 64 * 1024

export function addSliceExecCommand(slice: Command, run: RunCommand): void {
  slice
    .command('exec')
    .description('run a program on a member of a slice, and end with its exit code')
    .usage('[options] <name> -- <program> [arguments...]')
    .argument('<name>', 'the slice, or how its name begins')
    .option('--member <member>', 'node name, node id, lease or vserver, or how one begins; default the first')
    .option('--tty', 'run it at a terminal; the default where standard input and output are one')
    .option('--no-tty', 'run it with pipes')
    .addHelpText(
      'after',
      examples(
        'slicenet slice exec mesh -- uname -a',
        'slicenet slice exec mesh -- bash',
        'slicenet slice exec mesh --member node2 -- sh -c "ping -c 3 198.18.0.1"',
        'tar c data | slicenet slice exec mesh -- tar x -C /srv'
      )
    )
    .action((name: string, options: ExecOptions) =>
      run((context) => exec(context, name, options), { takesProgram: true })
    )
}

interface ExecOptions {
  readonly member?: string
  readonly tty?: boolean
}

async function exec(context: CommandContext, given: string, options: ExecOptions): Promise<Outcome> {
  const argv = requireProgram(context)
  const { member } = options
  const { json, environment } = context
  const stdin = context.terminal.stdin()
  const window = terminalToLend(context, stdin, options.tty)
  const gathered = new GatheredOutput(LIMITS.gatheredOutputBytesMax)
  // Standard input may stay open when the program has ended.
  const ended = new AbortController()
  const signal = AbortSignal.any([context.signal, ended.signal])
  try {
    const { exitCode } = await withSession(context, async (call) => {
      const slice = await findSlice(call, given, context.signal)
      const params = {
        slice: slice.name,
        ...(member === undefined ? {} : { member: findMember(slice, member) }),
        program: { argv: [...argv], env: window === undefined ? {} : { TERM: environment.terminalName } },
        ...(window === undefined ? {} : { terminal: window.size() })
      }
      const typed = stdinChunks(stdin, signal)
      using _taken = window?.take()
      return await call('sliceExec', params, {
        signal: context.signal,
        input: window?.input(typed) ?? typed,
        onItem: ({ stream, bytes }) => (json ? gathered.add(stream, bytes) : show(context, stream, bytes))
      })
    })
    return { document: { exitCode, ...gathered.document() }, exitCode }
  } finally {
    ended.abort()
  }
}

async function show(context: CommandContext, stream: OutputStream, bytes: Uint8Array): Promise<void> {
  await writeAll(context.terminal[stream], bytes)
}

/** Ends with a message without bytes, which closes the program's standard input. */
async function* stdinChunks(stdin: Readable, signal: AbortSignal): AsyncGenerator<SliceExecInput> {
  const onAbort = (): void => void stdin.destroy()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    for await (const chunk of stdin as AsyncIterable<Buffer | string>) {
      const bytes = Buffer.from(chunk as Buffer)
      for (let at = 0; at < bytes.length; at += CHUNK_BYTES_MAX) {
        yield { bytes: new Uint8Array(bytes.subarray(at, at + CHUNK_BYTES_MAX)) }
      }
    }
  } catch (error) {
    // Destroyed, because the program has ended or the user has had enough.
    if (signal.aborted) return
    throw error
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
  yield {}
}
