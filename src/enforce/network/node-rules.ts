/** Everything that nft holds of a node's network, as one transaction: its table anew, and what belongs to each link. */
import type { PortRange } from '../../ticket/ports.ts'
import { keptDropCounts, strayDropCountsRemoval } from './drop-counts.ts'
import { linkLines } from './link-lines.ts'
import type { LinkRecord } from './link-records.ts'
import { senderOf } from './network-counters.ts'
import { nodeTable, type NodeTableInit } from './node-table.ts'
import { ENDS_TABLE } from './lease-ends.ts'
import { currentUsersLines, USERS_TABLE, USERS_TABLE_6 } from './node-users.ts'
import { NODE_TABLE, reservedLines } from './owned-ports.ts'
import { sharedCheckLines, SOURCE_CHECK_TABLE } from './source-check.ts'
import { UNTRACKED_TABLE } from './untracked-flows.ts'
import { USER_FLOWS_TABLE } from './user-flows.ts'

export interface NodeRulesInit extends NodeTableInit {
  readonly reservedPorts: readonly PortRange[]
}

/** Lines for nft that take all of it away. */
export const NO_RULES: readonly string[] = [
  NODE_TABLE,
  SOURCE_CHECK_TABLE,
  USERS_TABLE,
  USERS_TABLE_6,
  UNTRACKED_TABLE,
  USER_FLOWS_TABLE,
  ENDS_TABLE
].flatMap((name) => [`add table ${name}`, `delete table ${name}`])

/** For these records alone; the devices of their links must be there. */
export async function nodeRules(init: NodeRulesInit, records: readonly LinkRecord[]): Promise<string[]> {
  const senders = new Set(records.map(senderOf))
  const counts = await keptDropCounts(NODE_TABLE, senders)
  return [
    nodeTable(init),
    ...counts,
    ...sharedCheckLines(),
    ...(await strayDropCountsRemoval(SOURCE_CHECK_TABLE, senders)),
    ...reservedLines(init.reservedPorts),
    ...records.filter(({ ids }) => ids === undefined).flatMap((record) => linkLines(record)),
    ...(await currentUsersLines(records, init.uplink))
  ]
}
