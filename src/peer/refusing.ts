/** Signs this peer's refusals of calls, so that whoever was refused can show who said no, to what and why. */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { SigningKey } from '../ticket/principal.ts'
import { refusalObject, type Refuse } from '../ticket/refusal.ts'

export function createRefuse(clock: Clock, key: SigningKey): Refuse {
  let seq = 0
  return ({ code, message, evidence = [] }, request) => {
    const now = clock.now()
    seq = Math.max(seq + 1, now)
    const interval = { notBefore: now, notAfter: now + LIMITS.holdMsMax }
    const body = { issuer: key.principal, ...interval, seq, code, message, request, evidence: [...evidence] }
    return refusalObject.sign(body, key).bytes
  }
}
