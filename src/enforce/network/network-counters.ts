/** What the node's rules dropped and refused, as nft counts it. */
import { planLink } from './address-plan.ts'
import type { LinkRecord } from './link-records.ts'
import { DROP_REASONS, dropCounter, type DropReason } from './node-table.ts'
import { INJECTED_COUNTER, USERS_TABLE } from './node-users.ts'
import { NODE_TABLE } from './owned-ports.ts'
import { readCounters } from './ruleset.ts'
import { REFUSALS, refusalCounter, SOURCE_CHECK_TABLE, type Refusal } from './source-check.ts'

export interface NetworkCounters {
  /** Packets that the guards dropped, of all vservers. */
  readonly drops: Readonly<Record<DropReason, number>>
  /** Frames that the source check refused, by the vserver's id. */
  readonly refused: ReadonlyMap<string, Readonly<Record<Refusal, number>>>
  /** Frames that vservers sharing the node's network made below IP; they went nowhere. Counted while there is one. */
  readonly injected: number
}

/** Of those that are attached. */
export async function readNetworkCounters(records: Iterable<LinkRecord>): Promise<NetworkCounters> {
  const [dropped, refused, users] = await Promise.all([
    readCounters(NODE_TABLE),
    readCounters(SOURCE_CHECK_TABLE),
    readCounters(USERS_TABLE)
  ])
  const drops = Object.fromEntries(
    DROP_REASONS.map((reason) => [reason, dropped.get(dropCounter(reason)) ?? 0])
  )
  const byId = [...records].map((record) => {
    const plan = planLink(record.index)
    const counts = REFUSALS.map((refusal) => [refusal, refused.get(refusalCounter(plan, refusal)) ?? 0])
    return [record.id, Object.fromEntries(counts) as Record<Refusal, number>] as const
  })
  const injected = users.get(INJECTED_COUNTER) ?? 0
  return { drops: drops as Record<DropReason, number>, refused: new Map(byId), injected }
}
