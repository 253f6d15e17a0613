/** Who has which port of a node's address: leases, the node itself, programs of its machine, and all vservers together. Pure. */
import { mergeRanges } from '../enforce/network/owned-ports.ts'
import type { LeaseRecord } from '../node/lease-table.ts'
import { PORT_PROTOCOLS, portsWithout, type PortRange } from '../ticket/ports.ts'
import type { NodePortView } from './node-port-protocol.ts'

export interface NodePortsInit {
  readonly records: readonly Pick<LeaseRecord, 'lease' | 'state' | 'surrender'>[]
  /** Of the node, by its configuration. */
  readonly own: readonly PortRange[]
  /** That programs of the node listen on. */
  readonly heard: readonly PortRange[]
  readonly shared: readonly PortRange[]
  /** UTC ms. */
  readonly now: number
}

/** Sorted by protocol and number. */
export function nodePorts({ records, own, heard, shared, now }: NodePortsInit): NodePortView[] {
  const leased = records.filter((record) => hasPorts(record, now)).flatMap(leasedPorts)
  // The daemon is a program as well, and what it listens on is told once.
  const programs = mergeRanges(portsWithout(heard, own))
  const views: NodePortView[] = [
    ...leased,
    ...mergeRanges(own).map((range) => ({ ...range, owner: 'node' as const })),
    ...programs.map((range) => ({ ...range, owner: 'program' as const })),
    ...shared.map((range) => ({ ...range, owner: 'shared' as const }))
  ]
  const order = ({ protocol }: NodePortView): number => PORT_PROTOCOLS.indexOf(protocol)
  return views.sort((a, b) => order(a) - order(b) || a.first - b.first || a.last - b.last)
}

function leasedPorts({ lease, state }: NodePortsInit['records'][number]): NodePortView[] {
  const { slice, holder, vserver, notAfter, ports } = lease.body
  const about = { owner: 'lease' as const, slice, lease: lease.id, holder, vserver, state, notAfter }
  return mergeRanges(ports).map((range) => ({ ...range, ...about }))
}

/** A lease that the node ended early keeps its ports to the end of its term, unless its holder gave them up. */
function hasPorts({ lease, state, surrender }: NodePortsInit['records'][number], now: number): boolean {
  if (state === 'renewed') return false
  return state !== 'ended' || (surrender === undefined && lease.body.notAfter > now)
}
