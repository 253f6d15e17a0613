/**
 * Starting and stopping things in order. Constructors do no I/O; `start` and `stop` are idempotent; a start that
 * fails half-way stops what it had begun.
 */
import type { Clock } from './clock.ts'
import { SlicenetError } from './errors.ts'

export interface Startable {
  start(): Promise<void>
  stop(): Promise<void>
}

/** Starts parts in order and stops them in reverse. If one fails to start, those before it are stopped again. */
export class Lifecycle implements Startable, AsyncDisposable {
  readonly #parts: readonly Startable[]
  #started: Startable[] = []

  constructor(parts: readonly Startable[]) {
    this.#parts = parts
  }

  async start(): Promise<void> {
    if (this.#started.length > 0) return
    for (const part of this.#parts) {
      try {
        // A part that fails half-way is stopped too: `stop` is idempotent.
        this.#started.push(part)
        await part.start()
      } catch (error) {
        await this.stop().catch(() => {})
        throw error
      }
    }
  }

  async stop(): Promise<void> {
    const parts = this.#started
    this.#started = []
    const failures: unknown[] = []
    for (const part of parts.reverse()) {
      await part.stop().catch((error: unknown) => failures.push(error))
    }
    if (failures.length === 1) throw failures[0]
    if (failures.length > 1) {
      throw new SlicenetError('INTERNAL', `${failures.length} parts failed to stop`, {
        cause: new AggregateError(failures)
      })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

/** Runs `task` again and again, `intervalMs` apart, until stopped; a failing run is reported and the loop goes on. */
export function repeat(
  task: (signal: AbortSignal) => Promise<void>,
  components: { readonly clock: Clock; readonly onError: (error: unknown) => void },
  init: { readonly intervalMs: number; readonly initialDelayMs?: number }
): { stop(): Promise<void> } {
  const controller = new AbortController()
  const { signal } = controller
  const run = async (): Promise<void> => {
    let wait = init.initialDelayMs ?? 0
    while (!signal.aborted) {
      try {
        await components.clock.sleep(wait, { signal })
        await task(signal)
      } catch (error) {
        if (signal.aborted) return
        components.onError(error)
      }
      wait = init.intervalMs
    }
  }
  const done = run()
  return {
    async stop() {
      controller.abort(new Error('stopped'))
      await done
    }
  }
}
