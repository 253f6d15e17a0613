/** What must be true of an honest agent: what it has issued and may still be redeemed is never more than it was delegated. */
import { overlaps } from '../../src/ticket/interval.ts'
import { portsOverlap } from '../../src/ticket/ports.ts'
import type { Principal } from '../../src/ticket/principal.ts'
import {
  NO_RESOURCES,
  addResources,
  largerResources,
  resourcesExceeding,
  scaleResources,
  type Resources
} from '../../src/ticket/resources.ts'
import type { Delegation } from '../../src/ticket/delegation.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import type { AgentActor } from './overlay.ts'
import type { World } from './world.ts'

/** An agent takes a ticket for over this long after its end. */
const SKEW_MS = 60_000

export class AgentInvariants {
  readonly #world: World
  readonly #agent: AgentActor
  readonly #limits = new Map<Principal, Resources>()
  readonly #counting = new Map<string, Ticket & { readonly line: string }>()
  /** The latest that it ever was by the agent's clock, UTC ms: tickets that were over then are forgotten. */
  #latest = 0

  constructor(world: World, agent: AgentActor) {
    this.#world = world
    this.#agent = agent
  }

  delegated({ issuer, resources, overbookPercent }: Delegation): void {
    this.#limits.set(issuer, scaleResources(resources, overbookPercent))
  }

  passTime(): void {
    this.#latest = Math.max(this.#latest, this.#agent.host.wall)
  }

  /** The node said that a ticket can no longer be redeemed. */
  settled(ticket: string): void {
    this.#counting.delete(ticket)
  }

  issued(id: string, ticket: Ticket): void {
    this.passTime()
    for (const [known, { notAfter }] of this.#counting) {
      if (notAfter <= this.#latest - SKEW_MS) this.#counting.delete(known)
    }
    const line = ticket.supersedes ?? id
    const ofNode = [...this.#counting.values()].filter(({ node }) => node === ticket.node)
    const others = ofNode.filter((one) => one.line !== line && overlaps(one, ticket))
    if (others.some(({ ports }) => portsOverlap(ports, ticket.ports))) {
      this.#violated(`a port of ticket ${id} is in another`)
    }
    const counted = { ...ticket, line }
    this.#counting.set(id, counted)
    ofNode.push(counted)
    const limit = this.#limits.get(ticket.node)
    if (limit === undefined) return this.#violated('a ticket without a delegation')
    // A sum only grows where a term begins.
    for (const { notBefore } of ofNode) {
      const instant = Math.max(notBefore, this.#latest - SKEW_MS)
      const then = ofNode.filter((one) => one.notBefore <= instant && instant < one.notAfter)
      // Of one line the largest counts.
      const lines = Map.groupBy(then, (one) => one.line)
      const sum = [...lines.values()]
        .map((ofLine) => ofLine.map(({ resources }) => resources).reduce(largerResources))
        .reduce(addResources, NO_RESOURCES)
      const [over] = resourcesExceeding({ ...sum, cpuMillisMax: 0, egressBpsMax: 0 }, limit)
      if (over !== undefined) this.#violated(`${sum[over]} of ${limit[over]} ${over}`)
    }
  }

  #violated(message: string): void {
    this.#world.violated('an honest agent issues no more than it may', `${this.#agent.host.name}: ${message}`)
  }
}
