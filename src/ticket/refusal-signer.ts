/** Signs the refusals of one principal, so that whoever was refused can show who said no, to what and why. */
import { LIMITS } from '../base/limits.ts'
import type { SigningKey } from './principal.ts'
import { fitReason, refusalObject, type Reason, type Refusal } from './refusal.ts'
import type { Signed } from './signed-object.ts'

export class RefusalSigner {
  readonly #key: SigningKey
  readonly #now: () => number
  #seq = 0

  /** `now` gives UTC ms. */
  constructor(key: SigningKey, now: () => number) {
    this.#key = key
    this.#now = now
  }

  /** `request` is the id of the signed request, or of the call; see `callId`. */
  sign(reason: Reason, request: string): Signed<Refusal> {
    const now = this.#now()
    // Orders refusals only: unlike other objects two may have one number, as after a restart with the clock set back.
    this.#seq = Math.max(this.#seq + 1, now)
    const { code, message, evidence = [] } = fitReason(reason)
    const interval = { notBefore: now, notAfter: now + LIMITS.holdMsMax }
    const body = { issuer: this.#key.principal, ...interval, seq: this.#seq, code, message, request }
    return refusalObject.sign({ ...body, evidence: [...evidence] }, this.#key)
  }
}
