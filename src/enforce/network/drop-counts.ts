/**
 * Counts of dropped packets by link and reason, in one nft set of each table: an element is made by the first packet that it
 * counts, so that a link which drops nothing costs nothing. Vservers without a link are told by the range of their user ids.
 */
import { run } from '../../base/host-program.ts'
import { LIMITS } from '../../base/limits.ts'
import { planLink } from './address-plan.ts'
import type { LinkRecord } from './link-records.ts'

/** The sets' names. */
const DROP_COUNTS = 'drop_counts'
const USER_DROP_COUNTS = 'user_drop_counts'
const MARKED_DROP_COUNTS = 'marked_drop_counts'
/** Ranges of user ids begin at multiples of their size. */
export const IDS_MASK = 0xffff_0000
const IDS_IN_RANGE = 0x1_0000
/** Matches a range of users as `blockOf` writes it. */
export const USER_BLOCK = `meta skuid & ${IDS_MASK}`

/** Why a packet was dropped that the checks let through: there was no room for it in its queue, or under a cap of all uplinks together. */
export const SHAPED = 'shaped'

/** By the name of a link's host end, or the first id of a range of users: packets by reason. */
export type DropCounts = ReadonlyMap<string, ReadonlyMap<string, number>>

/** How a table's set has reasons. */
export interface ReasonKeys {
  readonly set: string
  readonly type: 'ifname' | 'mark'
  readonly write: (reason: string) => string
  readonly read: (key: string) => string
}

/** As if they were names of devices, which nft keeps as text of the same length. */
const NAMED: ReasonKeys = {
  set: DROP_COUNTS,
  type: 'ifname',
  write: (reason) => `"${reason}"`,
  read: (key) => key
}

/** By the mark that a packet bears: the reason's place among these, from 1 on. */
export function markedBy(reasons: readonly string[]): ReasonKeys {
  return {
    set: MARKED_DROP_COUNTS,
    type: 'mark',
    write: (reason) => `${reasons.indexOf(reason) + 1}`,
    read: (key) => reasons[Number(key) - 1] ?? key
  }
}

/** The set's declaration, for a table in which `reasons` reasons are counted. */
export function dropCountsSet(reasons: number, { set, type } = NAMED): string {
  return `${set} { type ifname . ${type}; flags dynamic; size ${LIMITS.linksPerNodeMax * reasons}; counter; }`
}

/** A statement that counts a packet for the link that it came by and the reason that it is marked with, alone in its rule as well. */
export const COUNT_MARKED_DROP = `update @${MARKED_DROP_COUNTS} { iifname . meta mark }`

/**
 * A statement that counts a packet for the link that it came by, or that it was to leave by. In a rule of its own: where
 * nothing can be counted any more, what follows in the rule would not be done.
 */
export function countDrop(reason: string, link: 'iifname' | 'oifname' = 'iifname'): string {
  return `update @${DROP_COUNTS} { ${link} . "${reason}" }`
}

/** Lines for nft that forget the counts of a link; adding first makes deleting certain. */
export function dropCountsRemoval(
  table: string,
  device: string,
  reasons: readonly string[],
  { set, write } = NAMED
): string[] {
  const keys = reasons.map((reason) => `"${device}" . ${write(reason)}`).join(', ')
  return ['add', 'delete'].map((verb) => `${verb} element ${table} ${set} { ${keys} }`)
}

/** The same of what users of vservers without a link send. */
export function userDropCountsSet(reasons: number): string {
  return `${USER_DROP_COUNTS} { typeof meta skuid . iifname; flags dynamic; size ${LIMITS.linksPerNodeMax * reasons}; counter; }`
}

/** As `countDrop`, of such a user; the table has a set `users` of them. */
export function countUserDrop(reason: string): string {
  return `meta skuid @users ${countDropOfUser(reason)}`
}

/** The same of one that is known to be such a user. */
export function countDropOfUser(reason: string): string {
  return `update @${USER_DROP_COUNTS} { ${USER_BLOCK} . "${reason}" }`
}

export function userDropCountsRemoval(table: string, firstId: number, reasons: readonly string[]): string[] {
  const keys = reasons.map((reason) => `${blockOf(firstId)} . "${reason}"`).join(', ')
  return ['add', 'delete'].map((verb) => `${verb} element ${table} ${USER_DROP_COUNTS} { ${keys} }`)
}

export async function readUserDropCounts(table: string): Promise<DropCounts> {
  return readSet(table, USER_DROP_COUNTS)
}

/** The key of a range of users in what is read. */
export function blockOf(firstId: number): string {
  return `${firstId - (firstId % IDS_IN_RANGE)}`
}

/** What the counts of a vserver go by. */
export function senderOf({ index, ids }: { index: number; ids?: LinkRecord['ids'] | undefined }): string {
  return ids === undefined ? planLink(index).device : blockOf(ids.first)
}

/**
 * Lines for nft that put the counts of these senders, by their keys in what is read, back into a table that is made anew;
 * none where the table was not there.
 */
export async function keptDropCounts(table: string, senders: ReadonlySet<string>): Promise<string[]> {
  const lines = [DROP_COUNTS, USER_DROP_COUNTS].map(async (name) => {
    const counts = await readSet(table, name).catch((): DropCounts => new Map())
    return [...counts].flatMap(([sender, ofSender]) =>
      senders.has(sender)
        ? [...ofSender].map(
            ([reason, packets]) =>
              `add element ${table} ${name} { ${sender} . "${reason}" counter packets ${packets} bytes 0 }`
          )
        : []
    )
  })
  return (await Promise.all(lines)).flat()
}

/** Lines for nft that forget the counts of all links but these; their numbers will be those of others. */
export async function strayDropCountsRemoval(
  table: string,
  devices: ReadonlySet<string>,
  keys = NAMED
): Promise<string[]> {
  const counts = await readDropCounts(table, keys).catch((): DropCounts => new Map())
  return [...counts].flatMap(([device, reasons]) =>
    devices.has(device) ? [] : dropCountsRemoval(table, device, [...reasons.keys()], keys)
  )
}

/** Since the set was made. Throws `HOST_PROGRAM_FAILED` where the table (`family name`) is not there. */
export async function readDropCounts(table: string, keys = NAMED): Promise<DropCounts> {
  return readSet(table, keys.set, keys)
}

async function readSet(table: string, name: string, { read } = NAMED): Promise<DropCounts> {
  const printed = JSON.parse(await run('nft', ['-j', 'list', 'set', ...table.split(' '), name])) as Printed
  const counts = new Map<string, Map<string, number>>()
  for (const { elem } of printed.nftables?.flatMap(({ set }) => set?.elem ?? []) ?? []) {
    const [sender = '', key = ''] = elem.val.concat.map(String)
    const reason = read(key)
    const ofSender = counts.get(sender) ?? new Map<string, number>()
    counts.set(sender, ofSender.set(reason, elem.counter.packets))
  }
  return counts
}

interface Printed {
  readonly nftables?: readonly {
    readonly set?: {
      readonly elem?: readonly {
        readonly elem: {
          readonly val: { readonly concat: readonly (string | number)[] }
          readonly counter: { readonly packets: number }
        }
      }[]
    }
  }[]
}
