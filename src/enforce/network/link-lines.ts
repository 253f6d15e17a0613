/** What nft and the uplink's queue hold of a link, as its record says. */
import { SlicenetError } from '../../base/errors.ts'
import type { PortRange } from '../../ticket/ports.ts'
import { planLink } from './address-plan.ts'
import { destinationRateRemoval, fewerDestinationsLines, fewerDestinationsRemoval } from './destinations.ts'
import { dropCountsRemoval } from './drop-counts.ts'
import type { LinkRecord } from './link-records.ts'
import { DROP_REASONS, flowCountRemoval, type VserverBounds } from './node-table.ts'
import { NODE_TABLE, ownershipLines, portLines, requireUnclaimed } from './owned-ports.ts'
import type { ShapedLink } from './shaping.ts'
import { sourceCheckLines, sourceCheckRemoval } from './source-check.ts'
import { tunnelKeys } from './tunnel-keys.ts'
import { listeningPorts, type Uplink } from './uplink.ts'

/** Everything that nft holds for one link; adding it again changes nothing. */
export function linkLines(record: LinkRecord): string[] {
  const plan = planLink(record.index)
  const ownership = { plan, ports: record.ports }
  return [...ownershipLines('add', ownership), ...fewerLines(record), ...sourceCheckLines(plan)]
}

function fewerLines({ index, shaping }: LinkRecord): string[] {
  return fewerDestinationsLines(planLink(index), shaping?.destinationsPerMinute, 'goto drop_destinations')
}

export function shapedLink(record: LinkRecord): ShapedLink {
  return { plan: planLink(record.index), resources: record.resources, shaping: record.shaping }
}

/** Lines that take away what `before` has and `after` has not, but for the links themselves. */
export function supersededLines(before: LinkRecord, after: LinkRecord): string[] {
  const [had, has] = [before, after].map(({ shaping }) => shaping?.destinationsPerMinute)
  const fewer =
    had === has ? [] : [...fewerDestinationsRemoval(planLink(before.index), had), ...fewerLines(after)]
  return [...removedPortLines(before, after), ...fewer]
}

function removedPortLines(before: LinkRecord, after: LinkRecord): string[] {
  const plan = planLink(before.index)
  const kept = new Set(portLines('add', { plan, ports: after.ports }))
  const ownership = { plan, ports: before.ports }
  const added = portLines('add', ownership)
  return portLines('delete', ownership).filter((_, position) => !kept.has(added[position] ?? ''))
}

/** Lines that take away all of a link, whatever of it is there. The device must be gone before. */
export function removalLines(record: LinkRecord, bounds: VserverBounds): string[] {
  const plan = planLink(record.index)
  const ownership = { plan, ports: record.ports }
  return [
    // Adding first makes deleting certain, also after an attach that failed early.
    ...ownershipLines('add', ownership),
    ...ownershipLines('delete', ownership),
    ...fewerDestinationsRemoval(plan, record.shaping?.destinationsPerMinute),
    ...sourceCheckRemoval(plan.device),
    ...dropCountsRemoval(NODE_TABLE, plan.device, DROP_REASONS),
    ...flowCountRemoval(plan.address, bounds.flowsPerVserverMax),
    ...destinationRateRemoval(plan.address, bounds)
  ]
}

/** The kernel walks all its connections to tell who listens, which takes as long as making the link. */
export async function requireUnheard(gained: readonly PortRange[], uplink: Uplink): Promise<void> {
  if (gained.length === 0) return
  const protocols = new Set(gained.map(({ protocol }) => protocol))
  const [ports, keys] = await Promise.all([
    listeningPorts(uplink.address, protocols),
    protocols.has('gre') ? tunnelKeys() : []
  ])
  requireUnclaimed(gained, [
    { by: 'a program of the node', ports },
    { by: 'a tunnel of the node', ports: keys }
  ])
}

export function notAttached(id: string): SlicenetError {
  return new SlicenetError('NOT_FOUND', `no vserver ${id} is attached to the node's network`)
}
