/** Which nodes match a slice, which would make it, and why the others would not (design §4). */
import type { Clock } from '../base/clock.ts'
import { LIMITS } from '../base/limits.ts'
import { Pace } from '../base/pace.ts'
import type { DirectoryEntry } from '../peer/advert-table.ts'
import type { Plan, Rejection, Want } from '../protocol/broker-protocol.ts'
import type { FailedClause } from '../query/clauses.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { resourcesExceeding } from '../ticket/resources.ts'
import type { Choice } from './choice.ts'
import { Compatibility, type Place } from './compatibility.ts'
import { byName, isNode, queryPace, type FindOptions } from './finding.ts'
import type { RttSource } from './pair-times.ts'
import type { Placement } from './placement.ts'
import { isAble, type Candidate } from './preference.ts'
import {
  explained,
  fetchesImages,
  imageId,
  unmet,
  unmetImage,
  type Explanation,
  type Requirements
} from './requirements.ts'

export interface Matching {
  /** Every node, by name. */
  readonly explanations: readonly Explanation[]
  /** The content that the slice's image was taken for; `undefined` where no node has it, or none is asked for. */
  readonly image: string | undefined
}

/** Every node by itself. Throws `QUERY_INVALID` when it takes too long, the signal's reason when aborted. */
export async function matchNodes(
  requirements: Requirements,
  entries: readonly DirectoryEntry[],
  { clock, signal }: FindOptions
): Promise<Matching> {
  const pace = queryPace(clock)
  const explanations: Explanation[] = []
  for (const entry of entries) {
    if (!isNode(entry)) continue
    explanations.push(explained(entry, unmet(requirements, entry.advert.body)))
    if (pace.isDue()) await pace.pause(signal)
  }
  explanations.sort(byName)
  const wanted = requirements.want?.image
  if (wanted === undefined) return { explanations, image: undefined }
  const matching = explanations.filter(({ matches }) => matches)
  // Where none matches anyway, what all have says what is meant.
  const asked = matching.length > 0 ? matching : explanations
  const image = imageMeant(asked, wanted) ?? imageToFetch(asked, explanations, wanted)
  return {
    image,
    explanations: explanations.map((one) =>
      explained(one, [...one.failed, ...unmetImage(wanted, image, one.advert.body)])
    )
  }
}

function imageMeant(nodes: readonly Explanation[], wanted: string): string | undefined {
  return imageId(
    nodes.map(({ advert }) => advert.body),
    wanted
  )
}

/** A node that fetches images takes one that only others have, which may not match. */
function imageToFetch(
  asked: readonly Explanation[],
  all: readonly Explanation[],
  wanted: string
): string | undefined {
  return asked.some(({ advert }) => fetchesImages(advert.body)) ? imageMeant(all, wanted) : undefined
}

export interface PlanInit {
  readonly want: Want
  readonly explanations: readonly Explanation[]
  readonly candidates: readonly Candidate[]
  readonly choice: Choice
  readonly placement: Placement
  readonly times: RttSource
  readonly now: number
}

/** Beside so many members it is told why a node cannot be one. */
const CONFLICTS_TOLD_MAX = 8
/** So many pairs are looked at for that, and of each node at least so many: of very many, the first members stand for all. */
const PAIRS_LOOKED_AT_MAX = 500_000
const MEMBERS_LOOKED_AT_MIN = 32

