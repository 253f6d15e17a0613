/** A node manager with a fake monitor, a store and a clock that the test owns, called as peers call it. */
import { silentLogger } from '../../src/base/log.ts'
import type { AdministrativePolicy } from '../../src/node/administration.ts'
import type { AuditTrail } from '../../src/node/audit-trail.ts'
import { auditedHandlers } from '../../src/node/audited-handlers.ts'
import { NodeManager } from '../../src/node/node-manager.ts'
import type { DelegationRules } from '../../src/node/redemption.ts'
import { nodeHandlers } from '../../src/node/node-service.ts'
import type { Caller } from '../../src/protocol/method.ts'
import { nodeProtocol, type TicketState } from '../../src/protocol/node-protocol.ts'
import type { Accepts } from '../../src/ticket/accepts.ts'
import type { Delegation } from '../../src/ticket/delegation.ts'
import { leaseObject, type Lease } from '../../src/ticket/lease.ts'
import type { Principal, SigningKey } from '../../src/ticket/principal.ts'
import type { Redeem } from '../../src/ticket/redeem.ts'
import { refusalObject, type Refusal } from '../../src/ticket/refusal.ts'
import type { Finding } from '../../src/ticket/fraud.ts'
import { FraudWatch } from '../../src/ticket/fraud-watch.ts'
import { NO_RESOURCES, addResources, type Resources } from '../../src/ticket/resources.ts'
import type { Signed } from '../../src/ticket/signed-object.ts'
import { surrenderObject, type Surrender } from '../../src/ticket/surrender.ts'
import type { Ticket } from '../../src/ticket/ticket.ts'
import { FaultyStore } from '../base/faulty-store.ts'
import { ManualClock } from '../base/manual-clock.ts'
import { FaultyEnforcer } from '../enforce/faulty-enforcer.ts'
import { localCaller } from '../protocol/local-caller.ts'
import { HOUR, NOW, amounts, demand, makeKey } from '../ticket/fixtures.ts'

export const CAPACITY = amounts(10)

export interface NodeLab {
  readonly key: SigningKey
  /** Frauds that the node saw, in order. */
  readonly findings: readonly Finding[]
  readonly clock: ManualClock
  readonly store: FaultyStore
  readonly enforcer: FaultyEnforcer
  readonly manager: NodeManager
  as(principal: Principal): Caller<typeof nodeProtocol.methods>
  /** Another process over the same key, disk, clock and machine; the one before is gone. */
  restart(): Promise<NodeLab>
  /** The sum of what leases take that are not over. */
  leased(): Resources
}

type From = Partial<Pick<NodeLab, 'key' | 'clock' | 'store' | 'enforcer'>> & {
  readonly delegations?: DelegationRules
  readonly accepts?: Accepts
  readonly administrative?: AdministrativePolicy
  readonly audit?: AuditTrail
  readonly address?: () => string
  readonly obtainImage?: (image: string) => Promise<void>
}

export async function nodeLab(from: From = {}): Promise<NodeLab> {
  const key = from.key ?? makeKey()
  const clock = from.clock ?? new ManualClock()
  const enforcer = from.enforcer ?? new FaultyEnforcer({ clock })
  const watch = new FraudWatch()
  const findings: Finding[] = []
  const store = await FaultyStore.open(from.store?.disk)
  const manager = new NodeManager(
    {
      key,
      store,
      enforcer: asLongAs(store, enforcer),
      clock,
      logger: silentLogger,
      delegations: from.delegations ?? { fault: () => undefined, isAgent: () => true, freed: () => {} },
      observe(object) {
        const found = watch.observe(object)
        findings.push(...found)
        return found
      },
      ...(from.obtainImage === undefined ? {} : { obtainImage: from.obtainImage }),
      ...(from.audit === undefined ? {} : { audit: from.audit })
    },
    {
      capacity: CAPACITY,
      address: from.address ?? (() => '198.18.0.1'),
      epoch: 1,
      ...(from.accepts === undefined ? {} : { accepts: from.accepts }),
      ...(from.administrative === undefined ? {} : { administrative: from.administrative })
    }
  )
  await manager.start()
  const plain = nodeHandlers({ manager, enforcer })
  const handlers = from.audit === undefined ? plain : auditedHandlers(plain, { manager, audit: from.audit })
  return {
    key,
    findings,
    clock,
    store,
    enforcer,
    manager,
    as: (principal) => localCaller(nodeProtocol, handlers, principal),
    async restart() {
      await manager.stop()
      return nodeLab({ ...from, key, clock, store, enforcer })
    },
    leased: () =>
      manager.table
        .holding()
        .reduce((sum, { lease }) => addResources(sum, lease.body.resources), NO_RESOURCES)
  }
}

