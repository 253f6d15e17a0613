/**
 * When each vserver's traffic ends, told to the kernel, which keeps to it by its own clock: also while no daemon runs.
 * In a table of its own, which stands while no daemon runs; the next daemon makes it anew.
 */
import { ANY_LINK } from './address-plan.ts'
import { applyRules } from './ruleset.ts'

export const ENDS_TABLE = 'ip slicenet_ends'

const BEGINNING = [
  `add table ${ENDS_TABLE}`,
  `delete table ${ENDS_TABLE}`,
  `add table ${ENDS_TABLE}`,
  `add counter ${ENDS_TABLE} over`,
  `add map ${ENDS_TABLE} ends { type ipv4_addr : verdict; }`,
  `add chain ${ENDS_TABLE} out { type filter hook prerouting priority -180; policy accept; }`,
  `add rule ${ENDS_TABLE} out iifname ${ANY_LINK} ip saddr vmap @ends`,
  `add chain ${ENDS_TABLE} in { type filter hook forward priority -10; policy accept; }`,
  `add rule ${ENDS_TABLE} in oifname ${ANY_LINK} ip daddr vmap @ends`
]

/** The ends that the kernel has, by the vserver's inside address; UTC seconds. */
export class LeaseEnds {
  #ends: ReadonlyMap<string, number> | undefined

  /**
   * From each time on (UTC ms, by inside address) nothing passes from or to that address; others pass. All of it or nothing,
   * and only what changed.
   */
  async set(ends: ReadonlyMap<string, number>): Promise<void> {
    const before = this.#ends
    // Until the second is over in which it ends.
    const wanted = new Map([...ends].map(([address, end]) => [address, Math.ceil(end / 1000)]))
    const lines = [
      ...(before === undefined ? BEGINNING : []),
      ...[...(before ?? [])].flatMap(([address]) => (wanted.has(address) ? [] : removal(address))),
      ...[...wanted].flatMap(([address, end]) => (before?.get(address) === end ? [] : addition(address, end)))
    ]
    // Should somebody have changed the table, it is made anew next time.
    this.#ends = undefined
    await applyRules(lines)
    this.#ends = wanted
  }
}

function addition(address: string, end: number): string[] {
  const chain = chainOf(address)
  return [
    `add chain ${ENDS_TABLE} ${chain}`,
    `flush chain ${ENDS_TABLE} ${chain}`,
    `add rule ${ENDS_TABLE} ${chain} meta time >= ${end} counter name over drop`,
    `add element ${ENDS_TABLE} ends { ${address} : goto ${chain} }`
  ]
}

function removal(address: string): string[] {
  const chain = chainOf(address)
  return [
    `delete element ${ENDS_TABLE} ends { ${address} : goto ${chain} }`,
    `flush chain ${ENDS_TABLE} ${chain}`,
    `delete chain ${ENDS_TABLE} ${chain}`
  ]
}

function chainOf(address: string): string {
  return `end_${address.replaceAll('.', '_')}`
}
