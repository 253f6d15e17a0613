/** Whether two nodes can be members of one slice, and if not, by which of its conditions. Pure. */
import type { FailedClause } from '../query/clauses.ts'
import type { Queryable } from '../query/queryable.ts'
import type { NodeAdvertisement } from '../ticket/advertisement.ts'
import type { Principal } from '../ticket/principal.ts'
import { NO_RESOURCES } from '../ticket/resources.ts'
import type { RttSource } from './pair-times.ts'
import type { Placement } from './placement.ts'

/** A node with what conditions see of it. */
export interface Place {
  readonly advert: NodeAdvertisement
  /** Values of the attributes that are to be distinct; `undefined` where it has none. */
  readonly values: readonly (string | number | undefined)[]
  /** Among what members are spread over. */
  readonly group: string | number | undefined
  readonly view: Queryable
}

const NOTHING: Queryable = {}

export class Compatibility {
  readonly #placement: Placement
  readonly #times: RttSource

  constructor(placement: Placement, times: RttSource) {
    this.#placement = placement
    this.#times = times
  }

  place(advert: NodeAdvertisement): Place {
    const { distinct, spread, pairwise } = this.#placement
    return {
      advert,
      values: distinct.map((name) => valueOf(advert, name)),
      group: spread === undefined ? undefined : valueOf(advert, spread),
      view: pairwise?.view(advert) ?? NOTHING
    }
  }

  /** What a node lacks to be a member beside any other. */
  lacking({ values }: Place): FailedClause[] {
    return this.#placement.distinct.flatMap((name, index) =>
      values[index] === undefined ? [{ clause: `distinct: ${name}` }] : []
    )
  }

  holds(one: Place, other: Place): boolean {
    for (let index = 0; index < one.values.length; index++) {
      const value = one.values[index]
      if (value === undefined || other.values[index] === undefined || value === other.values[index])
        return false
    }
    const { pairwise } = this.#placement
    if (pairwise === undefined) return true
    const rttMs = pairwise.usesRtt ? this.#times.rttMs(one.advert, other.advert) : undefined
    return pairwise.holds(one.view, other.view, rttMs)
  }

  /** The conditions that a node fails beside a member, each with what was seen and beside whom. */
  failures(one: Place, member: Place): FailedClause[] {
    const { distinct, pairwise } = this.#placement
    const { name, issuer } = member.advert
    const same = distinct.flatMap((attribute, index) => {
      const value = one.values[index]
      if (value === undefined || value !== member.values[index]) return []
      return [
        { clause: `distinct: ${attribute}`, value: `${JSON.stringify(value)}, which member ${name} has` }
      ]
    })
    if (pairwise === undefined) return same
    const rttMs = pairwise.usesRtt ? this.#times.rttMs(one.advert, member.advert) : undefined
    const how = this.#times.isMeasured(one.advert.issuer, issuer) ? ' by their pings' : ''
    const failed = pairwise.failures(one.view, member.view, rttMs).map(({ clause, value = 'not known' }) => ({
      clause: `pairwise: ${clause}`,
      value: `${value} with member ${name}${how}`
    }))
    return [...same, ...failed]
  }
}

/** Stands for a member whose advert is gone: it goes with nobody, as far as anybody can tell. */
export function nothingKnownOf(node: Principal, name: string): NodeAdvertisement {
  return {
    role: 'node',
    issuer: node,
    name,
    notBefore: 0,
    notAfter: 1,
    seq: 0,
    epoch: 0,
    multiaddrs: [],
    attributes: {},
    capacity: NO_RESOURCES,
    free: NO_RESOURCES,
    delegatedPercent: 0,
    images: {},
    agents: []
  }
}

function valueOf({ attributes }: NodeAdvertisement, name: string): string | number | undefined {
  return Object.hasOwn(attributes, name) ? attributes[name] : undefined
}
