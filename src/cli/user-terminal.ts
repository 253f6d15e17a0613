/** The user's own terminal, lent to a program on another machine: its size, its keys as they are typed. */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import type { SliceExecInput } from '../daemon/control-protocol.ts'
import type { CommandContext, TerminalInput, TerminalStream } from './command.ts'

type TerminalSize = NonNullable<SliceExecInput['terminal']>

/** What programs assume of a terminal that says nothing. */
const USUAL_SIZE: TerminalSize = { columns: 80, rows: 24 }

/**
 * The terminal for a program, if it is to have one: by default where input and output are a terminal and no document is
 * asked for. Throws `USAGE`.
 */
export function terminalToLend(
  { json, terminal: { stdout } }: CommandContext,
  stdin: TerminalInput,
  isWanted: boolean | undefined
): UserTerminal | undefined {
  if (isWanted === true && json) throw new SlicenetError('USAGE', '--tty and --json do not go together')
  const isThere = stdin.isTTY === true && stdout.isTTY === true && !json
  return (isWanted ?? isThere) ? new UserTerminal(stdin, stdout) : undefined
}

export class UserTerminal {
  readonly #stdin: TerminalInput
  readonly #stdout: TerminalStream

  constructor(stdin: TerminalInput, stdout: TerminalStream) {
    this.#stdin = stdin
    this.#stdout = stdout
  }

  size(): TerminalSize {
    const within = (given: number | undefined, usual: number): number =>
      Math.min(Math.max(1, given ?? usual), LIMITS.terminalCharsMax)
    return {
      columns: within(this.#stdout.columns, USUAL_SIZE.columns),
      rows: within(this.#stdout.rows, USUAL_SIZE.rows)
    }
  }

  /** Until it is given back, keys are not shown or handled here: Ctrl-C too is for the program. */
  take(): Disposable {
    const set = (isRaw: boolean): void => void this.#stdin.setRawMode?.(isRaw)
    set(true)
    return { [Symbol.dispose]: () => set(false) }
  }

  /** What is typed, and the size whenever it changes. */
  async *input(typed: AsyncIterable<SliceExecInput>): AsyncGenerator<SliceExecInput> {
    const source = typed[Symbol.asyncIterator]()
    let changed = Promise.withResolvers<'changed'>()
    const onResize = (): void => changed.resolve('changed')
    this.#stdout.on('resize', onResize)
    try {
      for (let next = source.next(); ;) {
        const first = await Promise.race([next, changed.promise])
        if (first === 'changed') {
          changed = Promise.withResolvers()
          yield { terminal: this.size() }
          continue
        }
        if (first.done === true) return
        yield first.value
        next = source.next()
      }
    } finally {
      this.#stdout.off('resize', onResize)
      void source.return?.(undefined)?.catch(() => {})
    }
  }
}
