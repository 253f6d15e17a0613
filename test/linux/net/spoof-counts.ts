/** Counts for the tests of what must not leave: marked frames that a sniffer (spoof.py) saw, and drops by their reason. */
import { DEFAULT_SHAPING, type ShapingPolicy } from '../../../src/enforce/network/rates.ts'
import { PATIENCE, type Lab, type LineProgram } from './lab.ts'
import { MARKS } from './spoof-classes.ts'

const WIDE_BPS = 10_000_000_000
/** Of a node whose buckets lose nothing of what is sent fast. */
export const WIDE_SHAPING: ShapingPolicy = {
  ...DEFAULT_SHAPING,
  icmpBps: WIDE_BPS,
  optionsBps: WIDE_BPS,
  newDestinationsBps: WIDE_BPS
}

const WAIT_SECONDS = 4 * PATIENCE

export interface Count {
  readonly spoof: number
  readonly legitimate: number
}

/** How many marked frames a sniffer has seen so far, from any port or from one; once there are as many as wanted, or it waited. */
export async function seen(
  sniffer: LineProgram,
  port?: number,
  wanted?: { readonly mark: string; readonly least: number }
): Promise<Count> {
  const asked = { op: 'seen', ...(wanted === undefined ? {} : { ...wanted, wait: WAIT_SECONDS }) }
  const { counts, lost } = await sniffer.ask<{ counts: Record<string, number>; lost: number }>(asked)
  if (lost > 0) throw new Error(`the sniffer lost ${lost} frames`)
  const of = (mark: string): number =>
    Object.entries(counts)
      .filter(([key]) => (port === undefined ? key.startsWith(`${mark}:`) : key === `${mark}:${port}`))
      .reduce((sum, [, count]) => sum + count, 0)
  return { spoof: of(MARKS.spoof), legitimate: of(MARKS.legitimate) }
}

export const minus = (after: Count, before: Count): Count => ({
  spoof: after.spoof - before.spoof,
  legitimate: after.legitimate - before.legitimate
})

/** What was dropped of vserver one, by reason; of all tables. */
export async function dropped(lab: Lab): Promise<Record<string, number>> {
  return lab.ask({ op: 'dropped', id: 'one' })
}

/** The reasons whose counts have changed, and by how much. */
export function gained(
  after: Record<string, number>,
  before: Record<string, number>
): Record<string, number> {
  const changes = Object.entries(after).map(
    ([reason, count]) => [reason, count - (before[reason] ?? 0)] as const
  )
  return Object.fromEntries(changes.filter(([, count]) => count !== 0))
}

export const hex = (frames: readonly Buffer[]): string[] => frames.map((frame) => frame.toString('hex'))

/** Has all that gets past the check on the link of vserver one copied to a device of the node. Gives a sniffer of the copies. */
export async function snifferBehind(lab: Lab): Promise<LineProgram> {
  await lab.onNode(['ip', 'link', 'add', 'copies', 'type', 'veth', 'peer', 'name', 'seen'])
  for (const device of ['copies', 'seen']) {
    await lab.onNode(['ip', 'link', 'set', device, 'addrgenmode', 'none', 'up'])
  }
  await lab.nft(`
    add table netdev spy
    add chain netdev spy sl1 { type filter hook ingress device "sl1" priority 0; }
    add rule netdev spy sl1 dup to "copies"
  `)
  return lab.program('node', 'spoof.py', 'seen')
}
