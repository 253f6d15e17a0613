/** Tells the invariants what the observer sees, and has them looked at after every step. */
import type { Delegation } from '../../src/ticket/delegation.ts'
import type { Lease } from '../../src/ticket/lease.ts'
import { portsWithin } from '../../src/ticket/ports.ts'
import { resourcesExceeding, type Resources } from '../../src/ticket/resources.ts'
import type { PortRange } from '../../src/ticket/ports.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { AgentInvariants } from './agent-invariants.ts'
import { NodeInvariants } from './node-invariants.ts'
import type { Exchange, Observer, Witness } from './observer.ts'
import { hostsOf, type Overlay } from './overlay.ts'
import { short } from './trace.ts'

interface Link {
  readonly holder: string
  readonly resources: Resources
  readonly ports: readonly PortRange[]
  readonly notBefore: number
  readonly notAfter: number
}

export class Invariants implements Witness {
  readonly #overlay: Overlay
  readonly #nodes: ReadonlyMap<string, NodeInvariants>
  readonly #agents: ReadonlyMap<string, AgentInvariants>
  #leases = 0

  constructor(overlay: Overlay) {
    const { world, nodes, agents } = overlay
    this.#overlay = overlay
    this.#nodes = new Map(nodes.map((node) => [node.host.key.principal, new NodeInvariants(world, node)]))
    const honest = agents.filter(({ isHonest }) => isHonest)
    this.#agents = new Map(
      honest.map((agent) => [agent.host.key.principal, new AgentInvariants(world, agent)])
    )
  }

  /** How many leases were acknowledged, retries counted. */
  get leases(): number {
    return this.#leases
  }

  asked({ from, to, method, params }: Exchange): void {
    const { principal } = from.key
    if (method === 'deleteLease') {
      const lease = this.#observer.find(String(params['lease']))
      if (lease?.body['holder'] !== principal) return
      this.#nodes.get(to.key.principal)?.givenUp(String(lease.body['vserver']))
    } else if (method === 'delegate') {
      const { body } = this.#observer.open(params['delegation'] as Uint8Array)
      this.#agents.get(to.key.principal)?.delegated(body as unknown as Delegation)
    }
  }

  answered({ from, to, method, params }: Exchange, result: Readonly<Record<string, unknown>>): void {
    if ((method === 'newLease' || method === 'renewLease') && result['lease'] !== undefined) {
      const lease = this.#observer.open(result['lease'] as Uint8Array)
      this.#leases += 1
      this.#checkChain(params, lease.body as unknown as Lease, from.key.principal)
      this.#nodes.get(to.key.principal)?.acknowledged({ id: lease.id, body: lease.body as unknown as Lease })
    } else if (method === 'settleTickets') {
      const states = result['states'] as string[]
      for (const [index, bytes] of (params['tickets'] as Uint8Array[]).entries()) {
        const isOver = states[index] === 'lapsed' || states[index] === 'ended'
        if (isOver) this.#settled(to.key.principal, this.#observer.open(bytes).id)
      }
    } else if (method === 'getTickets') {
      for (const { chain = [] } of result['grants'] as { chain?: Uint8Array[] }[]) {
        const last = chain.at(-1)
        if (last === undefined) continue
        const { id, body } = this.#observer.open(last)
        // Those cut from tickets are held against these, at their node and by whoever watches for fraud.
        if (this.#observer.find(String(body['parent']))?.type !== 'delegation') continue
        this.#agents.get(to.key.principal)?.issued(id, body as unknown as Ticket)
      }
    }
  }

  /** After each step. */
  check(): void {
    for (const host of hostsOf(this.#overlay)) {
      if (!host.isChanged) continue
      host.isChanged = false
      this.#nodes.get(host.key.principal)?.check()
    }
  }

  /** Now and then. */
  checkRunning(): void {
    for (const node of this.#nodes.values()) node.checkRunning()
  }

  /** Before a clock is set, and after. */
  passTime(): void {
    for (const part of [...this.#nodes.values(), ...this.#agents.values()]) part.passTime()
  }

  #settled(node: string, ticket: string): void {
    this.#nodes.get(node)?.settled(ticket)
    for (const agent of this.#agents.values()) agent.settled(ticket)
  }

  /** A lease gives no more than its ticket, and each link no more than the one before it. */
  #checkChain(params: Exchange['params'], lease: Lease, caller: string): void {
    const bytes = [params['delegation'] as Uint8Array, ...(params['tickets'] as Uint8Array[])]
    const links = bytes.map((one) => this.#observer.open(one).body as unknown as Link)
    for (const [index, child] of [...links, lease].entries()) {
      const parent = links[index - 1]
      if (parent !== undefined && !isWithin(child, parent)) {
        this.#violated('no link gives more than it has', `lease of ticket ${short(lease.ticket)}`)
      }
    }
    if (lease.holder !== caller || links.at(-1)?.holder !== caller) {
      this.#violated('a ticket is for its holder', `ticket ${short(lease.ticket)}`)
    }
  }

  get #observer(): Observer {
    return this.#overlay.observer
  }

  #violated(invariant: string, message: string): void {
    this.#overlay.world.violated(invariant, message)
  }
}

function isWithin(child: Link, parent: Link): boolean {
  return (
    resourcesExceeding(child.resources, parent.resources).length === 0 &&
    portsWithin(child.ports, parent.ports) &&
    child.notBefore >= parent.notBefore &&
    child.notAfter <= parent.notAfter
  )
}
