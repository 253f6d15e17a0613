/**
 * Whether a ticket may renew a lease (paper §2.2, design §3): it must go on with the same thing, to a later end. Pure.
 */
import { formatPortRange, portsWithin } from '../ticket/ports.ts'
import type { Redeem } from '../ticket/redeem.ts'
import type { Reason } from '../ticket/refusal.ts'
import { RESOURCE_NAMES } from '../ticket/resources.ts'
import { shapingDiffering } from '../ticket/shaping.ts'
import type { Signed } from '../ticket/signed-object.ts'
import { lineOf, type Ticket } from '../ticket/ticket.ts'
import type { LeaseRecord } from './lease-table.ts'

/** The reason to refuse to go on with the lease in `record` by `leaf`; `now` is UTC ms by the node's clock. */
export function renewalFault(
  redeem: Signed<Redeem>,
  leaf: Signed<Ticket>,
  record: LeaseRecord | undefined,
  now: number
): Reason | undefined {
  if (record === undefined || record.lease.body.holder !== redeem.body.issuer || record.state === 'making') {
    return { code: 'LEASE_NOT_HELD', message: `no lease ${redeem.body.renews} of yours is on this node` }
  }
  const { id, body: lease } = record.lease
  const evidence = [id]
  if (record.state !== 'active' || lease.notAfter <= now) {
    return { code: 'LEASE_EXPIRED', message: 'this lease has ended', evidence }
  }
  if (lineOf(leaf) !== record.line) {
    return { code: 'CHAIN_INVALID', message: 'this ticket does not supersede that of the lease', evidence }
  }
  const amount = RESOURCE_NAMES.find((name) => leaf.body.resources[name] !== lease.resources[name])
  if (amount !== undefined) {
    return {
      code: 'CHAIN_INVALID',
      message: `a renewal keeps its amounts, but ${amount} is another`,
      evidence
    }
  }
  const [other] = shapingDiffering(leaf.body.shaping, lease.shaping)
  if (other !== undefined) {
    return {
      code: 'CHAIN_INVALID',
      message: `a renewal keeps its shaping, but ${other} is another`,
      evidence
    }
  }
  const port = lease.ports.find((range) => !portsWithin([range], leaf.body.ports))
  if (port !== undefined) {
    const message = `a renewal keeps its ports, but ${formatPortRange(port)} is missing`
    return { code: 'CHAIN_INVALID', message, evidence }
  }
  const isOther =
    redeem.body.image !== lease.image ||
    leaf.body.ports.some((range) => !portsWithin([range], lease.ports)) ||
    lease.rights.some((right) => !leaf.body.rights.includes(right)) ||
    leaf.body.rights.some((right) => !lease.rights.includes(right))
  if (isOther) {
    return { code: 'CHAIN_INVALID', message: 'a renewal keeps image, ports and rights as they are', evidence }
  }
  if (leaf.body.notAfter > lease.notAfter) return undefined
  const end = new Date(lease.notAfter).toISOString()
  return { code: 'LEASE_NOT_EXTENDED', message: `this lease lasts until ${end} already`, evidence }
}
