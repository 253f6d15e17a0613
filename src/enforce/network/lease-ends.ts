/**
 * When each vserver's traffic ends, told to the kernel, which keeps to it by its own clock: also while no daemon runs.
 * In tables of its own, which stand while no daemon runs; the next daemon makes them anew.
 */
import { ANY_LINK, indexOfAddress, planLink } from './address-plan.ts'
import { applyRules } from './ruleset.ts'

export const ENDS_TABLE = 'ip slicenet_ends'
export const ENDS_TABLE_6 = 'ip6 slicenet_ends'

function beginning(table: string, ip: 'ip' | 'ip6'): string[] {
  return [
    `add table ${table}`,
    `delete table ${table}`,
    `add table ${table}`,
    `add counter ${table} over`,
    `add map ${table} ends { type ${ip === 'ip' ? 'ipv4_addr' : 'ipv6_addr'} : verdict; }`,
    `add chain ${table} out { type filter hook prerouting priority -180; policy accept; }`,
    `add rule ${table} out iifname ${ANY_LINK} ${ip} saddr vmap @ends`,
    `add chain ${table} in { type filter hook forward priority -10; policy accept; }`,
    `add rule ${table} in oifname ${ANY_LINK} ${ip} daddr vmap @ends`
  ]
}

const BEGINNING = [...beginning(ENDS_TABLE, 'ip'), ...beginning(ENDS_TABLE_6, 'ip6')]

/** The ends that the kernel has, by the vserver's inside address of IPv4; UTC seconds. */
export class LeaseEnds {
  #ends: ReadonlyMap<string, number> | undefined

  /**
   * From each time on (UTC ms, by inside address of IPv4) nothing passes from or to that vserver; others pass. All of it or
   * nothing, and only what changed.
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
  return placesOf(address).flatMap(([table, inside]) => [
    `add chain ${table} ${chain}`,
    `flush chain ${table} ${chain}`,
    `add rule ${table} ${chain} meta time >= ${end} counter name over drop`,
    `add element ${table} ends { ${inside} : goto ${chain} }`
  ])
}

function removal(address: string): string[] {
  const chain = chainOf(address)
  return placesOf(address).flatMap(([table, inside]) => [
    `delete element ${table} ends { ${inside} : goto ${chain} }`,
    `flush chain ${table} ${chain}`,
    `delete chain ${table} ${chain}`
  ])
}

/** Each table with the vserver's address of its family. */
function placesOf(address: string): (readonly [string, string])[] {
  const index = indexOfAddress(address)
  const six = index === undefined ? [] : [[ENDS_TABLE_6, planLink(index).address6] as const]
  return [[ENDS_TABLE, address], ...six]
}

function chainOf(address: string): string {
  return `end_${address.replaceAll('.', '_')}`
}
