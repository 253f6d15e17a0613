/** A program that runs on a member of a slice, with its streams. */
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { CHUNK_BYTES_MAX } from '../protocol/node-protocol.ts'
import { CallStream, QueueBuffer } from './call-stream.ts'
import type { CallSettings } from './client.ts'
import type { Session } from './session.ts'

export interface ExecSettings extends CallSettings {
  /** What the program reads; by default nothing. Failing, it ends the program and the call with its error. */
  readonly stdin?: string | Uint8Array | AsyncIterable<string | Uint8Array>
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** An account in the virtual machine; default its root. */
  readonly user?: string
}

export interface OutputChunk {
  readonly stream: 'stdout' | 'stderr'
  readonly bytes: Uint8Array
}

/**
 * Its output can be read once, as it comes; a reader that is behind holds the program up, and one that leaves ends it.
 * Throws `NOT_FOUND`, `AMBIGUOUS_ID`, `PROGRAM_NOT_FOUND`, `LEASE_EXPIRED` and what the network has.
 */
export interface Execution extends AsyncIterable<OutputChunk>, AsyncDisposable {
  /** Resolves when the program has ended. Output that nobody has begun to read is thrown away. */
  exitCode(): Promise<number>
  /** All of its output as text. Throws `TOO_LARGE` beyond 4 MiB. */
  text(): Promise<{ readonly exitCode: number; readonly stdout: string; readonly stderr: string }>
}

export interface ExecTarget {
  readonly slice: string
  readonly member?: string
}

/** Chunks of 64 KiB at most that wait for the reader. */
const CHUNKS_MAX = 16

/** Begins at once. */
export function execute(
  session: Session,
  target: ExecTarget,
  argv: readonly string[],
  settings: ExecSettings
): Execution {
  const { stdin, env = {}, cwd, user, signal } = settings
  const program = {
    argv: [...argv],
    env: { ...env },
    ...(cwd === undefined ? {} : { cwd }),
    ...(user === undefined ? {} : { user })
  }
  return new RunningProgram(
    new CallStream({
      start: async ({ onItem, signal }) => {
        const ended = new AbortController()
        const failed = new AbortController()
        const either = AbortSignal.any([signal, failed.signal])
        const input = stdinMessages(stdin, ended.signal, (error) => failed.abort(error))
        try {
          const { exitCode } = await session.call(
            'sliceExec',
            { ...target, program },
            { input, onItem, signal: either }
          )
          return exitCode
        } finally {
          // Whatever the program would have read may never come.
          ended.abort(new Error('the program has ended'))
        }
      },
      buffer: () => new QueueBuffer<OutputChunk>(CHUNKS_MAX),
      signal
    })
  )
}

class RunningProgram implements Execution {
  readonly #stream: CallStream<OutputChunk, number>
  #isRead = false

  constructor(stream: CallStream<OutputChunk, number>) {
    this.#stream = stream
    // It fails for whoever reads it or asks for its end.
    stream.result().catch(() => {})
  }

  [Symbol.asyncIterator](): AsyncIterator<OutputChunk> {
    if (this.#isRead) throw new TypeError('the output of a program is read once')
    this.#isRead = true
    return this.#stream
  }

  async exitCode(): Promise<number> {
    if (!this.#isRead) for await (const _thrownAway of this);
    return this.#stream.result()
  }

  async text(): Promise<{ exitCode: number; stdout: string; stderr: string }> {
    const chunks: OutputChunk[] = []
    let size = 0
    for await (const chunk of this) {
      size += chunk.bytes.length
      if (size > LIMITS.gatheredOutputBytesMax) {
        throw new SlicenetError(
          'TOO_LARGE',
          `a program printed over ${LIMITS.gatheredOutputBytesMax} bytes`,
          {
            hint: 'read its output as it comes'
          }
        )
      }
      chunks.push(chunk)
    }
    const of = (stream: OutputChunk['stream']): string =>
      Buffer.concat(chunks.filter((chunk) => chunk.stream === stream).map(({ bytes }) => bytes)).toString()
    return { exitCode: await this.#stream.result(), stdout: of('stdout'), stderr: of('stderr') }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stream.return()
  }
}

/** Ends with a message without bytes, which closes the program's standard input. */
async function* stdinMessages(
  stdin: ExecSettings['stdin'],
  ended: AbortSignal,
  onError: (error: unknown) => void
): AsyncGenerator<{ bytes?: Uint8Array }> {
  const over = Promise.withResolvers<undefined>()
  ended.addEventListener('abort', () => over.resolve(undefined), { once: true })
  const source = sourceOf(stdin)[Symbol.asyncIterator]()
  try {
    for (;;) {
      const next = await Promise.race([source.next(), over.promise])
      if (next === undefined) return
      if (next.done === true) break
      const bytes = typeof next.value === 'string' ? Buffer.from(next.value) : next.value
      for (let at = 0; at < bytes.length; at += CHUNK_BYTES_MAX) {
        yield { bytes: new Uint8Array(bytes.subarray(at, at + CHUNK_BYTES_MAX)) }
      }
    }
  } catch (error) {
    onError(error)
    return
  } finally {
    // A source in the middle of a read answers when it has read.
    void source.return?.()?.catch(() => {})
  }
  yield {}
}

function sourceOf(stdin: ExecSettings['stdin']): AsyncIterable<string | Uint8Array> {
  if (typeof stdin === 'object' && Symbol.asyncIterator in stdin) return stdin
  return (async function* () {
    if (stdin !== undefined) yield stdin
  })()
}
