/** What every command is given, and the shape it has. */
import type { Readable, Writable } from 'node:stream'
import { SlicenetError } from '../base/errors.ts'
import type { Environment } from '../daemon/environment.ts'
import type { Outcome } from './output.ts'
import type { Services } from './services.ts'

export interface TerminalStream extends Writable {
  readonly isTTY?: boolean
  /** Of a terminal: how many characters a line has. */
  readonly columns?: number
  readonly rows?: number
}

export interface TerminalInput extends Readable {
  readonly isTTY?: boolean
  /** Of a terminal: whether keys come as they are typed, none of them handled or shown. */
  setRawMode?(isRaw: boolean): unknown
}

export interface Terminal {
  /** Opened by the commands that read it alone: an open one keeps the program from ending. */
  readonly stdin: () => TerminalInput
  readonly stdout: TerminalStream
  readonly stderr: TerminalStream
}

export interface CommandContext {
  readonly environment: Environment
  readonly services: Services
  readonly terminal: Terminal
  readonly json: boolean
  /** Aborted by Ctrl-C and by `--timeout`. */
  readonly signal: AbortSignal
  /** The words after `--`; `undefined` without one. */
  readonly program: readonly string[] | undefined
  /** A line for people about what goes on, on stderr. */
  readonly progress: (message: string) => void
}

export interface CommandOptions {
  /** Default for `--timeout`; none when absent. */
  readonly timeoutMs?: number
  /** How long it may take to end in order once aborted. */
  readonly graceMs?: number
  /** Whether it takes words after `--`. */
  readonly takesProgram?: boolean
}

/** Runs a command's work and takes care of its outcome. */
export type RunCommand = (
  work: (context: CommandContext) => Promise<Outcome>,
  options?: CommandOptions
) => Promise<void>

/** Questions are answered soon or not at all. */
export const QUESTION: CommandOptions = { timeoutMs: 60_000 }

/** The program after `--`. Throws `USAGE` without one. */
export function requireProgram(context: CommandContext): readonly string[] {
  if (context.program !== undefined && context.program.length > 0) return context.program
  throw new SlicenetError('USAGE', 'no program was given', {
    hint: 'write it behind two dashes: `-- uname -a`'
  })
}

/** A block of examples for the end of a command's help. */
export function examples(...lines: string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}`
}
