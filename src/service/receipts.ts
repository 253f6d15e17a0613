/** What tickets came to, for the broker that got them and through it for their agents. */
import { asSlicenetError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import type { Broker } from '../broker/broker.ts'
import type { Redemption } from '../broker/returns.ts'
import type { Principal } from '../ticket/principal.ts'
import type { RedeemOutcome } from './member-calls.ts'
import type { Claim } from './slice-book.ts'

export interface ReceiptsComponents {
  readonly broker: Broker
  readonly logger: Logger
}

/** Gathers the outcomes of one round, and tells of them when it is over. */
export class Receipts {
  readonly #components: ReceiptsComponents
  readonly #redemptions: Redemption[] = []

  constructor(components: ReceiptsComponents) {
    this.#components = components
  }

  /** Without an outcome the node gave no answer. */
  add(agent: Principal, { ticket, redeem }: Claim, outcome?: RedeemOutcome): void {
    const { broker, logger } = this.#components
    const answer =
      outcome === undefined
        ? {}
        : 'lease' in outcome
          ? { lease: outcome.lease.bytes }
          : { refusal: outcome.refusal }
    const redemption = { agent, ticket, redeem, ...answer }
    this.#redemptions.push(redemption)
    try {
      broker.observe(redemption)
    } catch (error) {
      logger.debug('a receipt is none', { error: asSlicenetError(error) })
    }
  }

  /** In the background: nobody waits for agents that do not answer. */
  tell(): void {
    const { broker, logger } = this.#components
    broker.report(this.#redemptions.splice(0)).catch((error: unknown) => {
      logger.debug('receipts were not reported', { error })
    })
  }
}
