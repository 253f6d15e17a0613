/** A terminal of the host between a program in a vserver and a caller who may be far away. */
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { PassThrough, type Readable } from 'node:stream'
import { ReadStream } from 'node:tty'
import type { TerminalSize } from './enforcer.ts'
import { openPseudoTerminal, setWindowSize } from './syscall.ts'

/** What a line discipline takes for the end of input: Ctrl-D. */
const END_OF_INPUT = Uint8Array.of(4)

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

  async write(bytes: Uint8Array | undefined): Promise<void> {
    if (this.#stream.destroyed || this.#stream.write(bytes ?? END_OF_INPUT)) return
    await Promise.race([once(this.#stream, 'drain'), once(this.#stream, 'close')]).catch(() => {})
  }
}
