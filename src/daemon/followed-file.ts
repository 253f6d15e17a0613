/**
 * A file of rules that is read at start, and again when it changes. What is no good takes the place of nothing that is:
 * the rules before stay, and the log says why.
 */
import type { Clock } from '../base/clock.ts'
import { asSlicenetError, SlicenetError } from '../base/errors.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import type { LogFields, Logger } from '../base/log.ts'
import { readFileWithin } from './object-file.ts'

export interface FollowedFileComponents<T> {
  readonly clock: Clock
  readonly logger: Logger
  /** Takes what the file says. */
  readonly take: (content: T) => void
}

export interface FollowedFileInit<T> {
  readonly file: string
  /** What the file holds, such as `policy`. */
  readonly what: string
  readonly bytesMax: number
  /** Throws `CONFIG_INVALID`. */
  readonly parse: (text: string, file: string) => T
  /** What the log tells of it. */
  readonly told: (content: T) => LogFields
}

export const FILE_POLL_MS = 1000

export class FollowedFile<T> implements Startable {
  readonly #components: FollowedFileComponents<T>
  readonly #init: FollowedFileInit<T>
  /** What was there when it was looked at last, and what was decided on last: text, or why there is none. */
  #seen = ''
  #decided = ''
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: FollowedFileComponents<T>, init: FollowedFileInit<T>) {
    this.#components = components
    this.#init = init
  }

  /** Throws `CONFIG_INVALID`: nobody begins without the rules that were asked for. */
  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { clock, logger } = this.#components
    const text = await this.#read()
    this.#take(text)
    this.#seen = text
    this.#decided = text
    this.#loop = repeat(
      () => this.#look(),
      { clock, onError: (error) => logger.warn(`the ${this.#init.what} could not be looked at`, { error }) },
      { intervalMs: FILE_POLL_MS, initialDelayMs: FILE_POLL_MS }
    )
  }

  async stop(): Promise<void> {
    const loop = this.#loop
    this.#loop = undefined
    await loop?.stop()
  }

  async #look(): Promise<void> {
    let found: string
    let missing: SlicenetError | undefined
    try {
      found = await this.#read()
    } catch (error) {
      missing = asSlicenetError(error)
      found = missing.message
    }
    // What is seen twice is not in the middle of being written: the beginning of rules may be rules by itself.
    const isSettled = found === this.#seen
    this.#seen = found
    if (!isSettled || found === this.#decided) return
    this.#decided = found
    try {
      if (missing !== undefined) throw missing
      this.#take(found)
    } catch (error) {
      const { message: problem, details } = asSlicenetError(error)
      const { file, what } = this.#init
      this.#components.logger.warn(`the ${what} file is not taken, the ${what} before stays`, {
        file,
        problem,
        ...details
      })
    }
  }

  async #read(): Promise<string> {
    const { file, what, bytesMax } = this.#init
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(await readFileWithin(file, bytesMax))
    } catch (cause) {
      const why = cause instanceof SlicenetError ? cause.message : 'it is no UTF-8 text'
      throw new SlicenetError('CONFIG_INVALID', `the ${what} ${file} cannot be read: ${why}`, { cause })
    }
  }

  #take(text: string): void {
    const { logger, take } = this.#components
    const { file, what, parse, told } = this.#init
    const content = parse(text, file)
    take(content)
    logger.info(`${what} taken`, { file, ...told(content) })
  }
}
