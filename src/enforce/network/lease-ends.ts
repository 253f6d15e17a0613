/**
 * When each vserver's traffic ends, told to the kernel, which keeps to it by its own clock: also while no daemon runs.
 * In tables of its own, which stand while no daemon runs; the next daemon makes them anew.
 */
import { ANY_LINK, indexOfAddress, planLink } from './address-plan.ts'
import { applyRules, possibleTables } from './ruleset.ts'

export const ENDS_TABLE = 'ip slicenet_ends'
export const ENDS_TABLE_6 = 'ip6 slicenet_ends'

function beginning(table: EndsTable): string[] {
  const ip = table === ENDS_TABLE ? 'ip' : 'ip6'
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

const TABLES = [ENDS_TABLE, ENDS_TABLE_6] as const
type EndsTable = (typeof TABLES)[number]

/** The ends that the kernel has, by the vserver's inside address of IPv4; UTC seconds. */
export class LeaseEnds {
  readonly #hasSix: () => boolean
  #ends: ReadonlyMap<string, number> | undefined
  #hadSix = false

  /** `hasSix`: whether vservers may have IPv6. Each chain that there is makes every change of rules slower. */
  constructor({ hasSix = () => true }: { readonly hasSix?: () => boolean } = {}) {
    this.#hasSix = hasSix
  }

  /**
   * From each time on (UTC ms, by inside address of IPv4) nothing passes from or to that vserver; others pass. All of it or
   * nothing, and only what changed.
   */
  async set(ends: ReadonlyMap<string, number>): Promise<void> {
    // What came before it still counts after a node's IPv6 went.
    const hasSix = this.#hadSix || this.#hasSix()
    const before = hasSix === this.#hadSix ? this.#ends : undefined
    this.#hadSix = hasSix
    const tables = await possibleTables(hasSix ? TABLES : [ENDS_TABLE])
    // Until the second is over in which it ends.
    const wanted = new Map([...ends].map(([address, end]) => [address, Math.ceil(end / 1000)]))
    const lines = [
      ...(before === undefined ? tables.flatMap(beginning) : []),
      ...[...(before ?? [])].flatMap(([address]) =>
        wanted.has(address) ? [] : removal(placesOf(address, tables))
      ),
      ...[...wanted].flatMap(([address, end]) =>
        before?.get(address) === end ? [] : addition(placesOf(address, tables), end)
      )
    ]
    // Should somebody have changed the table, it is made anew next time.
    this.#ends = undefined
    await applyRules(lines)
    this.#ends = wanted
  }
}

/** Where a vserver's end is told. */
interface Place {
  readonly table: EndsTable
  /** The vserver's address of the table's family. */
  readonly inside: string
  readonly chain: string
}

function addition(places: readonly Place[], end: number): string[] {
  return places.flatMap(({ table, inside, chain }) => [
    `add chain ${table} ${chain}`,
    `flush chain ${table} ${chain}`,
    `add rule ${table} ${chain} meta time >= ${end} counter name over drop`,
    `add element ${table} ends { ${inside} : goto ${chain} }`
  ])
}

function removal(places: readonly Place[]): string[] {
  return places.flatMap(({ table, inside, chain }) => [
    `delete element ${table} ends { ${inside} : goto ${chain} }`,
    `flush chain ${table} ${chain}`,
    `delete chain ${table} ${chain}`
  ])
}

function placesOf(address: string, tables: readonly EndsTable[]): Place[] {
  const index = indexOfAddress(address)
  const chain = `end_${address.replaceAll('.', '_')}`
  return tables.flatMap((table): Place[] => {
    if (table === ENDS_TABLE) return [{ table, inside: address, chain }]
    return index === undefined ? [] : [{ table, inside: planLink(index).address6, chain }]
  })
}
