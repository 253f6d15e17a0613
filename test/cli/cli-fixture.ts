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
  readonly variables?: Readonly<Record<string, string>>
  readonly interrupt?: AbortSignal
}

/** Tests have no network unless they bring one. */
const { startEmbedded: _startEmbedded, ...withoutEmbedded } = systemServices

class Memory extends Writable {
  readonly isTTY: boolean
  readonly columns: number
  readonly #chunks: Buffer[] = []

  constructor({ isTTY, columns }: CliOptions) {
    super()
    this.isTTY = isTTY ?? false
    this.columns = columns ?? 200
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
  const stdout = new Memory(options)
  const stderr = new Memory(options)
  const terminal: Terminal = { stdin: () => options.stdin ?? Readable.from([]), stdout, stderr }
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
