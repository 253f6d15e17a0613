/** The command line: its grammar, how a command is run, and how it ends (documented in `docs/cli.md`). */
import { Command, CommanderError } from 'commander'
import { asSlicenetError, ERROR_CODES, SlicenetError } from '../base/errors.ts'
import { durationUnit } from '../base/units.ts'
import { readEnvironment, type Environment } from '../daemon/environment.ts'
import { VERSION } from '../daemon/version.ts'
import type { CommandContext, CommandOptions, RunCommand, Terminal, TerminalStream } from './command.ts'
import { examples } from './command.ts'
import { addDaemonCommand } from './daemon-command.ts'
import { addDevnetCommand } from './devnet-command.ts'
import { addDoctorCommand } from './doctor-command.ts'
import { addExplainCommand } from './explain-command.ts'
import { addFindCommand } from './find-command.ts'
import { addImageCommand } from './image-command.ts'
import { addInviteCommand } from './invite-command.ts'
import { addKeysCommand } from './keys-command.ts'
import { addLeaseCommand } from './lease-command.ts'
import { addNodeCommand } from './node-command.ts'
import {
  colorStyle,
  formatDocument,
  formatError,
  plainStyle,
  writeAll,
  type Outcome,
  type Style
} from './output.ts'
import type { Services } from './services.ts'
import { addOrgCommand } from './org-command.ts'
import { addPeersCommand } from './peers-command.ts'
import { addPingCommand } from './ping-command.ts'
import { addProofCommand } from './proof-command.ts'
import { addSliceCommand } from './slice-command.ts'
import { tame } from './table.ts'
import { addRawCommand } from './raw-command.ts'
import { addStatusCommand } from './status-command.ts'
import { addStoreCommand } from './store-command.ts'
import { addTicketCommand } from './ticket-command.ts'

export interface CliInit {
  /** What follows the program's name. */
  readonly argv: readonly string[]
  readonly terminal: Terminal
  readonly services: Services
  /** Environment variables; default the process's. */
  readonly variables?: Readonly<Record<string, string | undefined>>
  /** Aborted with an `INTERRUPTED` error when the user has had enough. */
  readonly interrupt: AbortSignal
}

const GRACE_MS = 5000
/** As a program that the kernel ends for writing to a closed pipe. */
const EXIT_PIPE = 141

/** Runs one command line and gives the exit code. Never throws. */
export async function runCli(init: CliInit): Promise<number> {
  const { words, program } = splitProgram(init.argv)
  const json = words.includes('--json')
  let debug = false
  let style = plainStyle
  try {
    const environment = readEnvironment(init.variables === undefined ? {} : { variables: init.variables })
    debug = environment.debug
    style = styleOf(init.terminal.stderr, environment)
    return await new CommandLine(init, environment, program).run(words)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') return EXIT_PIPE
    return reportFailure(init.terminal, asSlicenetError(error), { json, debug, style })
  }
}

/** Words after `--` are another program's: they are taken off before the grammar sees them. */
function splitProgram(argv: readonly string[]): {
  words: readonly string[]
  program: readonly string[] | undefined
} {
  const at = argv.indexOf('--')
  return at === -1
    ? { words: argv, program: undefined }
    : { words: argv.slice(0, at), program: argv.slice(at + 1) }
}

async function reportFailure(
  terminal: Terminal,
  error: SlicenetError,
  how: { readonly json: boolean; readonly debug: boolean; readonly style: Style }
): Promise<number> {
  try {
    if (how.json) await writeAll(terminal.stdout, formatDocument({ error: error.toJSON() }))
    if (!how.json || how.debug) await writeAll(terminal.stderr, formatError(error, how.style, how.debug))
  } catch {
    // Nobody reads any more; the exit code still says it.
  }
  return ERROR_CODES[error.code].exit
}

function styleOf(stream: TerminalStream, environment: Environment): Style {
  if (stream.isTTY !== true) return plainStyle
  const style = environment.color ? colorStyle : plainStyle
  return stream.columns === undefined ? style : { ...style, width: stream.columns }
}

class CommandLine {
  readonly #init: CliInit
  readonly #environment: Environment
  readonly #program: readonly string[] | undefined
  readonly #root: Command
  /** What commander would print: a help that was asked for, and one that shows what is missing. */
  #help = ''
  #usage = ''
  #exitCode = 0
  #isBusy = false

  constructor(init: CliInit, environment: Environment, program: readonly string[] | undefined) {
    this.#init = init
    this.#environment = environment
    this.#program = program
    this.#root = this.#grammar()
  }

