/**
 * Brokering for others: answers the broker protocol for each caller as the principal that it is, bounded so that
 * strangers can neither keep the broker busy nor have it bother agents without end.
 */
import { SlicenetError } from '../base/errors.ts'
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import { within } from '../base/time-limit.ts'
import { SignerRate } from '../peer/signer-rate.ts'
import type { brokerProtocol, Rejection } from '../protocol/broker-protocol.ts'
import type { Handlers } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Broker } from './broker.ts'

export interface BrokerServiceComponents {
  readonly clock: Clock
  /** The broker that works for one principal, for which memberships that it did not show do not speak. */
  readonly brokerFor: (principal: Principal) => Pick<Broker, 'find' | 'plan'>
  /** Whether it works for a principal; default for anybody. */
  readonly accepts?: (principal: Principal) => boolean
}

const WORK_MS_MAX = 30_000

/** Handlers throw `DENIED` to callers that it does not work for, `BUSY` to those who ask too much or too often, and what the broker throws. */
export function brokerHandlers(components: BrokerServiceComponents): Handlers<typeof brokerProtocol.methods> {
  const admission = new Admission(components.clock)
  const admitted = async <T>(
    call: { readonly principal: string | undefined; readonly signal: AbortSignal },
    work: (broker: Pick<Broker, 'find' | 'plan'>, options: { readonly signal: AbortSignal }) => Promise<T>
  ): Promise<T> => {
    const { principal } = call
    if (principal === undefined) throw new TypeError('a broker works for principals')
    if (components.accepts?.(principal) === false) {
      throw new SlicenetError('DENIED', 'this broker works for others only', {
        hint: 'ask whoever runs it, or another broker'
      })
    }
    const signal = within(components.clock, WORK_MS_MAX, call.signal)
    return admission.admit(principal, () => work(components.brokerFor(principal), { signal }))
  }
  return {
    async getAds({ query }, call) {
      const { found } = await admitted(call, async (broker, options) => broker.find(query, options))
      for (const { advert } of found.slice(0, LIMITS.brokerAdvertsMax))
        await call.emit({ advert: advert.bytes })
      return {}
    },
    async plan({ want }, call) {
      const { members, rejections, ...result } = await admitted(call, async (broker, options) =>
        broker.plan(want, options)
      )
      for (const member of members) await call.emit({ member })
      for (const rejection of nearest(rejections)) await call.emit({ rejection })
      return result
    }
  }
}

/** Of too many those that fail least, which are worth most to whoever wants to know why. */
function nearest(rejections: readonly Rejection[]): readonly Rejection[] {
  if (rejections.length <= LIMITS.brokerRejectionsMax) return rejections
  return rejections.toSorted((a, b) => a.failed.length - b.failed.length).slice(0, LIMITS.brokerRejectionsMax)
}

interface CallerState {
  readonly rate: SignerRate
  underWay: number
}

class Admission {
  readonly #clock: Clock
  /** In the order in which they called last. */
  readonly #callers = new Map<Principal, CallerState>()
  #underWay = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  async admit<T>(principal: Principal, work: () => Promise<T>): Promise<T> {
    const caller = this.#caller(principal)
    if (!caller.rate.take(this.#clock.monotonic())) throw busy('this peer has asked too often')
    if (caller.underWay >= LIMITS.brokerWorkPerCallerMax) {
      throw busy(`this peer has ${caller.underWay} questions under way`)
    }
    if (this.#underWay >= LIMITS.brokerWorkMax) throw busy(`${this.#underWay} questions are under way`)
    caller.underWay += 1
    this.#underWay += 1
    try {
      return await work()
    } finally {
      caller.underWay -= 1
      this.#underWay -= 1
    }
  }

  #caller(principal: Principal): CallerState {
    const known = this.#callers.get(principal)
    const caller = known ?? { rate: new SignerRate(CALLS), underWay: 0 }
    this.#callers.delete(principal)
    this.#callers.set(principal, caller)
    const [oldest] = this.#callers.keys()
    if (this.#callers.size > LIMITS.brokerCallersMax && oldest !== undefined) this.#callers.delete(oldest)
    return caller
  }
}

const CALLS = {
  burst: LIMITS.brokerCallsPerCallerBurst,
  perMinute: LIMITS.brokerCallsPerCallerPerMinute
}

function busy(why: string): SlicenetError {
  return new SlicenetError('BUSY', `the broker takes no more: ${why}`)
}
