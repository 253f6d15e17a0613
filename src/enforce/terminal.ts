/**
 * A terminal of the host between a program in a vserver and a caller who may be far away. The program has one of its own inside, which
 * echoes and ends lines as terminals do; this one changes nothing, from its first moment: the runtime, which sees to that as well,
 * passes on the first output before it does.
 */
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { PassThrough, type Readable } from 'node:stream'
import { ReadStream } from 'node:tty'
import type { TerminalSize } from './enforcer.ts'
import { openPseudoTerminal, setWindowSize } from './syscall.ts'

export class HostTerminal {
  /** What the program prints; ends when nobody has the terminal open any more. */
  readonly output: Readable
  /** The descriptor that the program gets. */
  readonly slave: number
  readonly #master: number
  readonly #stream: ReadStream

  constructor(size: TerminalSize) {
    const { master, slave } = openPseudoTerminal()
    this.#master = master
    this.slave = slave
    this.#stream = new ReadStream(master)
    const output = new PassThrough()
    // The kernel says EIO when the program's end is closed.
    this.#stream.on('error', () => output.end())
    this.output = this.#stream.pipe(output)
    // Whoever reads no more hangs up, which ends most programs.
    output.once('close', () => this.#stream.destroy())
    setWindowSize(master, size)
  }

  /** The program has it; this process needs it no more. */
  handOver(): void {
    closeSync(this.slave)
  }

  resize(size: TerminalSize): void {
    if (!this.#stream.destroyed) setWindowSize(this.#master, size)
  }

  /**
   * A terminal has no end of input, so that nothing comes of `undefined`: Ctrl-D would be a key to a program that reads keys,
   * and whoever means it can send it.
   */
  async write(bytes: Uint8Array | undefined): Promise<void> {
    if (bytes === undefined || this.#stream.destroyed || this.#stream.write(bytes)) return
    await Promise.race([once(this.#stream, 'drain'), once(this.#stream, 'close')]).catch(() => {})
  }
}
