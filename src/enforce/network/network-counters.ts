/** What the node's rules dropped and refused, as nft counts it, for the node and for each vserver. */
import { planLink } from './address-plan.ts'
import { VSERVER_TABLE } from './destinations.ts'
import { readDropCounts, readUserDropCounts, senderOf, SHAPED, type DropCounts } from './drop-counts.ts'
import type { Families } from './link-lines.ts'
import type { LinkRecord } from './link-records.ts'
import { DROP_REASONS, dropCounter, type DropReason } from './drop-chains.ts'
import { INJECTED_COUNTER, USERS_TABLE, USERS_TABLE_6 } from './node-users.ts'
import { NODE_TABLE } from './owned-ports.ts'
import { NODE_TABLE_6 } from './owned-ports6.ts'
import { readCounters } from './ruleset.ts'
import { CAPS_TABLE } from './shared-cap.ts'
import { REFUSAL_KEYS, REFUSALS, SOURCE_CHECK_TABLE, type Refusal } from './source-check.ts'

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
export async function readNetworkCounters(
  records: Iterable<LinkRecord>,
  families: Families
): Promise<NetworkCounters> {
  const [drops, users, dropped, refused] = await Promise.all([
    Promise.all([NODE_TABLE, NODE_TABLE_6, VSERVER_TABLE].map(readCounters)),
    readCounters(USERS_TABLE),
    Promise.all([...nodeCounts(families, readDropCounts), readDropCounts(VSERVER_TABLE)]).then(sumOf),
    readDropCounts(SOURCE_CHECK_TABLE, REFUSAL_KEYS)
  ])
  const all = (name: string): number => drops.reduce((sum, table) => sum + (table.get(name) ?? 0), 0)
  const links = [...records].map(({ id, index }) => [id, planLink(index).device] as const)
  return {
    drops: amounts(DROP_REASONS, (reason) => all(dropCounter(reason))),
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
export async function readDropsOf(
  { index, ids }: LinkRecord,
  uplinks: Families & {
    readonly queueDrops: (record: Pick<LinkRecord, 'index'>) => Promise<number>
  }
): Promise<Record<string, number>> {
  const sender = senderOf({ index, ids })
  const [queued, ...counts] = await Promise.all([
    uplinks.queueDrops({ index }),
    ...(ids === undefined
      ? [
          ...nodeCounts(uplinks, readDropCounts),
          readDropCounts(VSERVER_TABLE),
          readDropCounts(SOURCE_CHECK_TABLE, REFUSAL_KEYS),
          ifThere(readDropCounts(CAPS_TABLE))
        ]
      : [
          ...nodeCounts(uplinks, readUserDropCounts),
          ...[VSERVER_TABLE, USERS_TABLE].map(readUserDropCounts),
          // Which is not there where the kernel has no tables of IPv6.
          ifThere(readUserDropCounts(USERS_TABLE_6)),
          ifThere(readUserDropCounts(CAPS_TABLE))
        ])
  ])
  const dropped = new Map(sumOf(counts).get(sender))
  const shaped = queued + (dropped.get(SHAPED) ?? 0)
  return Object.fromEntries(shaped === 0 ? dropped : dropped.set(SHAPED, shaped))
}

/** None where the table is not. */
async function ifThere(counts: Promise<DropCounts>): Promise<DropCounts> {
  return counts.catch((): DropCounts => new Map())
}

/** Of the node's tables; that of IPv6 may go at any time with the node's address. */
function nodeCounts(
  { address6 }: Families,
  read: (table: string) => Promise<DropCounts>
): Promise<DropCounts>[] {
  const six = address6 === undefined ? [] : [ifThere(read(NODE_TABLE_6))]
  return [read(NODE_TABLE), ...six]
}

function sumOf(tables: readonly DropCounts[]): DropCounts {
  const sums = new Map<string, Map<string, number>>()
  for (const [sender, reasons] of tables.flatMap((counts) => [...counts])) {
    const sum = sums.get(sender) ?? new Map<string, number>()
    for (const [reason, packets] of reasons) sum.set(reason, (sum.get(reason) ?? 0) + packets)
    sums.set(sender, sum)
  }
  return sums
}

function amounts<K extends string>(
  reasons: readonly K[],
  amount: (reason: K) => number | undefined
): Record<K, number> {
  const entries = reasons.map((reason) => [reason, amount(reason) ?? 0])
  return Object.fromEntries(entries) as Record<K, number>
}
