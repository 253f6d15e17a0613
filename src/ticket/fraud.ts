/**
 * What is fraud, and what is not: from signed objects alone, so that a stranger comes to the same answer, and so that
 * who kept to the rules can never be shown guilty, whoever conspires against them (design §3). Pure.
 */
import type { NodeAdvertisement } from './advertisement.ts'
import type { AnyObject } from './any-object.ts'
import { linkFault } from './chain.ts'
import type { Delegation } from './delegation.ts'
import type { FraudKind } from './fraud-proof.ts'
import { contains, overlaps, type Interval } from './interval.ts'
import type { Lease } from './lease.ts'
import { formatPortRange, portsOverlap } from './ports.ts'
import type { Principal } from './principal.ts'
import {
  largerResources,
  NO_RESOURCES,
  scaleResources,
  SUMMED_RESOURCES,
  type ResourceName,
  type Resources
} from './resources.ts'
import type { Signed, SignedFields } from './signed-object.ts'
import { surrenderObject } from './surrender.ts'
import { lineOf, type Ticket } from './ticket.ts'

/** A fraud that was found, with the least evidence that shows it. */
export interface Finding {
  readonly kind: FraudKind
  readonly accused: Principal
  /** What the evidence comes to, one sentence without a full stop. */
  readonly message: string
  readonly evidence: readonly Signed<SignedFields>[]
}

/** What tickets are cut from. */
export type Parent = Signed<Delegation> | Signed<Ticket>

/** Whether a ticket counts against what `parent` allows. */
export function countsUnder(ticket: Signed<Ticket>, parent: Parent): boolean {
  const { body } = ticket
  if (body.issuer !== parent.body.holder || body.node !== nodeOf(parent)) return false
  return body.parent === parent.id || ('counts' in parent.body && parent.body.counts.includes(ticket.id))
}

/** What may be cut from a parent at any instant. */
export function issuable(parent: Parent): Resources {
  return 'overbookPercent' in parent.body
    ? scaleResources(parent.body.resources, parent.body.overbookPercent)
    : parent.body.resources
}

/** Whether the holder of `parent` issued more under it than it may, by those of `tickets` that count. */
export function overIssued(parent: Parent, tickets: readonly Signed<Ticket>[]): Finding | undefined {
  const accused = parent.body.holder
  const counting = [...new Map(tickets.map((ticket) => [ticket.id, ticket])).values()].filter((ticket) =>
    countsUnder(ticket, parent)
  )
  for (const ticket of counting) {
    const fault = ticket.body.parent === parent.id ? linkFault(ticket, parent) : undefined
    if (fault === undefined) continue
    return { kind: 'over-issued', accused, message: fault.message, evidence: [parent, ticket] }
  }
  const twice = portIssuedTwice(parent.id, counting)
  if (twice !== undefined) {
    const { port, between } = twice
    const message = `${port} was given to two holders at one instant`
    return { kind: 'over-issued', accused, message, evidence: [parent, ...between] }
  }
  const excess = findExcess(
    counting.map((ticket) => ({
      group: lineOf(ticket),
      ...intervalOf(ticket),
      of: ticket,
      isDeed: ticket.body.parent === parent.id
    })),
    issuable(parent)
  )
  if (excess === undefined) return undefined
  const message = `${excess.resource}: tickets for ${excess.sum} at one instant, where ${excess.limit} may be issued`
  return { kind: 'over-issued', accused, message, evidence: [parent, ...excess.members] }
}

function portIssuedTwice(
  parent: string,
  tickets: readonly Signed<Ticket>[]
): { port: string; between: readonly Signed<Ticket>[] } | undefined {
  const withPorts = tickets.filter(({ body }) => body.ports.length > 0)
  // There may be thousands of them, of which every two are compared.
  const byLine = [...Map.groupBy(withPorts, lineOf)]
  for (const [line, deeds] of byLine) {
    const others = byLine.filter(([other]) => other !== line).flatMap(([, ofLine]) => ofLine)
    const twice = portOfBoth(
      deeds.filter(({ body }) => body.parent === parent),
      others
    )
    if (twice !== undefined) return twice
  }
  return undefined
}

