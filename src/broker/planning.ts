/** Which nodes match, which would make a slice, and why the others do not and would not (design §4). */
import { LIMITS } from '../base/limits.ts'
import type { AdvertWay, DirectoryEntry } from '../peer/advert-table.ts'
import type { Plan, Rejection, Want } from '../protocol/broker-protocol.ts'
import type { FailedClause } from '../query/clauses.ts'
import { compileQuery } from '../query/query.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { SUMMED_RESOURCES } from '../ticket/resources.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { chooseMembers, type Candidate } from './choice.ts'
import { byName, isNode, queryPace, type FindOptions } from './finding.ts'

/** A node, and every condition of a query or of a slice that it fails; none when it matches. */
export interface Explanation {
  readonly node: Principal
  readonly name: string
  readonly matches: boolean
  readonly failed: readonly FailedClause[]
  readonly advert: Signed<NodeAdvertisement>
  readonly via: AdvertWay
  /** UTC ms. */
  readonly receivedAt: number
}

export type Explained = { readonly query?: string } | { readonly want: Want }

/** Every node among `entries`, by name. Throws `QUERY_INVALID`. */
export async function explainNodes(
  what: Explained,
  entries: readonly DirectoryEntry[],
  { clock, signal }: FindOptions
): Promise<Explanation[]> {
  const wanted = 'want' in what ? what.want : undefined
  const text = 'want' in what ? what.want.query : what.query
  const query = text === undefined ? undefined : compileQuery(text)
  const pace = queryPace(clock)
  const explanations: Explanation[] = []
  for (const entry of entries) {
    if (!isNode(entry)) continue
    const { advert, via, receivedAt } = entry
    const { issuer: node, name } = advert.body
    const all = [
      ...(query?.failures(advert.body) ?? []),
      ...(wanted === undefined ? [] : unmet(wanted, advert.body))
    ]
    const failed = all.slice(0, LIMITS.failedClausesMax)
    explanations.push({ node, name, matches: failed.length === 0, failed, advert, via, receivedAt })
    if (pace.isDue()) await pace.pause(signal)
  }
  return explanations.sort(byName)
}

/** What a slice would be made of, by what agents offer of the nodes that match. */
export function planOf(
  want: Want,
  explanations: readonly Explanation[],
  candidates: readonly Candidate[],
  now: number
): Plan {
  const names = new Map(explanations.map(({ node, name }) => [node, name]))
  const assignments = chooseMembers(candidates, {
    count: want.count,
    resources: want.resources,
    notAfter: now + want.durationMs,
    granted: new Map()
  })
  const chosen = new Set(assignments.map(({ node }) => node))
  const offering = new Map(candidates.map(({ node, offers }) => [node, offers.length]))
  const rejections: Rejection[] = explanations.flatMap(({ node, name, failed }) => {
    if (chosen.has(node)) return []
    const isUnoffered = failed.length === 0 && (offering.get(node) ?? 0) === 0
    return [{ node, name, failed: isUnoffered ? [{ clause: 'offered by an agent' }] : [...failed] }]
  })
  const satisfiable = assignments.length >= Math.max(1, want.minimum)
  return {
    satisfiable,
    ...(satisfiable ? {} : { reason: `${assignments.length} of ${want.count} members could be had` }),
    members: assignments.map(({ node, agent }) => ({ node, agent, name: names.get(node) ?? node })),
    rejections
  }
}

/** What a slice needs beside its query. */
function unmet({ rights, image, resources }: Want, advert: NodeAdvertisement): FailedClause[] {
  const { images } = advert
  const lacking = rights.filter((right) => advert.rights?.includes(right) !== true)
  const hasImage = image === undefined || image in images || Object.values(images).includes(image)
  const exceeding = SUMMED_RESOURCES.filter((name) => resources[name] > advert.capacity[name])
  return [
    ...(hasImage ? [] : [{ clause: `image ${image}`, value: Object.keys(images).join(', ') }]),
    ...lacking.map((right) => ({ clause: `right ${right}` })),
    ...exceeding.map((name) => ({
      clause: `capacity of ${name} >= ${resources[name]}`,
      value: String(advert.capacity[name])
    }))
  ]
}
