/** Signs the refusals of a node, so that whoever was refused can show it. */
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { SigningKey } from '../ticket/principal.ts'
import type { Redeem } from '../ticket/redeem.ts'
import { refusalObject, type Reason, type Refusal } from '../ticket/refusal.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { SteadyClock } from './steady-clock.ts'

export interface RefuserComponents {
  readonly key: SigningKey
  readonly clock: SteadyClock
  readonly logger: Logger
}

const MESSAGE_CHARS_MAX = 512
const EVIDENCE_MAX = 16

export class Refuser {
  readonly #components: RefuserComponents
  #seq = 0

  constructor(components: RefuserComponents) {
    this.#components = components
  }

  refuse({ id, body }: Signed<Redeem>, reason: Reason): { readonly refusal: Signed<Refusal> } {
    const { key, clock, logger } = this.#components
    const { code, message } = reason
    const now = clock.now()
    logger.info('demand refused', { code, message, holder: body.issuer })
    // Grows over restarts too, because the node's time does.
    this.#seq = Math.max(this.#seq + 1, now)
    const refusal = {
      issuer: key.principal,
      notBefore: now,
      notAfter: now + LIMITS.holdMsMax,
      seq: this.#seq,
      code,
      message: message.slice(0, MESSAGE_CHARS_MAX),
      request: id,
      evidence: (reason.evidence ?? []).slice(0, EVIDENCE_MAX)
    }
    return { refusal: refusalObject.sign(refusal, key) }
  }
}
