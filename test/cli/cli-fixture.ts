/** Runs command lines in this process: a terminal that remembers, fake services, an environment of the test's own. */
import { PassThrough, Readable, Writable } from 'node:stream'
import type { Terminal } from '../../src/cli/command.ts'
import { runCli } from '../../src/cli/run.ts'
import { systemServices, type Services } from '../../src/cli/services.ts'

export interface Finished {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
  /** The one document on stdout. */
  readonly json: () => Record<string, unknown>
}

export interface CliOptions {
  readonly home?: string
  readonly services?: Partial<Services>
  readonly stdin?: Readable
  readonly isTTY?: boolean
  readonly columns?: number
  /** Default one of its own. */
  readonly stdout?: Memory
  readonly variables?: Readonly<Record<string, string>>
  readonly interrupt?: AbortSignal
}

/** Tests have no network unless they bring one. */
const { startEmbedded: _startEmbedded, ...withoutEmbedded } = systemServices

/** A terminal, or none, that remembers what was written. */
export class Memory extends Writable {
  readonly isTTY: boolean
  columns: number
  rows: number | undefined
  readonly #chunks: Buffer[] = []

  constructor({ isTTY, columns, rows }: Pick<CliOptions, 'isTTY' | 'columns'> & { readonly rows?: number }) {
    super()
    this.isTTY = isTTY ?? false
    this.columns = columns ?? 200
    this.rows = rows
  }

  resizeTo(columns: number, rows: number): void {
    this.columns = columns
    this.rows = rows
    this.emit('resize')
  }

  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.#chunks.push(chunk)
    done()
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString()
  }
}

export async function cli(argv: readonly string[], options: CliOptions = {}): Promise<Finished> {
  const stdout = options.stdout ?? new Memory(options)
  const stderr = new Memory(options)
  const terminal = { stdin: () => options.stdin ?? Readable.from([]), stdout, stderr } as Terminal
  const exitCode = await runCli({
    argv,
    terminal,
    services: { ...withoutEmbedded, ...options.services },
    variables: { SLICENET_HOME: options.home ?? '/nowhere/slicenet', ...options.variables },
    interrupt: options.interrupt ?? new AbortController().signal
  })
  return {
    exitCode,
    stdout: stdout.text,
    stderr: stderr.text,
    json: () => JSON.parse(stdout.text) as Record<string, unknown>
  }
}

/** A standard input that nobody ever closes. */
export function openStdin(): PassThrough {
  return new PassThrough()
}
