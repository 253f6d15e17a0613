/**
 * Checking by pings what coordinates made likely: of every two members each is asked to ping the other, and the longer of
 * the two times counts, so that one that lies about being near is found out by the other.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { abortion, within } from '../base/time-limit.ts'
import type { measureProtocol } from '../protocol/measure-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import type { Principal } from '../ticket/principal.ts'
import type { PairTimes } from './pair-times.ts'

export interface PingComponents {
  readonly clock: Clock
  readonly logger: Logger
  readonly callMeasure: (node: Principal) => Caller<typeof measureProtocol.methods>
  readonly times: PairTimes
}

export type Pair = readonly [one: Principal, other: Principal]

/** How long a node may take to ping those of one call. */
const CALL_MS = 5000
const ASKED_AT_ONCE = 16

/** What a node said of others, in microseconds, null where it did not reach them; nothing when it did not answer. */
type Said = Map<Principal, Map<Principal, number | null>>

/** Takes down the time of each pair, or that there is none. Throws the signal's reason. */
export async function pingPairs(
  { times, ...components }: PingComponents,
  pairs: readonly Pair[],
  signal?: AbortSignal
): Promise<void> {
  const targets = new Map<Principal, Principal[]>()
  for (const [one, other] of pairs) {
    targets.set(one, [...(targets.get(one) ?? []), other])
    targets.set(other, [...(targets.get(other) ?? []), one])
  }
  const said: Said = new Map()
  const waiting = [...targets]
  const work = async (): Promise<void> => {
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const [asked, others] = next
      said.set(asked, await ask(components, asked, others, signal))
    }
  }
  const over = new AbortController()
  try {
    const gone = abortion(signal, over.signal)
    await Promise.race([Promise.all(Array.from({ length: ASKED_AT_ONCE }, work)), gone])
  } finally {
    over.abort(new Error('the pings are over'))
  }
  for (const [one, other] of pairs) {
    times.set(one, other, longer(said.get(one)?.get(other), said.get(other)?.get(one)))
  }
}

async function ask(
  { clock, logger, callMeasure }: Omit<PingComponents, 'times'>,
  asked: Principal,
  targets: readonly Principal[],
  signal: AbortSignal | undefined
): Promise<Map<Principal, number | null>> {
  const said = new Map<Principal, number | null>()
  try {
    for (let from = 0; from < targets.length; from += LIMITS.pingTargetsMax) {
      const part = targets.slice(from, from + LIMITS.pingTargetsMax)
      const limit = { signal: within(clock, CALL_MS, signal) }
      const { rttMicros } = await callMeasure(asked)('ping', { targets: part }, limit)
      part.forEach((target, index) => said.set(target, rttMicros[index] ?? null))
    }
  } catch (error) {
    if (signal?.aborted !== true) logger.debug('a node did not ping others', { node: asked, error })
  }
  return said
}

/** Milliseconds. Where one says that it does not reach the other, nothing is known; where one says nothing, the other counts. */
function longer(one: number | null | undefined, other: number | null | undefined): number | undefined {
  if (one === null || other === null) return undefined
  const micros = Math.max(one ?? -1, other ?? -1)
  return micros < 0 ? undefined : micros / 1000
}