function portOfBoth(
  deeds: readonly Signed<Ticket>[],
  others: readonly Signed<Ticket>[]
): { port: string; between: readonly Signed<Ticket>[] } | undefined {
  for (const one of deeds) {
    for (const other of others) {
      if (!overlaps(one.body, other.body)) continue
      const port = one.body.ports.find((range) => portsOverlap([range], other.body.ports))
      if (port !== undefined) return { port: formatPortRange(port), between: [one, other] }
    }
  }
  return undefined
}

/** Whether two objects have the one sequence number that only one of them may have. */
export function equivocation(one: AnyObject, other: AnyObject): Finding | undefined {
  const place = sequencePlace(one)
  if (place === undefined || place !== sequencePlace(other) || one.object.id === other.object.id)
    return undefined
  const { issuer, seq } = one.object.body
  return {
    kind: 'equivocation',
    accused: issuer,
    message: `two of type ${one.type} have the sequence number ${seq}`,
    evidence: [one.object, other.object]
  }
}

/** Names what only one object may have; `undefined` for types whose numbers only order them. */
export function sequencePlace({ type, object }: AnyObject): string | undefined {
  const { issuer, seq } = object.body
  if (type === 'delegation' || type === 'lease') return `${type} ${issuer} ${seq}`
  // An agent numbers its tickets for each node by itself.
  return type === 'ticket' ? `${type} ${issuer} ${object.body.node} ${seq}` : undefined
}

/** Whether a node delegated more at one instant than it said in its advertisement. */
export function overDelegated(
  advert: Signed<NodeAdvertisement>,
  delegations: readonly Signed<Delegation>[]
): Finding | undefined {
  const { issuer, epoch, capacity, delegatedPercent } = advert.body
  // A later start of the node may say otherwise, and does not make this advert a lie.
  const counting = delegations.filter(
    ({ body }) => body.issuer === issuer && body.epoch <= epoch && overlaps(body, advert.body)
  )
  const excess = findExcess(
    counting.map((delegation) => ({
      // A later delegation replaces an earlier one of the same holder.
      group: delegation.body.holder,
      resources: delegation.body.resources,
      notBefore: Math.max(delegation.body.notBefore, advert.body.notBefore),
      notAfter: Math.min(delegation.body.notAfter, advert.body.notAfter),
      of: delegation,
      isDeed: true
    })),
    scaleResources(capacity, delegatedPercent)
  )
  if (excess === undefined) return undefined
  const message = `${excess.resource}: ${excess.sum} delegated at one instant, where ${excess.limit} were declared`
  return { kind: 'over-delegated', accused: issuer, message, evidence: [advert, ...excess.members] }
}

/** Whether a node leased one port to two virtual machines at one instant, neither of which had been given up. */
export function portLeasedTwice(one: Signed<Lease>, other: Signed<Lease>): Finding | undefined {
  const [a, b] = [one.body, other.body]
  if (one.id === other.id || a.issuer !== b.issuer || !overlaps(a, b)) return undefined
  const port = a.ports.find((range) => portsOverlap([range], b.ports))
  if (port === undefined || (a.holder === b.holder && a.vserver === b.vserver)) return undefined
  if (isReleased(a, b) || isReleased(b, a)) return undefined
  const message = `${formatPortRange(port)} was leased to ${a.vserver} and to ${b.vserver} at one instant`
  return { kind: 'port-leased-twice', accused: a.issuer, message, evidence: [one, other] }
}

