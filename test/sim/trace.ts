/** What happened in one simulation, line by line: its hash tells two runs apart, its text is for people. */
import { createHash } from 'node:crypto'

export class Trace {
  readonly #hash = createHash('sha256')
  #isOver = false
  readonly #write: ((line: string) => void) | undefined

  /** `write` gets each line as it comes. */
  constructor(write?: (line: string) => void) {
    this.#write = write
  }

  add(time: number, where: string, what: string): void {
    if (this.#isOver) return
    const line = `${(time / 1000).toFixed(3).padStart(9)} ${where.padEnd(8)} ${what}\n`
    this.#hash.update(line)
    this.#write?.(line)
  }

  /** SHA-256 in hex. Nothing is added afterwards. */
  end(): string {
    this.#isOver = true
    return this.#hash.digest('hex')
  }
}

/** Enough of an id to tell it from others. */
export function short(id: string): string {
  return id.slice(-6)
}
