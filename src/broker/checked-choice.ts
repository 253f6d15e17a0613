/**
 * Choosing members whose distances were measured: what coordinates make likely is chosen, the chosen ping one another,
 * and where that shows something else, others are chosen; until a choice stands, or time or pings are used up.
 */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import { Pace, paced } from '../base/pace.ts'
import type { measureProtocol } from '../protocol/measure-protocol.ts'
import type { Caller } from '../protocol/method.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { chooseMembers, type Choice, type Wish } from './choice.ts'
import { measuredOnly, type PairTimes } from './pair-times.ts'
import { pingPairs, type Pair } from './ping-check.ts'
import type { Candidate } from './preference.ts'

export interface ChoosingComponents {
  readonly clock: Clock
  readonly logger: Logger
  /** Absent: estimates are all there is. */
  readonly callMeasure?: ((node: Principal) => Caller<typeof measureProtocol.methods>) | undefined
  readonly times: PairTimes
}

/** Choices that are made and checked, and how long that may take. */
const ROUNDS_MAX = 8
const CHECKING_MS_MAX = 20_000
/** Candidates that are tried although nobody knows where they are. */
const UNPLACED_MAX = 16

/** Throws the signal's reason. */
export async function chooseChecked(
  { callMeasure, ...components }: ChoosingComponents,
  candidates: readonly Candidate[],
  wish: Omit<Wish, 'times'>,
  signal?: AbortSignal
): Promise<Choice> {
  const { clock, times } = components
  const pace = new Pace(clock)
  const choose = async (source: Wish['times']): Promise<Choice> =>
    paced(chooseMembers(candidates, { ...wish, times: source }), pace, signal)
  const usesRtt = wish.placement.pairwise?.usesRtt === true
  if (callMeasure === undefined || !usesRtt) return choose(times)
  const adverts = new Map(candidates.map(({ advert }) => [advert.issuer, advert]))
  const until = clock.monotonic() + CHECKING_MS_MAX
  let left = LIMITS.pingPairsMax
  for (let round = 0; round < ROUNDS_MAX && left > 0 && clock.monotonic() < until; round++) {
    const choice = await choose(times)
    const chosen = choice.members.flatMap(({ node }) => adverts.get(node) ?? [])
    const held = wish.held ?? []
    const isShort = chosen.length < wish.count
    const likely = unmeasured(chosen, held, times)
    const pairs = likely.length === 0 && isShort ? unplaced(candidates, held, times) : likely
    if (pairs.length === 0) return choice
    const next = pairs.slice(0, left)
    left -= next.length
    await pingPairs({ ...components, callMeasure }, next, signal)
  }
  const choice = await choose(times)
  const { length } = choice.members
  const pairs = (length * (length - 1)) / 2 + length * (wish.held?.length ?? 0)
  // Of more members than can all ping one another, those were looked at that are likely to be far apart.
  if (pairs > LIMITS.pingPairsMax) return choice
  const { members } = await choose(measuredOnly(times))
  return { members, isExhaustive: false }
}

/**
 * Pairs of which nothing is known, for one of them has no coordinate yet, as after its first start: among a few candidates,
 * and of these and what is held.
 */
function unplaced(
  candidates: readonly Candidate[],
  held: readonly NodeAdvertisement[],
  times: PairTimes
): Pair[] {
  const isUnknown = (one: NodeAdvertisement, other: NodeAdvertisement): boolean =>
    !times.isMeasured(one.issuer, other.issuer) && times.rttMs(one, other) === undefined
  const some = candidates.slice(0, UNPLACED_MAX).map(({ advert }) => advert)
  return some.flatMap((one, index) =>
    [...some.slice(index + 1), ...held]
      .filter((other) => isUnknown(one, other))
      .map((other): Pair => [one.issuer, other.issuer])
  )
}

/** Pairs of the chosen, and of chosen and held, that were not measured: those that are likely to be far apart first. */
function unmeasured(
  chosen: readonly NodeAdvertisement[],
  held: readonly NodeAdvertisement[],
  times: PairTimes
): Pair[] {
  const pairs = chosen.flatMap((one, index) =>
    [...chosen.slice(index + 1), ...held]
      .filter((other) => !times.isMeasured(one.issuer, other.issuer))
      .map((other) => ({ one, other, rttMs: times.rttMs(one, other) ?? 0 }))
  )
  pairs.sort((a, b) => b.rttMs - a.rttMs)
  return pairs.map(({ one, other }) => [one.issuer, other.issuer])
}
