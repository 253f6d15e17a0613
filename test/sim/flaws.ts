/**
 * Mechanisms that can be taken out, to show that the invariants notice: a simulation that never fails whatever is
 * broken proves nothing.
 */
import type { Enforcer } from '../../src/enforce/enforcer.ts'
import type { NodeManager } from '../../src/node/node-manager.ts'
import { NO_RESOURCES } from '../../src/ticket/resources.ts'
import type { StoreFlaw } from './disk.ts'

export const FLAWS = {
  'store-acknowledges-early': 'commits are acknowledged before they are durable',
  'admission-ignores-leases': 'a node admits leases as if it had none',
  'redeemed-tickets-forgotten': 'a node forgets that a ticket was redeemed as soon as its lease has ended',
  'vservers-left-behind': 'a node forgets a lease that has ended but leaves its virtual machine'
} as const
export type Flaw = keyof typeof FLAWS

export function storeFlawOf(flaw: Flaw | undefined): StoreFlaw | undefined {
  return flaw === 'store-acknowledges-early' ? 'acknowledges-early' : undefined
}

export function flawEnforcer(enforcer: Enforcer, flaw: Flaw | undefined): void {
  if (flaw === 'vservers-left-behind') enforcer.destroy = async () => {}
}

/** Takes a mechanism out of a running node manager. */
export function flawManager({ table }: NodeManager, flaw: Flaw | undefined): void {
  if (flaw === 'admission-ignores-leases') {
    table.leased.all.peak = () => NO_RESOURCES
    table.leased.all.peakEver = () => NO_RESOURCES
    table.leased.conflict = () => undefined
  }
  if (flaw !== 'redeemed-tickets-forgotten') return
  const put = table.put.bind(table)
  table.put = async (record, clock) => {
    await put(record, clock)
    if (record.state === 'ended') await table.withdraw(record)
  }
}
