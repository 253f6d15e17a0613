/** Everything that nft holds of a node's network, as one transaction: its table anew, and what belongs to each link. */
import type { PortRange } from '../../ticket/ports.ts'
import { VSERVER_TABLE } from './destinations.ts'
import { keptDropCounts, senderOf, strayDropCountsRemoval } from './drop-counts.ts'
import { ENDS_TABLE, ENDS_TABLE_6 } from './lease-ends.ts'
import { linkLines, type Families } from './link-lines.ts'
import type { LinkRecord } from './link-records.ts'
import { nodeTable, type NodeTableInit } from './node-table.ts'
import { nodeTable6 } from './node-table6.ts'
import { currentUsersLines, USERS_TABLE, USERS_TABLE_6, type UsersInit } from './node-users.ts'
import { NODE_TABLE, reservedLines } from './owned-ports.ts'
import { NODE_TABLE_6, reservedLines6 } from './owned-ports6.ts'
import { removalOfTables } from './ruleset.ts'
import { checkLines, REFUSAL_KEYS, SOURCE_CHECK_TABLE } from './source-check.ts'
import type { SourceHooks } from './source-hooks.ts'
import type { Uplink } from './uplink.ts'
import type { MarkedUplink } from './uplink-rules.ts'
import { UNTRACKED_TABLE, UNTRACKED_TABLE_6 } from './untracked-flows.ts'
import { USER_FLOWS_TABLES } from './user-flows.ts'
import { vserverTable, type VserverBounds } from './vserver-table.ts'

export interface NodeRulesInit extends NodeTableInit, VserverBounds {
  readonly reservedPorts: readonly PortRange[]
  readonly hooks: SourceHooks
  readonly uplinks: readonly (MarkedUplink & Families & Pick<Uplink, 'neighbours6'>)[]
}

/** For these records alone; the devices of their links must be there. */
export async function nodeRules(init: NodeRulesInit, records: readonly LinkRecord[]): Promise<string[]> {
  const senders = new Set(records.map(senderOf))
  const six = uplinks6(init)
  const links = records.filter(({ ids }) => ids === undefined)
  return [
    nodeTable(init),
    ...(await keptDropCounts(NODE_TABLE, senders)),
    ...(await rules6(init, senders)),
    vserverTable(init, init.uplinks),
    ...(await keptDropCounts(VSERVER_TABLE, senders)),
    ...checkLines(six.length > 0),
    ...init.hooks.lines(links.map(({ index }) => index)),
    ...(await strayDropCountsRemoval(SOURCE_CHECK_TABLE, senders, REFUSAL_KEYS)),
    ...reservedLines(init.reservedPorts),
    ...links.flatMap((record) => linkLines(record, { address6: six[0]?.address })),
    ...(await currentUsersLines(records, usersInit(init)))
  ]
}

/** What the rules for those that share the node's network are made of. */
export function usersInit(init: NodeRulesInit): Omit<UsersInit, 'devices'> {
  const { uplinks, allowedPrivateRanges } = init
  return {
    uplinks,
    hasSix: uplinks6(init).length > 0,
    bounds: init,
    reach6: { allowedPrivateRanges, neighbours6: neighboursOf(uplinks) }
  }
}

/** The table of IPv6; where the node has none, none is left either. */
async function rules6(init: NodeRulesInit, senders: ReadonlySet<string>): Promise<string[]> {
  const uplinks = uplinks6(init)
  if (uplinks.length === 0) return removalOfTables([NODE_TABLE_6])
  return [
    nodeTable6({ ...init, uplinks, neighbours6: neighboursOf(init.uplinks) }, init.uplinks.length < 2),
    ...(await keptDropCounts(NODE_TABLE_6, senders)),
    ...reservedLines6(init.reservedPorts)
  ]
}

/** Of uplinks without an address of use as well: what is next to the node is its own network. */
function neighboursOf(uplinks: readonly Pick<Uplink, 'neighbours6'>[]): string[] {
  return [...new Set(uplinks.flatMap(({ neighbours6 = [] }) => neighbours6))]
}

/** Those that have IPv6, by their addresses of it. */
function uplinks6({ uplinks }: NodeRulesInit): MarkedUplink[] {
  return uplinks.flatMap(({ device, ifindex, number, address6 }) =>
    address6 === undefined ? [] : [{ device, ifindex, number, address: address6 }]
  )
}

const TABLES = [
  NODE_TABLE,
  NODE_TABLE_6,
  VSERVER_TABLE,
  SOURCE_CHECK_TABLE,
  USERS_TABLE,
  USERS_TABLE_6,
  UNTRACKED_TABLE,
  UNTRACKED_TABLE_6,
  ...USER_FLOWS_TABLES,
  ENDS_TABLE,
  ENDS_TABLE_6
]

/** Lines for nft that take all of it away, whatever of it is there. */
export async function tablesRemoval(): Promise<string[]> {
  return removalOfTables(TABLES)
}
