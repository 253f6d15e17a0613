/** Everything that nft holds of a node's network, as one transaction: its table anew, and what belongs to each link. */
import type { PortRange } from '../../ticket/ports.ts'
import { keptDropCounts, strayDropCountsRemoval } from './drop-counts.ts'
import { greCheckLines } from './gre-keys.ts'
import { linkLines } from './link-lines.ts'
import type { LinkRecord } from './link-records.ts'
import { senderOf } from './network-counters.ts'
import { nodeTable, type NodeTableInit } from './node-table.ts'
import { currentUsersLines } from './node-users.ts'
import { NODE_TABLE, reservedLines } from './owned-ports.ts'
import { sharedCheckLines, SOURCE_CHECK_TABLE } from './source-check.ts'

export interface NodeRulesInit extends NodeTableInit {
  readonly reservedPorts: readonly PortRange[]
}

/** For these records alone; the devices of their links must be there. */
export async function nodeRules(init: NodeRulesInit, records: readonly LinkRecord[]): Promise<string[]> {
  const senders = new Set(records.map(senderOf))
  const counts = await keptDropCounts(NODE_TABLE, senders)
  return [
    nodeTable(init),
    ...counts,
    `add table ${SOURCE_CHECK_TABLE}`,
    ...greCheckLines(SOURCE_CHECK_TABLE),
    ...sharedCheckLines(),
    ...(await strayDropCountsRemoval(SOURCE_CHECK_TABLE, senders)),
    ...reservedLines(init.reservedPorts),
    ...records.filter(({ ids }) => ids === undefined).flatMap((record) => linkLines(record)),
    ...(await currentUsersLines(records, init.uplink))
  ]
}