  async run(words: readonly string[]): Promise<number> {
    try {
      await this.#root.parseAsync([...words], { from: 'user' })
    } catch (error) {
      if (!(error instanceof CommanderError) || this.#isBusy) throw error
      if (error.exitCode !== 0) {
        if (!words.includes('--json')) await writeAll(this.#init.terminal.stderr, this.#usage)
        throw usageError(error)
      }
      await writeAll(this.#init.terminal.stdout, this.#help)
    }
    return this.#exitCode
  }

  #grammar(): Command {
    const root = new Command('slicenet')
      .description(
        'PlanetLab as a peer-to-peer broker network: find nodes, make slices of them, run one yourself'
      )
      .version(VERSION, '-V, --version')
      .option('--json', 'print one JSON document instead of text')
      .option('--timeout <duration>', 'give up after this long, such as 30s (exit code 7)')
      .exitOverride()
      .configureOutput({
        outputError: () => {},
        writeOut: (text) => (this.#help += text),
        writeErr: (text) => (this.#usage += text)
      })
      .showSuggestionAfterError()
      .configureHelp({ showGlobalOptions: true })
      .addHelpText(
        'after',
        examples(
          'slicenet find \'node.region == "eu" && node.cpu.free >= 200\'',
          'slicenet slice create mesh.yaml',
          'slicenet slice exec mesh -- uname -a',
          'slicenet devnet up'
        )
      )
    const run: RunCommand = (work, options) => this.#runCommand(work, options)
    addFindCommand(root, run)
    addExplainCommand(root, run)
    addSliceCommand(root, run)
    addLeaseCommand(root, run)
    addNodeCommand(root, run)
    addTicketCommand(root, run)
    addProofCommand(root, run)
    addOrgCommand(root, run)
    addInviteCommand(root, run)
    addRawCommand(root, run)
    addStatusCommand(root, run)
    addPeersCommand(root, run)
    addPingCommand(root, run)
    addDaemonCommand(root, run)
    addStoreCommand(root, run)
    addDevnetCommand(root, run)
    addImageCommand(root, run)
    addKeysCommand(root, run)
    addDoctorCommand(root, run)
    return root
  }

  async #runCommand(
    work: (context: CommandContext) => Promise<Outcome>,
    options: CommandOptions = {}
  ): Promise<void> {
    this.#isBusy = true
    const { json = false, timeout } = this.#root.opts<{ json?: boolean; timeout?: string }>()
    if (this.#program !== undefined && options.takesProgram !== true) {
      throw new SlicenetError('USAGE', 'this command takes nothing behind two dashes')
    }
    const timeoutMs = timeout === undefined ? options.timeoutMs : parseTimeout(timeout)
    using limit = limitOf(this.#init.interrupt, timeoutMs)
    const outcome = await withinGrace(work(this.#context(json, limit.signal)), limit.signal, options.graceMs)
    await this.#finish(outcome, json)
  }

  #context(json: boolean, signal: AbortSignal): CommandContext {
    const { terminal, services } = this.#init
    return {
      environment: this.#environment,
      services,
      terminal,
      json,
      signal,
      program: this.#program,
      progress: (message) => void terminal.stderr.write(`${tame(message)}\n`)
    }
  }

  async #finish(outcome: Outcome, json: boolean): Promise<void> {
    const { stdout, stderr } = this.#init.terminal
    const { document, text, error } = outcome
    if (json && document !== undefined) {
      const failure = error === undefined ? {} : { error: error.toJSON() }
      await writeAll(stdout, formatDocument({ ...document, ...failure }))
    } else if (!json) {
      await writeAll(stdout, text?.(styleOf(stdout, this.#environment)) ?? '')
      if (error !== undefined) {
        const style = styleOf(stderr, this.#environment)
        await writeAll(stderr, formatError(error, style, this.#environment.debug))
      }
    }
    this.#exitCode = error === undefined ? (outcome.exitCode ?? 0) : ERROR_CODES[error.code].exit
  }
}

function usageError(error: CommanderError): SlicenetError {
  const hint = 'see `slicenet --help` and `slicenet COMMAND --help`'
  // Of a command that lacks its subcommand commander says nothing but the help.
  if (error.code === 'commander.help') return new SlicenetError('USAGE', 'a subcommand is missing', { hint })
  return new SlicenetError('USAGE', error.message.replace(/^error: /, '').replaceAll('\n', ' '), { hint })
}

function parseTimeout(text: string): number {
  const timeoutMs = durationUnit.parse(text)
  if (timeoutMs !== undefined && timeoutMs >= 1 && timeoutMs < 2 ** 31) return timeoutMs
  throw new SlicenetError('USAGE', `--timeout: expected ${durationUnit.expected}, up to 24d; got ${text}`)
}

function limitOf(
  interrupt: AbortSignal,
  timeoutMs: number | undefined
): { readonly signal: AbortSignal } & Disposable {
  if (timeoutMs === undefined) return { signal: interrupt, [Symbol.dispose]: () => {} }
  const controller = new AbortController()
  const error = new SlicenetError('TIMEOUT', `not done within ${durationUnit.format(timeoutMs)}`, {
    hint: 'give it longer with --timeout'
  })
  const timer = setTimeout(() => controller.abort(error), timeoutMs)
  return {
    signal: AbortSignal.any([interrupt, controller.signal]),
    [Symbol.dispose]: () => clearTimeout(timer)
  }
}

/** Once aborted, work may end in order, but not take for ever over it. */
async function withinGrace<T>(work: Promise<T>, signal: AbortSignal, graceMs = GRACE_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const onAbort = (): void => {
    timer = setTimeout(giveUp, graceMs)
  }
  let giveUp = (): void => {}
  const overdue = new Promise<never>((_, reject) => {
    giveUp = () => reject(signal.reason as Error)
  })
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([work, overdue])
  } finally {
    signal.removeEventListener('abort', onAbort)
    clearTimeout(timer)
  }
}
