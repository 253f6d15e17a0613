/**
 * What the leases of a node take, summed as admission control asks for it: in all, by agent and by ticket of the
 * chain, with their ports and names. A decision so costs the same beside a thousand leases as beside ten.
 */
import { ClaimProfile } from '../ticket/claim-profile.ts'
import type { Claim } from '../ticket/claims.ts'
import type { Interval } from '../ticket/interval.ts'
import { PortProfile, type PortClaim } from '../ticket/port-profile.ts'
import type { PortRange } from '../ticket/ports.ts'
import type { Principal } from '../ticket/principal.ts'
import type { Resources } from '../ticket/resources.ts'

/** What a lease takes of its node, and of which links of which agent's chain. */
export interface LeasedDemand extends Pick<Interval, 'notBefore'> {
  readonly resources: Resources
  readonly ports: readonly PortRange[]
  readonly vserver: string
  readonly agent: Principal
  /** Lines of the tickets of its chain, that of the redeemed one last. */
  readonly lines: readonly string[]
}

/** Leases that have something in common. */
interface Group {
  readonly profile: ClaimProfile
  /** Ids of the redeemed tickets, in the order in which they were redeemed. */
  readonly redeemed: Set<string>
}

/** Who has ports, for people. */
interface NamedClaim extends PortClaim {
  readonly by: string
}

interface Taken {
  readonly demand: LeasedDemand
  readonly claim: Claim & NamedClaim
}

export class Leased {
  readonly #byTicket = new Map<string, Taken>()
  readonly #all = new ClaimProfile()
  readonly #ports = new PortProfile<NamedClaim>()
  /** What leases that have ended keep of ports, by redeemed ticket. */
  readonly #lingering = new Map<string, NamedClaim>()
  readonly #ofAgent = new Map<Principal, Group>()
  readonly #under = new Map<string, Group>()
  /** How many leases have a name; more than one where one lease takes the place of another. */
  readonly #vservers = new Map<string, number>()

  /**
   * Counts the lease of a redeemed ticket until it is deleted, however long its term: it goes on taking what it has
   * until its virtual machine is gone.
   */
  set(ticket: string, demand: LeasedDemand): void {
    this.delete(ticket)
    const { notBefore, resources, ports, agent, lines, vserver } = demand
    const claim = { notBefore, notAfter: Infinity, resources, ports, by: `by vserver ${vserver}` }
    this.#byTicket.set(ticket, { demand, claim })
    this.#all.add(claim)
    this.#ports.add(claim)
    join(this.#ofAgent, agent, ticket, claim)
    for (const line of new Set(lines)) join(this.#under, line, ticket, claim)
    this.#vservers.set(vserver, (this.#vservers.get(vserver) ?? 0) + 1)
  }

  /** The lease of this ticket has ended, but keeps its ports to the end of its term. */
  linger(ticket: string, ended: PortClaim): void {
    this.delete(ticket)
    const until = new Date(ended.notAfter).toISOString()
    const claim = { ...ended, by: `until ${until}, by a lease that this node ended early` }
    this.#lingering.set(ticket, claim)
    this.#ports.add(claim)
  }

  /** Gives what `judge` finds where the lease of this ticket is not counted. */
  without<T>(ticket: string | undefined, judge: () => T): T {
    const taken = ticket === undefined ? undefined : this.#byTicket.get(ticket)
    if (ticket === undefined || taken === undefined) return judge()
    this.delete(ticket)
    try {
      return judge()
    } finally {
      this.set(ticket, taken.demand)
    }
  }

  /** The lease of this ticket takes nothing any more, if it did. */
  delete(ticket: string): void {
    const lingering = this.#lingering.get(ticket)
    if (lingering !== undefined) this.#ports.remove(lingering)
    this.#lingering.delete(ticket)
    const taken = this.#byTicket.get(ticket)
    if (taken === undefined) return
    const { claim, demand } = taken
    this.#byTicket.delete(ticket)
    this.#all.remove(claim)
    this.#ports.remove(claim)
    leave(this.#ofAgent, demand.agent, ticket, claim)
    for (const line of new Set(demand.lines)) leave(this.#under, line, ticket, claim)
    const named = (this.#vservers.get(demand.vserver) ?? 0) - 1
    if (named > 0) this.#vservers.set(demand.vserver, named)
    else this.#vservers.delete(demand.vserver)
  }

  /** What all leases take. */
  get all(): ClaimProfile {
    return this.#all
  }

  ofAgent(agent: Principal): ClaimProfile | undefined {
    return this.#ofAgent.get(agent)?.profile
  }

  /** What the leases take whose chain has a ticket of this line: one claim, however many tickets it has. */
  under(line: string): ClaimProfile | undefined {
    return this.#under.get(line)?.profile
  }

  /** The first of `ports` that a lease has, and which lease, for people. */
  conflict(
    ports: readonly PortRange[],
    window: Interval
  ): { readonly port: PortRange; readonly by: string } | undefined {
    const found = this.#ports.conflict(ports, window)
    return found && { port: found.port, by: found.claim.by }
  }

  isNamed(vserver: string): boolean {
    return this.#vservers.has(vserver)
  }

  /** Ids of the redeemed tickets, `max` at most. */
  redeemedOfAgent(agent: Principal, max: number): string[] {
    return firstOf(this.#ofAgent.get(agent), max)
  }

  redeemedUnder(line: string, max: number): string[] {
    return firstOf(this.#under.get(line), max)
  }
}

function join(groups: Map<string, Group>, name: string, ticket: string, claim: Claim): void {
  const group = groups.get(name) ?? { profile: new ClaimProfile(), redeemed: new Set() }
  groups.set(name, group)
  group.profile.add(claim)
  group.redeemed.add(ticket)
}

function leave(groups: Map<string, Group>, name: string, ticket: string, claim: Claim): void {
  const group = groups.get(name)
  group?.profile.remove(claim)
  group?.redeemed.delete(ticket)
  if (group?.redeemed.size === 0) groups.delete(name)
}

function firstOf(group: Group | undefined, max: number): string[] {
  return group === undefined ? [] : [...group.redeemed.values().take(max)]
}
