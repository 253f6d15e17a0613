/**
 * Whether others can dial this peer, by what it saw itself. Answers of others count only against it, where believing a lie
 * costs a slot at a relay and no more. Pure.
 */
import { isLoopback, isPrivate } from './address-kinds.ts'

/** `unknown` until there is anything to go by. */
export type ReachVerdict = 'reachable' | 'unreachable' | 'unknown'

/** How a peer that this one dialed directly sees it. */
export interface Sighting {
  /** The host that this peer's connection comes from, as the other says. */
  readonly as: string
  /** The host of the other. */
  readonly by: string
}

export interface ReachEvidence {
  /** Whether its operator says where it is. */
  readonly isAnnounced: boolean
  /** Hosts that it listens on, none when it only dials. */
  readonly hosts: readonly string[]
  readonly sightings: readonly Sighting[]
  /** Hosts that dialed it. */
  readonly dialedBy: readonly string[]
  /** How many of those that were asked to dial it could not. */
  readonly missedBy: number
}

export function judgeReach(evidence: ReachEvidence): ReachVerdict {
  const { hosts, dialedBy, missedBy } = evidence
  if (evidence.isAnnounced) return 'reachable'
  if (hosts.length === 0) return 'unreachable'
  const sightings = tellingSightings(evidence)
  const translated = sightings.filter(({ as }) => !hosts.includes(as))
  // At a tie as well: taken for reachable by mistake it would be lost to the others.
  if (translated.length * 2 >= sightings.length && translated.length > 0) return 'unreachable'
  if (dialedBy.some((host) => counts(host, hosts))) return 'reachable'
  return missedBy > 0 ? 'unreachable' : 'unknown'
}

/** A peer on the same LAN sees what is so, and says nothing of the world outside. */
function tellingSightings({ hosts, sightings }: ReachEvidence): readonly Sighting[] {
  const outside = sightings.filter(({ by }) => !isPrivate(by))
  return outside.length > 0 ? outside : sightings.filter(({ by }) => counts(by, hosts))
}

/** Whether a peer at that host shows anything about a peer at those. */
function counts(host: string, hosts: readonly string[]): boolean {
  return !isLoopback(host) || hosts.every(isLoopback)
}
