/**
 * Keeps an agent to the policy of its file: read at start, and again when the file changes. What is no good policy never
 * takes the place of one that is.
 */
import type { AdmissionPolicy } from '../agent/admission-policy.ts'
import type { Clock } from '../base/clock.ts'
import { asSlicenetError, SlicenetError } from '../base/errors.ts'
import { repeat, type Startable } from '../base/lifecycle.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { readFileWithin } from './object-file.ts'
import { parsePolicy } from './policy-file.ts'

export interface PolicyKeeperComponents {
  readonly clock: Clock
  readonly logger: Logger
  /** Takes a policy. */
  readonly take: (policy: AdmissionPolicy) => void
}

export const POLICY_POLL_MS = 1000

export class PolicyKeeper implements Startable {
  readonly #components: PolicyKeeperComponents
  readonly #file: string
  /** What was there when it was looked at last, and what was decided on last: text, or why there is none. */
  #seen = ''
  #decided = ''
  #loop: { stop(): Promise<void> } | undefined

  constructor(components: PolicyKeeperComponents, init: { readonly file: string }) {
    this.#components = components
    this.#file = init.file
  }

  /** Throws `CONFIG_INVALID`: an agent does not begin without its policy. */
  async start(): Promise<void> {
    if (this.#loop !== undefined) return
    const { clock, logger } = this.#components
    const text = await this.#read()
    this.#take(text)
    this.#seen = text
    this.#decided = text
    this.#loop = repeat(
      () => this.#look(),
      { clock, onError: (error) => logger.warn('the policy could not be looked at', { error }) },
      { intervalMs: POLICY_POLL_MS, initialDelayMs: POLICY_POLL_MS }
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
    // What is seen twice is not in the middle of being written: the beginning of a policy may be one by itself.
    const isSettled = found === this.#seen
    this.#seen = found
    if (!isSettled || found === this.#decided) return
    this.#decided = found
    try {
      if (missing !== undefined) throw missing
      this.#take(found)
    } catch (error) {
      const { message: problem, details } = asSlicenetError(error)
      this.#components.logger.warn('the policy file is not taken, the policy before stays', {
        file: this.#file,
        problem,
        ...details
      })
    }
  }

  async #read(): Promise<string> {
    try {
      const bytes = await readFileWithin(this.#file, LIMITS.policyFileBytesMax)
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    } catch (cause) {
      const why = cause instanceof SlicenetError ? cause.message : 'it is no UTF-8 text'
      throw new SlicenetError('CONFIG_INVALID', `the policy ${this.#file} cannot be read: ${why}`, { cause })
    }
  }

  #take(text: string): void {
    const { logger, take } = this.#components
    const policy = parsePolicy(text, this.#file)
    take(policy)
    logger.info('policy taken', { file: this.#file, rules: policy.rules.map(({ name }) => name) })
  }
}
