/** Going over the adverts that a peer knows with a query, in pieces, so that no query keeps the peer from its work. */
import type { Clock } from '../base/clock.ts'
import { SlicenetError } from '../base/errors.ts'
import { LIMITS } from '../base/limits.ts'
import { Pace } from '../base/pace.ts'
import type { DirectoryEntry } from '../peer/advert-table.ts'
import type { FailedClause } from '../query/clauses.ts'
import type { Query } from '../query/query.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Signed } from '../ticket/signed-object.ts'

export interface NodeEntry extends DirectoryEntry {
  readonly advert: Signed<NodeAdvertisement>
}

export interface FoundNode {
  readonly advert: Signed<NodeAdvertisement>
  readonly via: string
  /** UTC ms at which this peer heard it. */
  readonly receivedAt: number
}

/** Why a node is not among those found. */
export interface Mismatch {
  readonly node: Principal
  readonly name: string
  /** Found out when it is read: most are not asked why. */
  readonly failed: readonly FailedClause[]
}

export interface FindOptions {
  readonly clock: Pick<Clock, 'monotonic'>
  readonly signal?: AbortSignal | undefined
}

/** By name. Throws `QUERY_INVALID` when it takes too long, the signal's reason when aborted. */
export async function findNodes(
  query: Query | undefined,
  entries: readonly DirectoryEntry[],
  { clock, signal }: FindOptions
): Promise<{ found: FoundNode[]; mismatches: Mismatch[] }> {
  const pace = queryPace(clock)
  const found: FoundNode[] = []
  const mismatches: Mismatch[] = []
  for (const entry of entries) {
    if (!isNode(entry)) continue
    const { advert, via, receivedAt } = entry
    if (query === undefined || query.matches(advert.body)) found.push({ advert, via, receivedAt })
    else mismatches.push(mismatch(query, advert.body))
    if (pace.isDue()) await pace.pause(signal)
  }
  found.sort((a, b) => byName(a.advert.body, b.advert.body))
  mismatches.sort(byName)
  return { found, mismatches }
}

/** For work over all adverts on behalf of one query. */
export function queryPace(clock: Pick<Clock, 'monotonic'>): Pace {
  return new Pace(clock, {
    msMax: LIMITS.queryMsMax,
    tooLong: () =>
      new SlicenetError('QUERY_INVALID', 'this query takes too long over all adverts', {
        hint: 'ask for less: go over fewer lists'
      })
  })
}

export function isNode(entry: DirectoryEntry): entry is NodeEntry {
  return entry.advert.body.role === 'node'
}

/** Names prove nothing and may be alike; a sort leaves those as they were. */
export function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name === b.name ? 0 : a.name < b.name ? -1 : 1
}

function mismatch(query: Query, body: NodeAdvertisement): Mismatch {
  let failed: readonly FailedClause[] | undefined
  return {
    node: body.issuer,
    name: body.name,
    get failed() {
      failed ??= query.failures(body)
      return failed
    }
  }
}