/** Throws the signal's reason. */
export async function planOf(
  init: PlanInit,
  { clock, signal }: { readonly clock: Pick<Clock, 'monotonic'>; readonly signal?: AbortSignal | undefined }
): Promise<Plan> {
  const { want, explanations, candidates, choice, placement } = init
  const adverts = new Map(explanations.map(({ node, advert }) => [node, advert.body]))
  const byNode = new Map(candidates.map((candidate) => [candidate.advert.issuer, candidate]))
  const members = choice.members.flatMap(({ node, agent }) => {
    const advert = adverts.get(node)
    if (advert === undefined) return []
    const rank = placement.rank?.of(advert)
    return [{ node, agent, name: advert.name, ...(rank === undefined ? {} : { rank: String(rank) }) }]
  })
  const compatibility = new Compatibility(placement, init.times)
  const chosen = members.flatMap(({ node }) => adverts.get(node) ?? []).map((one) => compatibility.place(one))
  const looked = Math.max(MEMBERS_LOOKED_AT_MIN, Math.floor(PAIRS_LOOKED_AT_MAX / explanations.length))
  const beside = chosen.slice(0, looked)
  const isMember = new Set<Principal>(members.map(({ node }) => node))
  const pace = new Pace(clock)
  const rejections: Rejection[] = []
  for (const { node, name, failed, advert } of explanations) {
    if (isMember.has(node)) continue
    const others =
      failed.length > 0
        ? failed
        : [
            ...unoffered(byNode.get(node), want, init.now),
            ...conflicts(compatibility, compatibility.place(advert.body), beside)
          ]
    rejections.push({ node, name, failed: others.slice(0, LIMITS.failedClausesMax) })
    if (pace.isDue(1 + beside.length)) await pace.pause(signal)
  }
  const satisfiable = members.length >= Math.max(1, want.minimum)
  return { satisfiable, ...(satisfiable ? {} : { reason: shortage(init) }), members, rejections }
}

/** What agents offer of a node is too little; nothing where one offers enough. */
function unoffered(candidate: Candidate | undefined, want: Want, now: number): FailedClause[] {
  const wish = { resources: want.resources, notAfter: now + want.durationMs }
  const offers = candidate?.offers ?? []
  if (offers.some((offer) => isAble(offer, wish))) return []
  if (offers.length === 0) return [{ clause: 'an agent offers it' }]
  return offers.flatMap(({ agent, available, until }) => [
    ...resourcesExceeding(want.resources, available).map((name) => ({
      clause: `an agent offers ${name} >= ${want.resources[name]}`,
      value: `${available[name]} of ${agent}`
    })),
    ...(until >= wish.notAfter
      ? []
      : [
          {
            clause: `an agent offers it until ${new Date(wish.notAfter).toISOString()}`,
            value: `${new Date(until).toISOString()} of ${agent}`
          }
        ])
  ])
}

function conflicts(compatibility: Compatibility, place: Place, members: readonly Place[]): FailedClause[] {
  const failed: FailedClause[] = []
  let told = 0
  for (const member of members) {
    if (told >= CONFLICTS_TOLD_MAX) break
    if (compatibility.holds(place, member)) continue
    failed.push(...compatibility.failures(place, member))
    told += 1
  }
  return failed
}

/** Why there are fewer members than are needed. */
function shortage({ want, explanations, candidates, choice, placement, now }: PlanInit): string {
  const needed = `${Math.max(1, want.minimum)} of ${want.count} members are needed`
  const minimum = Math.max(1, want.minimum)
  const matching = explanations.filter(({ matches }) => matches)
  if (matching.length < minimum)
    return `${matching.length} of ${explanations.length} nodes match where ${needed}`
  const wish = { resources: want.resources, notAfter: now + want.durationMs }
  const able = candidates.filter(({ offers }) => offers.some((offer) => isAble(offer, wish)))
  if (able.length < minimum) {
    return `agents offer enough of ${able.length} of the ${matching.length} nodes that match where ${needed}`
  }
  for (const name of placement.distinct) {
    const values = new Set(able.map(({ advert }) => valueOf(advert, name)))
    if (values.size < minimum)
      return `the nodes that match have ${values.size} values of ${name} where ${needed}`
  }
  const { length } = choice.members
  return choice.isExhaustive
    ? `at most ${length} of the nodes that match can be members together where ${needed}`
    : `${length} of the nodes that match were found to go together within the limit of the search where ${needed}`
}

function valueOf({ attributes }: NodeAdvertisement, name: string): string | number | undefined {
  return attributes[name]
}
