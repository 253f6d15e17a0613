/**
 * Who a vserver talks to for the first time: what a scan is made of. Such packets have a bucket of their own, and beyond a
 * number of new destinations a minute they are dropped.
 */
import { LIMITS } from '../../base/limits.ts'
import type { LinkPlan } from './address-plan.ts'
import { drop } from './drop-chains.ts'
import { USER_BLOCK } from './drop-counts.ts'

/** The table that all of this is in; `vserver-table.ts` makes it. */
export const VSERVER_TABLE = 'inet slicenet'
/** The verdict on what is too much. */
const DROP = drop('destinations')

/**
 * How long a destination is known after it was new. It is not kept for longer when there are more connections to it: so what
 * a vserver has in the set follows from how fast it may add to it.
 */
const KNOWN_FOR = '1h'
/** What may be added at once to those that a vserver has known, and in an hour beside it: of all that it may have. */
const KNOWN_AT_ONCE = 0.5
/** The part of a minute's worth that may come at once. */
const AT_ONCE = 0.25

/** How nft tells who talks to somebody. */
export interface Talkers {
  /** Of the names of sets and chains. */
  readonly prefix: '' | 'user_'
  /** One for each, and the declaration of a set of these. */
  readonly who: string
  readonly whoSet: string
  /** What looks at those whose lease allows less than the policy does: its declaration, and the rule that asks it. */
  readonly fewer: { readonly declaration: string; readonly rule: string }
  /** What stands before the destination among those that are known, of each family, and the declarations of these. */
  readonly from: { readonly ip: string; readonly ip6: string }
  readonly knownSet: { readonly ip: string; readonly ip6: string }
}

/** Vservers with a link. */
export const LINKS: Talkers = {
  prefix: '',
  who: 'iifname',
  whoSet: 'type ifname',
  fewer: {
    declaration: 'map fewer_destinations { type ifname : verdict; }',
    rule: 'iifname vmap @fewer_destinations'
  },
  from: { ip: 'ip saddr', ip6: 'ip6 saddr' },
  knownSet: { ip: 'type ipv4_addr . ipv4_addr', ip6: 'type ipv6_addr . ipv6_addr' }
}
/** Those that share the node's network. */
export const USERS: Talkers = {
  prefix: 'user_',
  who: USER_BLOCK,
  whoSet: 'typeof meta skuid',
  fewer: { declaration: 'chain user_fewer_destinations {\n  }', rule: 'jump user_fewer_destinations' },
  from: { ip: USER_BLOCK, ip6: USER_BLOCK },
  knownSet: { ip: 'typeof meta skuid . ip daddr', ip6: 'typeof meta skuid . ip6 daddr' }
}

/**
 * Sets and the chain `destinations`, for nft, within the table of vservers. `classify`: rules that put what is new in its class.
 * There is room for what all may have known; of one that knows as many as it may, others count as new: they pass, as slowly and
 * as rarely as new ones do.
 */
export function destinationRules(
  { destinationsPerMinute, knownDestinationsMax }: DestinationBounds,
  { prefix, who, whoSet, fewer, from, knownSet }: Talkers,
  classify: readonly string[]
): string {
  const room = `flags dynamic, timeout; timeout ${KNOWN_FOR}; size ${knownDestinationsMax * LIMITS.linksPerNodeMax}`
  const set = (name: string): string => `@${prefix}${name}`
  return `
  set ${prefix}destinations { ${knownSet.ip}; ${room}; }
  set ${prefix}destinations6 { ${knownSet.ip6}; ${room}; }
  set ${prefix}known_rates { ${whoSet}; flags dynamic, timeout; timeout ${KNOWN_FOR}; }
  ${fewer.declaration}
  set ${prefix}destination_rates { ${whoSet}; flags dynamic, timeout; timeout 2m; }
  chain ${prefix}destinations {
    ${from.ip} . ip daddr ${set('destinations')} return
    ${from.ip6} . ip6 daddr ${set('destinations6')} return
    ${fewer.rule}
    update ${set('destination_rates')} { ${who} ${rateOver(destinationsPerMinute)} } ${DROP}
    # What is allowed counts as new whether or not it is remembered.
    ${classify.join('\n    ')}
    update ${set('known_rates')} { ${who} ${knownOver(knownDestinationsMax)} } return
    add ${set('destinations')} { ${from.ip} . ip daddr }
    add ${set('destinations6')} { ${from.ip6} . ip6 daddr }
  }`
}

/** What a vserver may have, for itself. */
export interface DestinationBounds {
  readonly destinationsPerMinute: number
  /** That it began to talk to within the last hour and that count as known. */
  readonly knownDestinationsMax: number
}

/** Of what was added in any hour, and so of what is there, this is never less than all. */
function knownOver(max: number): string {
  const atOnce = Math.floor(max * KNOWN_AT_ONCE)
  return `limit rate over ${max - atOnce}/hour burst ${atOnce} packets`
}

/** What may come at once and what is added in a minute are never more than the minute's worth together. */
function rateOver(perMinute: number): string {
  const atOnce = Math.floor(perMinute * AT_ONCE)
  return `limit rate over ${perMinute - atOnce}/minute burst ${atOnce} packets`
}

/** Lines for nft that hold a link to fewer new destinations a minute than the policy allows; none where it may have all. */
export function fewerDestinationsLines({ device }: LinkPlan, perMinute: number | undefined): string[] {
  if (perMinute === undefined) return []
  const chain = `${VSERVER_TABLE} ${chainOf(device)}`
  return [
    `add chain ${chain}`,
    `flush chain ${chain}`,
    `add rule ${chain} ${rateOver(perMinute)} ${DROP}`,
    `add element ${VSERVER_TABLE} ${fewerElement(device)}`
  ]
}

/** Lines for nft that take this away again; adding first makes deleting certain. */
export function fewerDestinationsRemoval({ device }: LinkPlan, perMinute: number | undefined): string[] {
  if (perMinute === undefined) return []
  const chain = `${VSERVER_TABLE} ${chainOf(device)}`
  return [
    `add chain ${chain}`,
    `add element ${VSERVER_TABLE} ${fewerElement(device)}`,
    `delete element ${VSERVER_TABLE} ${fewerElement(device)}`,
    `flush chain ${chain}`,
    `delete chain ${chain}`
  ]
}

/** A line for nft that does the same for users, in an empty chain. What each has used of its minute is forgotten with the chain. */
export function fewerOfUsersLine(ids: string, perMinute: number): string {
  return `add rule ${VSERVER_TABLE} user_fewer_destinations meta skuid ${ids} ${rateOver(perMinute)} ${DROP}`
}

function fewerElement(device: string): string {
  return `fewer_destinations { "${device}" : jump ${chainOf(device)} }`
}

function chainOf(device: string): string {
  return `new_of_${device}`
}

/** Lines for nft that forget how much one, as the sets have it, has used of its minute and its hour; adding first makes deleting certain. */
export function destinationRateRemoval(
  { talkers, key }: { readonly talkers: Talkers; readonly key: string },
  { destinationsPerMinute, knownDestinationsMax }: DestinationBounds
): string[] {
  return [
    ['destination_rates', rateOver(destinationsPerMinute)],
    ['known_rates', knownOver(knownDestinationsMax)]
  ].flatMap(([set, limit]) => [
    `add element ${VSERVER_TABLE} ${talkers.prefix}${set} { ${key} ${limit} }`,
    `delete element ${VSERVER_TABLE} ${talkers.prefix}${set} { ${key} }`
  ])
}
