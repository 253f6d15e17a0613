/** Runs the writer fixture and reads what it prints, line by line. */
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { ChildProcess } from 'node:child_process'
import type { ExecutionContext } from 'ava'
import { start } from '../../src/base/host-program.ts'

export const WRITER = new URL('fixtures/writer.ts', import.meta.url).pathname

export interface Writer {
  readonly child: ChildProcess
  /** Waits until so many lines were printed; fewer if the program ends before. */
  lines(count: number): Promise<readonly string[]>
  /** kill -9; gives everything printed until then. */
  kill(): Promise<readonly string[]>
}

export function startWriter(
  t: ExecutionContext,
  directory: string,
  init: { readonly first?: number; readonly mode?: 'early' | 'churn' } = {}
): Writer {
  const { first = 1, mode } = init
  const args = [WRITER, directory, String(first), '16', ...(mode === undefined ? [] : [mode])]
  return watchWriter(t, start(process.execPath, args, ['ignore', 'pipe', 'inherit']))
}

export function watchWriter(t: ExecutionContext, child: ChildProcess): Writer {
  const ended = once(child, 'close')
  const printed: string[] = []
  let wake = Promise.withResolvers<void>()
  const reader = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  reader.on('line', (line) => {
    printed.push(line)
    wake.resolve()
    wake = Promise.withResolvers()
  })
  const closed = once(reader, 'close')
  const over = new AbortController()
  void closed.then(() => {
    over.abort()
    wake.resolve()
  })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return {
    child,
    async lines(count) {
      while (printed.length < count && !over.signal.aborted) await wake.promise
      return printed.slice()
    },
    async kill() {
      child.kill('SIGKILL')
      await Promise.all([ended, closed])
      return printed
    }
  }
}
