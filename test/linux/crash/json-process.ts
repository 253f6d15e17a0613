/** A child process that is spoken to in lines of JSON, both ways. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { start } from '../../../src/base/host-program.ts'

export class JsonProcess {
  readonly child: ChildProcess
  /** Resolves with the signal that ended it, or its exit code, when it has ended and all that it said was heard. */
  readonly ended: Promise<string | number>
  readonly #listeners = new Set<(line: Record<string, unknown>) => void>()

  constructor(
    argv: readonly string[],
    init: { readonly env?: Readonly<Record<string, string>>; readonly stderr: 'inherit' | number }
  ) {
    const [program = '', ...args] = argv
    this.child = start(
      program,
      args,
      ['pipe', 'pipe', init.stderr],
      init.env === undefined ? {} : { env: init.env }
    )
    // It may be gone by the time that something is written.
    this.child.stdin?.on('error', () => {})
    if (this.child.stdout === null) throw new TypeError('a pipe was asked for')
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      const heard = JSON.parse(line) as Record<string, unknown>
      for (const listener of this.#listeners) listener(heard)
    })
    this.ended = once(this.child, 'close').then(([code, signal]) => (signal ?? code) as string | number)
  }

  say(line: object): void {
    this.child.stdin?.write(`${JSON.stringify(line)}\n`)
  }

  /** Gives the function that ends it. */
  listen(listener: (line: Record<string, unknown>) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** The next line from now on that has this field. Throws when the process ends without one. */
  async hear(field: string): Promise<Record<string, unknown>> {
    const heard = Promise.withResolvers<Record<string, unknown>>()
    const unlisten = this.listen((line) => {
      if (field in line) heard.resolve(line)
    })
    try {
      return await Promise.race([
        heard.promise,
        this.ended.then((how) => {
          throw new Error(
            `${this.child.spawnargs.slice(0, 6).join(' ')} ended (${how}) before it said ${field}`
          )
        })
      ])
    } finally {
      unlisten()
    }
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.ended
  }
}
