/** What the node's rules dropped and refused, as nft counts it, for the node and for each vserver. */
import { planLink } from './address-plan.ts'
import { blockOf, readDropCounts, readUserDropCounts } from './drop-counts.ts'
import type { LinkRecord } from './link-records.ts'
import { DROP_REASONS, dropCounter, type DropReason } from './node-table.ts'
import { INJECTED_COUNTER, USERS_TABLE } from './node-users.ts'
import { NODE_TABLE } from './owned-ports.ts'
import { readCounters } from './ruleset.ts'
import { REFUSALS, SOURCE_CHECK_TABLE, type Refusal } from './source-check.ts'

export interface NetworkCounters {
  /** Packets that the node's table dropped, whoever sent them; those of nobody are counted here alone. */
  readonly drops: Readonly<Record<DropReason, number>>
  /** Of them those that a vserver sent, by its id, since it was attached. */
  readonly dropped: ReadonlyMap<string, Readonly<Record<DropReason, number>>>
  /** Frames that the source check refused, by the vserver's id, since it was attached. */
  readonly refused: ReadonlyMap<string, Readonly<Record<Refusal, number>>>
  /** Frames that vservers sharing the node's network made below IP; they went nowhere. Counted while there is one. */
  readonly injected: number
}

/** Of those that are attached. */
export async function readNetworkCounters(records: Iterable<LinkRecord>): Promise<NetworkCounters> {
  const [drops, users, dropped, refused] = await Promise.all([
    readCounters(NODE_TABLE),
    readCounters(USERS_TABLE),
    readDropCounts(NODE_TABLE),
    readDropCounts(SOURCE_CHECK_TABLE)
  ])
  const links = [...records].map(({ id, index }) => [id, planLink(index).device] as const)
  return {
    drops: amounts(DROP_REASONS, (reason) => drops.get(dropCounter(reason))),
    dropped: new Map(
      links.map(([id, device]) => [id, amounts(DROP_REASONS, (reason) => dropped.get(device)?.get(reason))])
    ),
    refused: new Map(
      links.map(([id, device]) => [id, amounts(REFUSALS, (reason) => refused.get(device)?.get(reason))])
    ),
    injected: users.get(INJECTED_COUNTER) ?? 0
  }
}

/** What was dropped of one vserver, packets by reason, of all tables; reasons for which nothing was are left out. */
export async function readDropsOf({ index, ids }: LinkRecord): Promise<Record<string, number>> {
  const tables = await Promise.all(
    ids === undefined
      ? [NODE_TABLE, SOURCE_CHECK_TABLE].map(readDropCounts)
      : [NODE_TABLE, USERS_TABLE].map(readUserDropCounts)
  )
  const sender = senderOf({ index, ids })
  return Object.fromEntries(tables.flatMap((counts) => [...(counts.get(sender) ?? [])]))
}

/** What the counts of a vserver go by. */
export function senderOf({ index, ids }: { index: number; ids?: LinkRecord['ids'] | undefined }): string {
  return ids === undefined ? planLink(index).device : blockOf(ids.first)
}

function amounts<K extends string>(
  reasons: readonly K[],
  amount: (reason: K) => number | undefined
): Record<K, number> {
  const entries = reasons.map((reason) => [reason, amount(reason) ?? 0])
  return Object.fromEntries(entries) as Record<K, number>
}
