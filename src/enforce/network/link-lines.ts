/** What nft and the uplink's queue hold of a link, as its record says. */
import { SlicenetError } from '../../base/errors.ts'
import type { PortRange } from '../../ticket/ports.ts'
import { planLink } from './address-plan.ts'
import { fewerDestinationsLines, fewerDestinationsRemoval } from './destinations.ts'
import { FAMILY_DROP_REASONS } from './drop-chains.ts'
import { dropCountsRemoval } from './drop-counts.ts'
import type { LinkRecord } from './link-records.ts'
import {
  NODE_TABLE,
  ownershipLines,
  portLines,
  requireUnclaimed,
  SHARED_CLAIM,
  type Ownership
} from './owned-ports.ts'
import { NODE_TABLE_6, ownershipLines6, portLines6 } from './owned-ports6.ts'
import type { ShapedLink } from './shaping.ts'
import { ownLines, ownRemoval } from './source-check.ts'
import { tunnelKeys } from './tunnel-keys.ts'
import { listeningPorts, type Uplink } from './uplink.ts'
import { newClassLine, vserverRemoval, type VserverBounds } from './vserver-table.ts'

/** Everything that nft holds for one link, but for what leads its frames to the check; adding it again changes nothing. */
export function linkLines(record: LinkRecord, { address6 }: Families): string[] {
  const plan = planLink(record.index)
  const ownership = { plan, ports: record.ports }
  const hasSix = address6 !== undefined
  return [
    ...ownershipLines('add', ownership),
    ...(hasSix ? ownershipLines6('add', ownership) : []),
    newClassLine('add', plan),
    ...fewerDestinationsLines(plan, record.shaping?.destinationsPerMinute),
    ...ownLines('add', plan)
  ]
}

/** Which families of addresses the node has: IPv4 always. */
export interface Families {
  readonly address6?: string | undefined
}

/** Lines that `add` or `delete` the elements of a link's ports alone, of the families that the node has. */
export function linkPortLines(
  verb: 'add' | 'delete',
  ownership: Ownership,
  { address6 }: Families
): string[] {
  return [...portLines(verb, ownership), ...(address6 === undefined ? [] : portLines6(verb, ownership))]
}

export function shapedLink(record: LinkRecord): ShapedLink {
  return { plan: planLink(record.index), resources: record.resources, shaping: record.shaping }
}

/** Lines that take away what `before` has and `after` has not, but for the links themselves. */
export function supersededLines(before: LinkRecord, after: LinkRecord, uplink: Families): string[] {
  const [had, has] = [before, after].map(({ shaping }) => shaping?.destinationsPerMinute)
  const plan = planLink(before.index)
  const fewer =
    had === has ? [] : [...fewerDestinationsRemoval(plan, had), ...fewerDestinationsLines(plan, has)]
  return [...removedPortLines(before, after, uplink), ...fewer]
}

function removedPortLines(before: LinkRecord, after: LinkRecord, uplink: Families): string[] {
  const plan = planLink(before.index)
  const kept = new Set(linkPortLines('add', { plan, ports: after.ports }, uplink))
  const ownership = { plan, ports: before.ports }
  const added = linkPortLines('add', ownership, uplink)
  return linkPortLines('delete', ownership, uplink).filter((_, position) => !kept.has(added[position] ?? ''))
}

/** Lines that take away all of a link, whatever of it is there. The device must be gone before. */
export function removalLines(record: LinkRecord, bounds: VserverBounds, uplink: Families): string[] {
  const plan = planLink(record.index)
  const ownership = { plan, ports: record.ports }
  return [
    // Adding first makes deleting certain, also after an attach that failed early.
    ...ownershipLines('add', ownership),
    ...ownershipLines('delete', ownership),
    ...vserverRemoval(plan, bounds, record.shaping?.destinationsPerMinute),
    ...ownRemoval(plan),
    ...dropCountsRemoval(NODE_TABLE, plan.device, FAMILY_DROP_REASONS),
    ...(uplink.address6 === undefined ? [] : removalLines6(ownership))
  ]
}

function removalLines6(ownership: Ownership): string[] {
  return [
    ...ownershipLines6('add', ownership),
    ...ownershipLines6('delete', ownership),
    ...dropCountsRemoval(NODE_TABLE_6, ownership.plan.device, FAMILY_DROP_REASONS)
  ]
}

/** Throws `PORT_IN_USE` where the node, all vservers together or one of these has one of the ports. */
export function requireFree(
  ports: readonly PortRange[],
  { reserved, others }: { readonly reserved: readonly PortRange[]; readonly others: readonly LinkRecord[] }
): void {
  requireUnclaimed(ports, [
    { by: 'the node', ports: reserved },
    SHARED_CLAIM,
    ...others.map((record) => ({ by: `vserver ${record.id}`, ports: record.ports }))
  ])
}

/** The kernel walks all its connections to tell who listens, which takes as long as making the link. */
export async function requireUnheard(
  gained: readonly PortRange[],
  nodes: readonly Pick<Uplink, 'address' | 'address6'>[]
): Promise<void> {
  if (gained.length === 0) return
  const protocols = new Set(gained.map(({ protocol }) => protocol))
  const [ports, keys] = await Promise.all([
    listeningPorts(nodes, protocols),
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

/** Throws `BUSY` where vservers are attached. */
export function requireNone(attached: number): void {
  if (attached === 0) return
  throw new SlicenetError('BUSY', `${attached} vservers are attached to the node's network`, {
    hint: 'destroy them first'
  })
}
