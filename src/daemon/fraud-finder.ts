/**
 * Looks for fraud among the signed objects that pass through this peer, whichever part of it they pass through, and
 * tells the overlay of what it finds.
 */
import { asSlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import type { Proofs } from '../peer/proofs.ts'
import { openAnyObject, type AnyObject } from '../ticket/any-object.ts'
import { bundleFinding } from '../ticket/fraud-bundle.ts'
import { FraudWatch } from '../ticket/fraud-watch.ts'
import type { Finding } from '../ticket/fraud.ts'
import type { Principal, SigningKey } from '../ticket/principal.ts'

export interface FraudFinderComponents {
  readonly key: SigningKey
  readonly proofs: Proofs
  readonly clock: Clock
  readonly logger: Logger
}

export class FraudFinder {
  readonly #components: FraudFinderComponents
  readonly #watch = new FraudWatch()
  #seq = 0

  constructor(components: FraudFinderComponents) {
    this.#components = components
  }

  /** Takes an object whose signature was checked; gives what it proves with those before it, which is published. */
  observe(one: AnyObject): readonly Finding[] {
    const findings = this.#watch.observe(one)
    for (const finding of findings) void this.#publish(finding)
    return findings
  }

  /** The same for envelopes, such as a chain; what is none is passed over. */
  observeBytes(envelopes: readonly Uint8Array[]): void {
    for (const bytes of envelopes) {
      try {
        this.observe(openAnyObject(bytes))
      } catch (error) {
        this.#components.logger.debug('not a signed object', { error })
      }
    }
  }

  /** Whether there is a proof against a principal, found here or by others. */
  isProven(principal: Principal): boolean {
    return this.#components.proofs.has(principal).length > 0
  }

  async #publish(finding: Finding): Promise<void> {
    const { key, proofs, clock, logger } = this.#components
    const { kind, accused, message } = finding
    try {
      const now = clock.now()
      this.#seq = Math.max(this.#seq + 1, now)
      const bundle = bundleFinding(finding, key, { now, seq: this.#seq })
      logger.warn('fraud found', { kind, accused, proof: bundle.proof.id, why: message })
      await proofs.publish(bundle)
    } catch (error) {
      logger.warn('a fraud could not be told of', { kind, accused, error: asSlicenetError(error) })
    }
  }
}