/** Whether `after` shows that the holder of `before` had given it up. */
function isReleased(before: Lease, after: Lease): boolean {
  return (after.released ?? []).some((bytes) => {
    try {
      const { issuer, node, vserver } = surrenderObject.open(bytes).body
      return issuer === before.holder && node === before.issuer && vserver === before.vserver
    } catch {
      return false
    }
  })
}

function nodeOf(parent: Parent): Principal {
  return 'node' in parent.body ? parent.body.node : parent.body.issuer
}

function intervalOf({ body }: Signed<Ticket>): Interval & { readonly resources: Resources } {
  return { notBefore: body.notBefore, notAfter: body.notAfter, resources: body.resources }
}

interface Grouped<T> extends Interval {
  /** Claims of one group are never added to each other: the largest counts. */
  readonly group: string
  readonly resources: Resources
  readonly of: T
  /** Whether making it was up to the accused; what was there before only counts. */
  readonly isDeed: boolean
}

interface Excess<T> {
  readonly resource: ResourceName
  readonly sum: number
  readonly limit: number
  /** Enough of them to pass the limit, the largest first. */
  readonly members: readonly T[]
}

function findExcess<T>(claims: readonly Grouped<T>[], limit: Resources): Excess<T> | undefined {
  const isPossible = SUMMED_RESOURCES.some((name) => peakOf(claims, name) > limit[name])
  if (!isPossible) return undefined
  // A sum only grows where a claim begins, so it is enough to look at those instants.
  for (const instant of new Set(claims.map(({ notBefore }) => notBefore))) {
    const then = claims.filter((claim) => contains(claim, instant))
    const deed = then.find(({ isDeed }) => isDeed)
    if (deed === undefined) continue
    for (const resource of SUMMED_RESOURCES) {
      const members: T[] = []
      let sum = 0
      for (const { resources, of } of largestByGroup(then, resource)) {
        members.push(of)
        sum += resources[resource]
        if (sum <= limit[resource]) continue
        if (!members.includes(deed.of)) members.push(deed.of)
        return { resource, sum, limit: limit[resource], members }
      }
    }
  }
  return undefined
}

function largestByGroup<T>(claims: readonly Grouped<T>[], name: ResourceName): Grouped<T>[] {
  const largest = new Map<string, Grouped<T>>()
  for (const claim of claims) {
    const known = largest.get(claim.group)
    if (known === undefined || known.resources[name] < claim.resources[name]) largest.set(claim.group, claim)
  }
  return [...largest.values()].sort((a, b) => b.resources[name] - a.resources[name])
}

/** The most that all claims come to at one instant, those of one group added as well: never less than what counts. */
function peakOf<T>(claims: readonly Grouped<T>[], name: ResourceName): number {
  const changes = claims.flatMap(({ notBefore, notAfter, resources }) => [
    { at: notBefore, by: resources[name] },
    { at: notAfter, by: -resources[name] }
  ])
  // What ends at an instant is gone when something begins at it.
  changes.sort((a, b) => a.at - b.at || a.by - b.by)
  let [sum, peak] = [0, 0]
  for (const { by } of changes) {
    sum += by
    peak = Math.max(peak, sum)
  }
  return peak
}

/** In percent of `capacity`, rounded up, the most that a node has delegated if each holder has at most what is given. */
export function delegatedPercent(byHolder: Iterable<Resources>, capacity: Resources): number {
  let sum = NO_RESOURCES
  for (const resources of byHolder) {
    sum = SUMMED_RESOURCES.reduce((total, name) => ({ ...total, [name]: total[name] + resources[name] }), sum)
  }
  const percents = SUMMED_RESOURCES.filter((name) => sum[name] > 0).map((name) =>
    Math.ceil((sum[name] * 100) / Math.max(1, capacity[name]))
  )
  return Math.max(0, ...percents)
}

/** Of several delegations of one holder, what each resource is at most. */
export function ceilingOf(delegated: readonly Resources[]): Resources {
  return delegated.reduce(largerResources, NO_RESOURCES)
}
