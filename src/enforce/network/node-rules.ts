/** Everything that nft holds of a node's network, as one transaction: its table anew, and what belongs to each link. */
import type { PortRange } from '../../ticket/ports.ts'
import { greCheckLines } from './gre-keys.ts'
import { linkLines } from './link-lines.ts'
import type { LinkRecord } from './link-records.ts'
import { nodeTable, type NodeTableInit } from './node-table.ts'
import { currentUsersLines } from './node-users.ts'
import { reservedLines } from './owned-ports.ts'
import { SOURCE_CHECK_TABLE } from './source-check.ts'

export interface NodeRulesInit extends NodeTableInit {
  readonly reservedPorts: readonly PortRange[]
}

/** For these records alone; the devices of their links must be there. */
export async function nodeRules(init: NodeRulesInit, records: readonly LinkRecord[]): Promise<string[]> {
  return [
    nodeTable(init),
    `add table ${SOURCE_CHECK_TABLE}`,
    ...greCheckLines(SOURCE_CHECK_TABLE),
    ...reservedLines(init.reservedPorts),
    ...records.filter(({ ids }) => ids === undefined).flatMap((record) => linkLines(record)),
    ...(await currentUsersLines(records, init.uplink))
  ]
}
