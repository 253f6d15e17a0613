/**
 * Counts of dropped packets by link and reason, in one nft set of each table: an element is made by the first packet that it
 * counts, so that a link which drops nothing costs nothing.
 */
import { run } from '../../base/host-program.ts'
import { LIMITS } from '../../base/limits.ts'

/** The set's name. */
export const DROP_COUNTS = 'drop_counts'

/** By the name of a link's host end: packets by reason. */
export type DropCounts = ReadonlyMap<string, ReadonlyMap<string, number>>

/** The set's declaration, for a table in which `reasons` reasons are counted. */
export function dropCountsSet(reasons: number): string {
  // Reasons are written as if they were names of devices, which nft keeps as text of the same length.
  return `${DROP_COUNTS} { type ifname . ifname; flags dynamic; size ${LIMITS.linksPerNodeMax * reasons}; counter; }`
}

/**
 * A statement that counts a packet for the link that it came by, or that it was to leave by. In a rule of its own: where
 * nothing can be counted any more, what follows in the rule would not be done.
 */
export function countDrop(reason: string, link: 'iifname' | 'oifname' = 'iifname'): string {
  return `update @${DROP_COUNTS} { ${link} . "${reason}" }`
}

/** Lines for nft that forget the counts of a link; adding first makes deleting certain. */
export function dropCountsRemoval(table: string, device: string, reasons: readonly string[]): string[] {
  const keys = reasons.map((reason) => `"${device}" . "${reason}"`).join(', ')
  return ['add', 'delete'].map((verb) => `${verb} element ${table} ${DROP_COUNTS} { ${keys} }`)
}

/** Since the set was made. Throws `HOST_PROGRAM_FAILED` where the table (`family name`) is not there. */
export async function readDropCounts(table: string): Promise<DropCounts> {
  const printed = JSON.parse(
    await run('nft', ['-j', 'list', 'set', ...table.split(' '), DROP_COUNTS])
  ) as Printed
  const counts = new Map<string, Map<string, number>>()
  for (const { elem } of printed.nftables?.flatMap(({ set }) => set?.elem ?? []) ?? []) {
    const [device = '', reason = ''] = elem.val.concat
    const ofDevice = counts.get(device) ?? new Map<string, number>()
    counts.set(device, ofDevice.set(reason, elem.counter.packets))
  }
  return counts
}

interface Printed {
  readonly nftables?: readonly {
    readonly set?: {
      readonly elem?: readonly {
        readonly elem: {
          readonly val: { readonly concat: readonly string[] }
          readonly counter: { readonly packets: number }
        }
      }[]
    }
  }[]
}
