/**
 * What must be true of a node at every step, told in what it has said and in what runs on its machine: it never
 * promises more than it has, it keeps what it has promised, and nothing runs that is not leased.
 */
import type { Lease } from '../../src/ticket/lease.ts'
import { portsOverlap, type PortRange } from '../../src/ticket/ports.ts'
import { NO_RESOURCES, addResources, resourcesExceeding, type Resources } from '../../src/ticket/resources.ts'
import type { NodeActor } from './overlay.ts'
import { short } from './trace.ts'
import { BEGINNING, type World } from './world.ts'

interface Acknowledged {
  readonly id: string
  readonly body: Lease
}

/** How long a node may take to bring what runs in line with what is leased. */
const GRACE_MS = 5000

export class NodeInvariants {
  readonly #world: World
  readonly #node: NodeActor
  /** Leases that the node has acknowledged and that must be in force. */
  readonly #promised = new Map<string, Acknowledged>()
  readonly #leaseOfTicket = new Map<string, string>()
  readonly #settled = new Set<string>()
  /** Virtual machines that their holders want to end. */
  readonly #given = new Set<string>()
  /** Leases that others go on with. */
  readonly #renewed = new Set<string>()
  /** As late as it can be by the node's own clock, UTC ms: that follows the wall clock forward, but never back. */
  #latest = 0
  #latestAt = 0

  constructor(world: World, node: NodeActor) {
    this.#world = world
    this.#node = node
  }

  acknowledged(lease: Acknowledged): void {
    const { ticket } = lease.body
    const before = this.#leaseOfTicket.get(ticket)
    if (before !== undefined && before !== lease.id) {
      this.#violated(
        'a ticket is redeemed at most once',
        `${short(ticket)} as ${short(before)} and ${short(lease.id)}`
      )
    }
    if (this.#settled.has(ticket)) {
      this.#violated(
        'what is settled stays so',
        `ticket ${short(ticket)} was redeemed after it was said to be over`
      )
    }
    this.#leaseOfTicket.set(ticket, lease.id)
    const { prev, vserver } = lease.body
    if (prev !== undefined) {
      this.#renewed.add(prev)
      this.#promised.delete(prev)
    }
    if (!this.#given.has(vserver) && !this.#renewed.has(lease.id)) this.#promised.set(lease.id, lease)
  }

  /** The node said that a ticket can no longer be redeemed. */
  settled(ticket: string): void {
    this.#settled.add(ticket)
  }

  /** The holder asks for the end of its lease. */
  givenUp(vserver: string): void {
    this.#given.add(vserver)
    for (const [id, { body }] of this.#promised) if (body.vserver === vserver) this.#promised.delete(id)
  }

  /** The clock of the node was set, or time has passed. */
  passTime(): void {
    const { now } = this.#world.scheduler
    this.#latest = Math.max(this.#latest + (now - this.#latestAt), this.#node.host.wall)
    this.#latestAt = now
  }

  /** At each step at which something happened on the node. */
  check(): void {
    this.passTime()
    for (const [id, { body }] of this.#promised) if (body.notAfter <= this.#latest) this.#promised.delete(id)
    const promised = [...this.#promised.values()].map(({ body }) => body)
    this.#checkRoom('leases in force', promised)
    this.#checkRoom(
      'virtual machines',
      [...this.#node.machine.vservers.values()].map(({ spec }) => spec)
    )
    const table = this.#node.manager?.table
    if (table === undefined) return
    for (const { id, body } of this.#promised.values()) {
      const state = table.current(id)?.state ?? 'unknown'
      if (state === 'active') continue
      this.#violated('an acknowledged lease is kept', `${short(id)} of ${body.slice} is ${state}`)
      this.#promised.delete(id)
    }
  }

  /** Now and then: what runs is what is leased, once the node had the time to see to it. */
  checkRunning(): void {
    const { host, machine, manager } = this.#node
    const { now } = this.#world.scheduler
    const process = host.process
    if (manager === undefined || process === undefined || process.store.hasFailed || machine.inWork > 0)
      return
    if (now - Math.max(process.startedAt, machine.lastFailureAt, host.clockSetAt) < GRACE_MS) return
    const holding = new Map(manager.table.holding().map((record) => [record.lease.body.vserver, record]))
    for (const id of machine.vservers.keys()) {
      if (!holding.has(id)) this.#violated('what runs is leased', `${id} runs without a lease`)
    }
    for (const [id, { state, lease }] of holding) {
      const { notAfter } = lease.body
      if (state === 'active' && host.wall >= notAfter + GRACE_MS) {
        this.#violated('leases end', `${id} should have ended at ${notAfter - BEGINNING}`)
      }
      if (
        state === 'active' &&
        notAfter > this.#latest &&
        !machine.vservers.has(id) &&
        !machine.notMade.has(id)
      ) {
        this.#violated('what is leased runs', `${id} is leased and does not run`)
      }
    }
  }

  #checkRoom(what: string, claims: readonly { resources: Resources; ports: readonly PortRange[] }[]): void {
    const { capacity } = this.#node
    const sum = claims.reduce((total, { resources }) => addResources(total, resources), NO_RESOURCES)
    const [over] = resourcesExceeding({ ...sum, cpuMillisMax: 0, egressBpsMax: 0 }, capacity)
    if (over !== undefined) {
      this.#violated('no more than there is', `${what}: ${sum[over]} of ${capacity[over]} ${over}`)
    }
    for (const [index, { ports }] of claims.entries()) {
      const other = claims.slice(index + 1).find((claim) => portsOverlap(ports, claim.ports))
      if (other !== undefined) this.#violated('a port has one owner', `${what}: ${JSON.stringify(ports)}`)
    }
  }

  #violated(invariant: string, message: string): void {
    this.#world.violated(invariant, `${this.#node.host.name}: ${message}`)
  }
}
