/**
 * What a node must be to be a member at all, whatever the other members: the clauses of the query, the rights, image and
 * amounts that the slice needs, and on the node's side whom it serves. Free resources are no part of it: they change by
 * the minute, so they are a preference. Pure.
 */
import { LIMITS } from '../base/limits.ts'
import type { AdvertWay } from '../peer/advert-table.ts'
import type { Want } from '../protocol/broker-protocol.ts'
import type { FailedClause } from '../query/clauses.ts'
import type { Query } from '../query/query.ts'
import { isAccepted, servedBy } from '../ticket/accepts.ts'
import { FETCHES_IMAGES, type NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { SUMMED_RESOURCES } from '../ticket/resources.ts'
import { isAdministrative, rightsFault } from '../ticket/rights.ts'
import { EGRESS_SHARE } from '../ticket/shaping.ts'
import type { Signed } from '../ticket/signed-object.ts'
import type { NodeEntry } from './finding.ts'

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

/** For whom a slice is. */
export interface Holder {
  readonly principal: Principal
  /** Those that are known to vouch for it. */
  readonly organisations: readonly Principal[]
}

export interface Requirements {
  readonly query?: Query | undefined
  readonly want?: Want | undefined
  readonly holder: Holder
  readonly isProven: (principal: Principal) => boolean
}

export function explained(
  { advert, via, receivedAt }: NodeEntry,
  failed: readonly FailedClause[]
): Explanation {
  const { issuer: node, name } = advert.body
  const told = failed.slice(0, LIMITS.failedClausesMax)
  return { node, name, matches: told.length === 0, failed: told, advert, via, receivedAt }
}

/** All but the image, of which it is not known yet what content is meant. */
export function unmet(
  { query, want, holder, isProven }: Requirements,
  advert: NodeAdvertisement
): FailedClause[] {
  const failed = query?.failures(advert) ?? []
  if (want === undefined) return failed
  const { resources, ports, rights, shaping, distinct = [] } = want
  const { egressShare: wantedShare = EGRESS_SHARE.usual } = shaping ?? {}
  const { egressShare: largestShare = EGRESS_SHARE.usual } = advert
  const lackedRights = rights.filter((right) => advert.rights?.includes(right) !== true)
  const exceeded = SUMMED_RESOURCES.filter((name) => resources[name] > advert.capacity[name])
  const lackedAttributes = distinct.filter((name) => !Object.hasOwn(advert.attributes, name))
  const { accepts } = advert
  const together = rightsFault(rights, ports)
  const { administrators = [] } = advert
  const isStranger = isAdministrative(rights) && !administrators.includes(holder.principal)
  const refuses = accepts !== undefined && !isAccepted(accepts, holder.principal, holder.organisations)
  return [
    ...failed,
    ...(isProven(advert.issuer) ? [{ clause: 'no proof of fraud', value: 'proven' }] : []),
    ...(refuses ? [{ clause: `accepts ${holder.principal}`, value: servedBy(accepts) }] : []),
    ...(together === undefined ? [] : [{ clause: 'rights that go together', value: together }]),
    ...(isStranger
      ? [{ clause: `administrative slices for ${holder.principal}`, value: listed(administrators) }]
      : []),
    ...lackedRights.map((right) => ({ clause: `right ${right}`, value: listed(advert.rights ?? []) })),
    ...exceeded.map((name) => ({
      clause: `capacity of ${name} >= ${resources[name]}`,
      value: String(advert.capacity[name])
    })),
    ...(wantedShare > largestShare
      ? [{ clause: `egressShare >= ${wantedShare}`, value: String(largestShare) }]
      : []),
    ...lackedAttributes.map((name) => ({ clause: `distinct: ${name}` }))
  ]
}

/** `image`: the name or id that was asked for; `id`: the content that it was taken for. */
export function unmetImage(image: string, id: string | undefined, node: NodeAdvertisement): FailedClause[] {
  const { images } = node
  if (id !== undefined && Object.values(images).includes(id)) return []
  // Some other node has it, so this one can get it.
  if (id !== undefined && fetchesImages(node)) return []
  const other = Object.hasOwn(images, image) ? images[image] : undefined
  if (id !== undefined && other !== undefined) return [{ clause: `image ${image} as ${id}`, value: other }]
  return [{ clause: `image ${image}`, value: listed(Object.keys(images)) }]
}

export function fetchesImages({ attributes }: NodeAdvertisement): boolean {
  return attributes[FETCHES_IMAGES] === 'yes'
}

/** An image by content id, or the id that most of the nodes give to a name. */
export function imageId(nodes: readonly NodeAdvertisement[], wanted: string): string | undefined {
  const ids = nodes.flatMap(({ images }) => {
    const id = wanted.startsWith('sha256:')
      ? Object.values(images).find((known) => known === wanted)
      : images[wanted]
    return id === undefined ? [] : [id]
  })
  const counts = [...Map.groupBy(ids, (id) => id)].sort(
    (a, b) => b[1].length - a[1].length || (a[0] < b[0] ? -1 : 1)
  )
  return counts[0]?.[0]
}

function listed(values: readonly string[]): string {
  return values.length === 0 ? 'none' : values.join(', ').slice(0, 200)
}
