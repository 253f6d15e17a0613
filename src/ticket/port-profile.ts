/**
 * Which ports are taken when, over claims that come and go one by one: kept by groups of neighbouring ports, so that
 * a question looks at the few claims near the port and not at all of them.
 */
import { overlaps, type Interval } from './interval.ts'
import { portMax, portsOverlap, type PortRange } from './ports.ts'

export interface PortClaim extends Interval {
  readonly ports: readonly PortRange[]
}

/** There are 256 groups of each protocol, so that the widest range is in no more. */
const GROUPS = 256

export class PortProfile<C extends PortClaim = PortClaim> {
  readonly #groups = new Map<string, Set<C>>()

  /** Again is the same as once. */
  add(claim: C): void {
    for (const group of portGroups(claim.ports)) {
      const claims = this.#groups.get(group) ?? new Set()
      this.#groups.set(group, claims.add(claim))
    }
  }

  /** Takes out the very claim that was added, if it is there. */
  remove(claim: C): void {
    for (const group of portGroups(claim.ports)) {
      const claims = this.#groups.get(group)
      claims?.delete(claim)
      if (claims?.size === 0) this.#groups.delete(group)
    }
  }

  /** The first of `ports` of which a claim has a port at an instant of `window`, and that claim. */
  conflict(
    ports: readonly PortRange[],
    window: Interval,
    counts: (claim: C) => boolean = () => true
  ): { readonly port: PortRange; readonly claim: C } | undefined {
    for (const port of ports) {
      for (const group of portGroups([port])) {
        for (const claim of this.#groups.get(group) ?? []) {
          if (overlaps(claim, window) && portsOverlap([port], claim.ports) && counts(claim)) {
            return { port, claim }
          }
        }
      }
    }
    return undefined
  }
}

function* portGroups(ports: readonly PortRange[]): Iterable<string> {
  for (const { protocol, first, last } of ports) {
    const size = Math.ceil((portMax(protocol) + 1) / GROUPS)
    const lastGroup = Math.floor(last / size)
    for (let group = Math.floor(first / size); group <= lastGroup; group++) {
      yield `${protocol}/${group}`
    }
  }
}
