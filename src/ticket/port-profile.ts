/**
 * Which ports are taken when, over claims that come and go one by one: kept by groups of neighbouring ports, so that
 * a question looks at the few claims near the port and not at all of them.
 */
import { overlaps, type Interval } from './interval.ts'
import { portsOverlap, type PortRange } from './ports.ts'

export interface PortClaim extends Interval {
  readonly ports: readonly PortRange[]
}

const PORTS_PER_GROUP = 256

export class PortProfile {
  readonly #groups = new Map<string, Set<PortClaim>>()

  /** Again is the same as once. */
  add(claim: PortClaim): void {
    for (const group of groupsOf(claim.ports)) {
      const claims = this.#groups.get(group) ?? new Set()
      this.#groups.set(group, claims.add(claim))
    }
  }

  /** Takes out the very claim that was added, if it is there. */
  remove(claim: PortClaim): void {
    for (const group of groupsOf(claim.ports)) {
      const claims = this.#groups.get(group)
      claims?.delete(claim)
      if (claims?.size === 0) this.#groups.delete(group)
    }
  }

  /** The first of `ports` of which a claim has a port at an instant of `window`. */
  conflict(ports: readonly PortRange[], window: Interval): PortRange | undefined {
    return ports.find((range) => {
      for (const group of groupsOf([range])) {
        for (const claim of this.#groups.get(group) ?? []) {
          if (overlaps(claim, window) && portsOverlap([range], claim.ports)) return true
        }
      }
      return false
    })
  }
}

function* groupsOf(ports: readonly PortRange[]): Iterable<string> {
  for (const { protocol, first, last } of ports) {
    const lastGroup = Math.floor(last / PORTS_PER_GROUP)
    for (let group = Math.floor(first / PORTS_PER_GROUP); group <= lastGroup; group++) {
      yield `${protocol}/${group}`
    }
  }
}