/** The monitor in the hands of a process: one that died does nothing to the machine any more. */
function asLongAs(store: FaultyStore, enforcer: FaultyEnforcer): FaultyEnforcer {
  return new Proxy(enforcer, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      return async (...args: unknown[]): Promise<unknown> => {
        if (store.isDead) throw new Error('the process died')
        return Reflect.apply(value, target, args) as unknown
      }
    }
  })
}

export type Outcome = { readonly lease: Signed<Lease> } | { readonly refusal: Signed<Refusal> }

/** What travels in a redemption; each part may be replaced by a forged one. */
export interface Presented {
  readonly delegation: Signed<Delegation>
  readonly tickets: readonly Signed<Ticket>[]
  readonly holder: SigningKey
  readonly memberships?: readonly Uint8Array[]
  readonly changes?: Partial<Redeem>
}

export function demandOf({ tickets, holder, changes = {} }: Presented): Uint8Array {
  const leaf = tickets.at(-1)
  if (leaf === undefined) throw new TypeError('no ticket')
  return demand(leaf, holder, changes).bytes
}

/** Redeems; `demand` is one that was signed before. */
export async function redeem(
  lab: NodeLab,
  presented: Presented,
  demand = demandOf(presented)
): Promise<Outcome> {
  return present(lab, 'newLease', presented, demand)
}

/** As `redeem`, for a demand whose changes name the lease that is to go on. */
export async function renew(
  lab: NodeLab,
  presented: Presented,
  demand = demandOf(presented)
): Promise<Outcome> {
  return present(lab, 'renewLease', presented, demand)
}

async function present(
  lab: NodeLab,
  method: 'newLease' | 'renewLease',
  { delegation, tickets, holder, memberships }: Presented,
  redeem: Uint8Array
): Promise<Outcome> {
  const params = {
    redeem,
    delegation: delegation.bytes,
    tickets: tickets.map(({ bytes }) => bytes),
    ...(memberships === undefined ? {} : { memberships: [...memberships] })
  }
  const reply = await lab.as(holder.principal)(method, params)
  if (reply.refusal !== undefined) return { refusal: refusalObject.open(reply.refusal) }
  if (reply.lease === undefined) throw new TypeError('neither lease nor refusal')
  return { lease: leaseObject.open(reply.lease) }
}

/** The holder's word that it gives a lease up. */
export function surrenderOf({ id, body }: Signed<Lease>, holder: SigningKey): Signed<Surrender> {
  const { issuer: node, vserver, notAfter } = body
  const term = { notBefore: NOW, notAfter: notAfter + HOUR }
  return surrenderObject.sign({ issuer: holder.principal, ...term, seq: 1, node, lease: id, vserver }, holder)
}

export async function deleteLease(lab: NodeLab, lease: Signed<Lease>, holder: SigningKey): Promise<void> {
  const params = { lease: lease.id, surrender: surrenderOf(lease, holder).bytes }
  await lab.as(holder.principal)('deleteLease', params)
}

/** The code of a refusal, or `leased`. */
export function codeOf(outcome: Outcome): string {
  return 'refusal' in outcome ? outcome.refusal.body.code : 'leased'
}

export function leaseOf(outcome: Outcome): Signed<Lease> {
  if ('lease' in outcome) return outcome.lease
  throw new TypeError(`refused: ${outcome.refusal.body.code}: ${outcome.refusal.body.message}`)
}

export async function settleOne(
  lab: NodeLab,
  by: SigningKey,
  ticket: Signed<Ticket>,
  cancel = false
): Promise<TicketState | undefined> {
  const { states } = await lab.as(by.principal)('settleTickets', { tickets: [ticket.bytes], cancel })
  return states[0]
}
